//! The reason codes: a closed set, so that conditions, Events and metric labels agree and each has a way out in the docs.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $remedy:literal,)+) => {
        /// Why. `CamelCase` as in Kubernetes conditions; also the metric label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The code.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What it means, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)+ }
            }

            /// What the reader can do about it.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)+ }
            }
        }
    };
}

reasons! {
    /// The object was seen and nothing was done yet.
    Accepted => "Nothing to do.",
    /// Everything is as the spec wants it, by observation.
    AsWanted => "Nothing to do.",
    /// Objects are being created or brought back to what is wanted.
    Applying => "Nothing to do; the message names the objects.",
    /// Brokers are starting.
    BrokersStarting => "Wait; `kubectl get pods` shows how far they are. The condition changes when one fails.",
    /// A broker that served is not ready.
    BrokerNotReady => "See the message for the broker; Kubernetes restarts it, and a reason of its own follows if it cannot start.",
    /// A broker's pod is ready but the broker does not answer the operator.
    BrokerSilent => "Check that the operator may reach the broker's API port 9090 and client port 9292 (NetworkPolicy, mesh).",
    /// Reconciliation is paused by `spec.paused`.
    Paused => "Set `spec.paused` to false.",
    /// A step failed; it is tried again with back-off.
    StepFailed => "See the message: it carries the API server's or the broker's words.",
    /// An object that must be replaced is still being deleted.
    WaitingForDeletion => "Wait; if it hangs, look for a foreign finalizer on the object that the message names.",
    /// The StatefulSet controller has not yet acted on the newest template.
    RevisionUnknown => "Wait; if it lasts, check that the Kubernetes controller manager runs.",
    /// Another broker is down, and one disruption at a time is enough.
    AnotherBrokerDown => "Wait; see the broker that the message names.",
    /// The brokers are becoming one cluster.
    Forming => "Wait; the message says how far they are.",
    /// The voters of the cluster are not the brokers of the spec.
    MembershipDiffers => "Wait; if it lasts, see the log of the broker that the message names.",
    /// No broker leads the cluster, so nothing about topics can change.
    NoLeader => "Wait for an election; if it lasts, more than half of the brokers must be up and reach each other on port 9393 and 9090.",
    /// No broker knows of the cluster that was formed: all volumes are new or empty.
    MembershipLost => "Bring the volumes back. To begin anew without their records, delete the annotation `rivven.io/formed` of the cluster.",
    /// What the brokers say of their partitions could not be read.
    PartitionsUnknown => "See the message; no broker is restarted before one of them tells.",
    /// A partition has no leader: neither reads nor writes are possible.
    PartitionOffline => "Bring the brokers back that hold the partition's in-sync replicas; the message names the partition.",
    /// A replica does not hold every acknowledged record yet.
    ReplicaOutOfSync => "Wait; if it lasts, see the log of the broker that is behind, and its disk.",
    /// Something the operator must know could not be read.
    Unreadable => "See the message; often a missing permission of the operator.",
    /// The object is being deleted in order.
    Deleting => "Wait; the message names what is deleted next.",

    /// The object could not be read as its type.
    Malformed => "Correct the object; the message names the field. It happens when the CRD is older or newer than the operator: install the CRDs of this release.",
    /// The spec contradicts itself or names an impossible value.
    InvalidSpec => "Correct the field that the message names.",
    /// A name would be too long for an object or a label.
    NameTooLong => "Create the object under a shorter name.",
    /// The spec asks for something this release of the operator does not do yet.
    NotSupportedByOperator => "Take the field out, or use a release of the operator that supports it.",
    /// More than one broker is asked for, and this broker version runs standalone only.
    BrokerCannotCluster => "Set `replicas: 1`, or a `version` that can cluster (0.1.0 or newer).",
    /// TLS is asked for, and this broker version cannot serve it.
    BrokerCannotServeTls => "Set `tls.enabled: false` and terminate TLS outside, or use a `version` that serves TLS (0.1.0 or newer).",
    /// Authentication is asked for, and this broker version has no way to create a user.
    BrokerCannotAuthenticate => "Set `auth.enabled: false` and fence the brokers by NetworkPolicy, or use version 0.1.0 or newer.",
    /// The certificate of the brokers cannot be used.
    CertificateInvalid => "See the message: it names the Secret and what is wrong with it. The brokers that run keep what they read when they started.",
    /// Brokers with the new certificate and brokers with the one before would not believe each other.
    CertificateNotTrusted => "Change the authority in steps, each a rollout: first put the new one into `ca.crt` beside the old one, then change the certificate, then take the old authority out.",
    /// The certificate was asked for and is not there yet.
    CertificateNotIssued => "See `kubectl describe certificate`: the issuer may be missing or refuse.",
    /// The certificate of the brokers ends within two weeks.
    CertificateEnding => "Put a newer certificate into the Secret that the spec names; brokers restart onto it in order.",
    /// TLS cannot be switched on or off under brokers that run.
    TlsSwitchRefused => "Set `tls.enabled` back; for the other way, make a new cluster.",
    /// Something the spec refers to is missing.
    PrerequisiteMissing => "Create what the message names; it is looked for again on its own.",
    /// An object of the needed name exists and belongs to somebody else.
    NameCollision => "Rename this object or remove the other one; the operator never takes over what is not its own.",
    /// The size of the volumes was reduced, which no file system can do.
    StorageShrinkRefused => "Set `storage.size` back to at least the size in use.",
    /// The storage class was changed, which does not move data.
    StorageClassChangeRefused => "Set `storage.storageClassName` back; to move data, create a new cluster.",
    /// With the number of brokers asked for, partitions could not keep their replicas, or nobody knows whether they could.
    ScaleRefused => "Set `replicas` to at least the number that the message names, or give the topics that it names fewer replicas.",
    /// The version was lowered.
    DowngradeRefused => "Set `version` back to the version in force, which the message names. If the release notes allow it, name the version in the annotation `rivven.io/force-version` of the cluster.",
    /// The version skips more than one minor release, which nobody has tried.
    VersionSkipRefused => "Go to each minor release in between first, or name the version in the annotation `rivven.io/force-version` of the cluster.",
    /// The rollout of this spec was halted, as a broker did not come back; the last spec that every broker ran well on is in force.
    RolloutHalted => "Set the spec back, or correct it; the message has what went wrong. To try the same again: annotate the cluster with another value of `rivven.io/restarted-at`.",
    /// A broker that was restarted has not been ready for `minReadySeconds` yet.
    BrokerSettling => "Wait; the message says how long.",
    /// No maintenance window is open.
    OutsideMaintenanceWindow => "Wait for the window, which the message names, or change `maintenanceWindows`.",
    /// Volumes are being made larger.
    VolumesGrowing => "Wait; `kubectl describe pvc` shows how far the storage is.",
    /// The StatefulSet is replaced around the running brokers, as its claim template cannot be changed.
    ReplacingStatefulSet => "Wait.",
    /// A broker is stopped while its volume grows, as this version loses records when a disk that was full grows under it.
    StoppedToGrow => "Wait; it starts again when the volume has grown. Newer broker versions grow without a stop.",
    /// The API server refuses to let the volume grow, often as its storage class does not allow it.
    VolumeCannotExpand => "Set `storage.size` back, or set `allowVolumeExpansion: true` on the storage class if its driver can.",
    /// A quota of the namespace refuses the larger volume.
    QuotaExceeded => "Raise the quota, or set `storage.size` back.",
    /// The storage cannot make the volume larger.
    VolumeResizeFailed => "See the storage's words in the message; set `storage.size` back to any size above the capacity, or mend the storage.",
    /// Partitions of a broker that is about to restart are being given to other leaders.
    HandingOver => "Wait.",
    /// The API server holds the eviction of a broker back: a disruption budget allows none.
    EvictionHeld => "See `kubectl get pdb`: another budget than the operator's own may select the brokers, or a broker is down. It is tried again with back-off.",
    /// A broker that was restarted is not back in time.
    BrokerNotBack => "See the log of the broker that the message names; set the spec back if its change is the cause.",
    /// A volume claim of the needed name exists, and nothing proves that it is this cluster's.
    StaleVolume => "Delete the claim, or adopt it with the annotation `rivven.io/adopt-volumes: \"true\"` on the cluster.",

    /// The scheduler finds no node for the pod.
    Unschedulable => "See the scheduler's words in the message: add nodes, or relax resources, affinity or node selector.",
    /// The pod's volume claim is not bound.
    VolumeNotBound => "Check the storage class, its provisioner and quotas: `kubectl describe pvc`.",
    /// The image cannot be pulled.
    ImagePullFailed => "Check `image`, `version` and `imagePullSecrets`; Rivven's own releases are published as `ghcr.io/hupe1980/rivvend`.",
    /// The container cannot be configured: a Secret, ConfigMap or user is wrong.
    ContainerConfigError => "See the kubelet's words in the message.",
    /// The broker ended, and the kubelet starts it again.
    BrokerExited => "Nothing to do if it stays up. The message has its exit code and its last log lines.",
    /// The broker starts and ends again and again.
    CrashLoop => "See the broker's last log lines in the message.",
    /// The broker was killed because it used more memory than its limit.
    OutOfMemory => "Raise `resources.limits.memory`.",
    /// The kubelet gave the pod up, and it is being replaced.
    PodFailed => "Nothing to do; the pod is replaced. See the message for why it failed.",
    /// Nobody can keep the data available while this broker restarts, as it is the only copy.
    NoOtherCopy => "Expect a short downtime; with a broker version that replicates, use three brokers and replication.",
    /// Brokers are being added.
    ScalingOut => "Wait; the message says which broker joins.",
    /// Brokers are being taken away: each is emptied, leaves the cluster, and stops.
    ScalingIn => "Wait; the message says which broker leaves.",
    /// Replicas of partitions are moving between brokers.
    ReplicasMoving => "Wait; if it lasts, see the log of the broker that the replicas move to.",
    /// A broker that is to leave does not answer and has the only in-sync replica of a partition.
    LastReplica => "Bring the broker back, or set `replicas` back; the message names the partition.",
    /// A broker's Service for clients from outside has no address yet: no load balancer has given it one.
    ExternalAddressPending => "Wait; if it lasts, see `kubectl describe service` for the Service `rivven-{name}-{ordinal}-ext`: it needs a controller that provides load balancers. `externalAccess.type: NodePort` needs none.",
    /// A broker runs an outdated revision.
    RevisionOutdated => "Wait; brokers restart one at a time.",
    /// A broker is being restarted onto the new revision.
    BrokerRestarting => "Wait; the next broker follows when this one is back.",

    /// The cluster that is referred to does not exist.
    ClusterNotFound => "Create the RivvenCluster, or correct `clusterRef`.",
    /// The cluster that is referred to is not Ready.
    ClusterNotReady => "See the RivvenCluster; this object goes on when it is Ready.",
    /// The cluster that is referred to is being deleted.
    ClusterTerminating => "Delete this object, or refer to another cluster.",
    /// The cluster does not allow objects of this namespace.
    NamespaceNotAllowed => "Add the namespace to `spec.allowedNamespaces` of the cluster.",
    /// An older object manages the same topic.
    TopicConflict => "Delete one of the two objects; the older one manages the topic.",
    /// A topic of the name exists and was not made by this object.
    TopicExists => "Set the annotation `rivven.io/adopt: \"true\"` to manage it, or choose another `topicName`.",
    /// The topic is being made.
    TopicCreating => "Wait.",
    /// Partitions are being added.
    PartitionsGrowing => "Wait.",
    /// Configuration is being altered.
    ConfigAltering => "Wait.",
    /// The topic has more partitions than the spec, and partitions cannot be taken away.
    PartitionShrinkRefused => "Set `partitions` to at least the number in the status.",
    /// The topic has another number of replicas than the spec, and this release of the operator moves none.
    ReplicationChangeRefused => "Set `replicationFactor` to the number that the message names.",
    /// More than one replica is asked for, and this broker version does not replicate.
    BrokerCannotReplicate => "Set `replicationFactor: 1`, or use a broker version that replicates.",
    /// More replicas are asked for than the cluster has brokers.
    NotEnoughBrokers => "Set `replicationFactor` to at most the number of brokers, which the message names.",
    /// The broker refused a request.
    BrokerRefused => "See the broker's words in the message.",
    /// The broker cannot be reached.
    BrokerUnreachable => "See the RivvenCluster; the operator asks again with back-off.",
    /// The topic stays on the broker although its object is gone.
    TopicKept => "Nothing to do; set `deleteOnRemove: true` before deletion to delete the topic too.",
    /// The topic was deleted on the broker.
    TopicDeleted => "Nothing to do. A released broker keeps the files: a topic made again under the name brings old records back.",
    /// Workers are starting.
    WorkersStarting => "Wait; `kubectl get pods` shows how far they are. The condition changes when one fails.",
    /// Workers are being added or taken away.
    WorkersChanging => "Wait; the message names the workers.",
    /// A connector waits until it has stopped on the worker it ran on.
    ConnectorMoving => "Wait; if it lasts, the old worker's pod does not go: see the node it is on.",
    /// A worker that ran is not ready.
    WorkerNotReady => "See the pod of the worker that the message names; Kubernetes starts it again.",
    /// The worker ended, and the kubelet starts it again.
    WorkerExited => "Nothing to do if it stays up. The message has its exit code and its last log lines.",
    /// A connector failed a short while ago. Its worker starts it again, waiting up to a minute each time.
    ConnectorFailing => "See the worker's words in the message, and its log; correct the connector or what it connects to. The annotation `rivven.io/restarted-at` starts the workers anew.",
    /// The worker cannot do what a connector asks for, or something it needs is missing. The other connectors run.
    ConnectorRefused => "See the message for the connector and the field, and correct it, or use an image whose worker can.",
    /// Workers could not be asked how their connectors are.
    ConnectorsUnknown => "Check that the operator may reach the workers' health port (NetworkPolicy, mesh).",
    /// A topic that a connector needs does not exist, and is not to be created.
    TopicMissing => "Create the topic, or set `settings.topic.autoCreate: true`; for a pattern, create a topic that it matches.",
    /// A `ServiceMonitor` is asked for, and this Kubernetes does not have that kind.
    NoServiceMonitors => "Install the Prometheus operator, or set `settings.metrics.serviceMonitor: false`.",

    /// Access rules are written, but this broker version does not enforce them.
    NotSupportedByBroker => "Use a broker version that enforces access rules, and fence the brokers by NetworkPolicy meanwhile.",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
