//! The typed phase and the transition tables.
//!
//! A table is data, is the code that runs, and is what the diagram in `docs/phases.md` is generated from.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an object is in its life. The conditions are the contract; the phase is their summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Serves nothing yet and waits for something the reason names.
    Pending,
    /// Its objects are applied and it is coming up for the first time.
    Provisioning,
    /// As the spec wants it, by observation.
    Ready,
    /// Its size is changing: replicas, volumes, workers, partitions.
    Scaling,
    /// It is moving to a new revision: brokers or workers restart in order, or topic configuration is altered.
    Upgrading,
    /// Something is not as it should be; it may still serve.
    Degraded,
    /// It is being deleted, in order.
    Terminating,
}

impl Phase {
    /// Every phase, in the order a life usually takes.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Provisioning,
        Self::Ready,
        Self::Scaling,
        Self::Upgrading,
        Self::Degraded,
        Self::Terminating,
    ];

    /// The name as it stands in `status.phase` and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Provisioning => "Provisioning",
            Self::Ready => "Ready",
            Self::Scaling => "Scaling",
            Self::Upgrading => "Upgrading",
            Self::Degraded => "Degraded",
            Self::Terminating => "Terminating",
        }
    }

    /// The phase of an object that waits for a person or a prerequisite: `Pending` is for what serves nothing yet.
    pub const fn waiting(recorded: Option<Self>) -> Self {
        match recorded {
            Some(Self::Ready | Self::Scaling | Self::Upgrading | Self::Degraded) => Self::Degraded,
            // Terminating absorbs, whatever else is wrong with the object.
            Some(Self::Terminating) => Self::Terminating,
            None | Some(Self::Pending | Self::Provisioning) => Self::Pending,
        }
    }

    /// Whether the object was serving when this phase was recorded, so that trouble is `Degraded` and not `Provisioning`.
    pub const fn has_served(self) -> bool {
        matches!(self, Self::Ready | Self::Scaling | Self::Upgrading | Self::Degraded)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The three kinds of object that have a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `RivvenCluster`
    Cluster,
    /// `RivvenConnect`
    Connect,
    /// `RivvenTopic`
    Topic,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Cluster, Self::Connect, Self::Topic];

    /// The Kubernetes kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "RivvenCluster",
            Self::Connect => "RivvenConnect",
            Self::Topic => "RivvenTopic",
        }
    }

    /// The transition table of this kind.
    pub const fn table(self) -> &'static TransitionTable {
        match self {
            Self::Cluster => &CLUSTER,
            Self::Connect => &CONNECT,
            Self::Topic => &TOPIC,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One allowed change of phase. `from: None` is an object that has no phase yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The recorded phase.
    pub from: Option<Phase>,
    /// The phase that may follow.
    pub to: Phase,
    /// What makes it happen, for the documentation.
    pub when: &'static str,
}

/// The allowed changes of phase of one kind. `Terminating` is reachable from every phase and leads nowhere; those
/// edges are part of every table and not listed in [`TransitionTable::edges`].
#[derive(Debug)]
pub struct TransitionTable {
    /// Whose table.
    pub kind: Kind,
    /// The edges but those into `Terminating`.
    pub edges: &'static [Edge],
}

/// A change of phase that the table does not have. It is refused, logged and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IllegalTransition {
    /// Whose table refused.
    pub kind: Kind,
    /// The recorded phase, which is kept.
    pub from: Option<Phase>,
    /// The phase that was wanted.
    pub to: Phase,
}

impl fmt::Display for IllegalTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.map_or("none", Phase::as_str);
        write!(f, "{} may not go from {from} to {}", self.kind, self.to)
    }
}

impl TransitionTable {
    /// Whether the phase may change from `from` to `to` in one step. Staying is always allowed.
    pub fn allows(&self, from: Option<Phase>, to: Phase) -> bool {
        from == Some(to) || to == Phase::Terminating || self.edges.iter().any(|edge| edge.from == from && edge.to == to)
    }

    /// The next phase on the way from the recorded phase to the one the world calls for.
    ///
    /// An object without a phase, or one that is Pending or Provisioning, is led along the table one edge at a time:
    /// that is a new object, or one whose status was erased (the same world must lead to the same phase). Any other
    /// object may only take a direct edge.
    pub fn next_hop(&self, from: Option<Phase>, target: Phase) -> Result<Phase, IllegalTransition> {
        let refused = IllegalTransition { kind: self.kind, from, to: target };
        if self.allows(from, target) {
            return Ok(target);
        }
        if !matches!(from, None | Some(Phase::Pending | Phase::Provisioning)) {
            return Err(refused);
        }
        let mut queue: VecDeque<(Phase, Phase)> = self.successors(from).map(|next| (next, next)).collect();
        let mut seen = [false; Phase::ALL.len()];
        while let Some((at, first)) = queue.pop_front() {
            if at == target {
                return Ok(first);
            }
            if !std::mem::replace(&mut seen[at as usize], true) {
                queue.extend(self.successors(Some(at)).map(|next| (next, first)));
            }
        }
        Err(refused)
    }

    fn successors(&self, from: Option<Phase>) -> impl Iterator<Item = Phase> + '_ {
        self.edges.iter().filter(move |edge| edge.from == from).map(|edge| edge.to)
    }
}

const fn edge(from: Phase, to: Phase, when: &'static str) -> Edge {
    Edge { from: Some(from), to, when }
}

const fn begin(when: &'static str) -> Edge {
    Edge { from: None, to: Phase::Pending, when }
}

use Phase::{Degraded, Pending, Provisioning, Ready, Scaling, Upgrading};

/// The life of a `RivvenCluster`.
pub const CLUSTER: TransitionTable = TransitionTable {
    kind: Kind::Cluster,
    edges: &[
        begin("the object is seen for the first time"),
        edge(Pending, Provisioning, "spec accepted, prerequisites there"),
        edge(Provisioning, Ready, "every broker ready at the desired revision"),
        edge(Provisioning, Degraded, "a broker cannot start"),
        edge(Provisioning, Pending, "spec refused while nothing holds data"),
        edge(Ready, Scaling, "replicas or volumes change"),
        edge(Ready, Upgrading, "a broker runs an outdated revision"),
        edge(Ready, Degraded, "a broker or a step fails"),
        edge(Scaling, Ready, "replicas and volumes as wanted"),
        edge(Scaling, Upgrading, "scaled, and a broker runs an outdated revision"),
        edge(Scaling, Degraded, "a broker or a step fails"),
        edge(Upgrading, Ready, "every broker at the desired revision"),
        edge(Upgrading, Scaling, "volumes or replicas take precedence"),
        edge(Upgrading, Degraded, "a broker does not come back"),
        edge(Degraded, Ready, "healed, nothing to do"),
        edge(Degraded, Scaling, "volumes or replicas change, or healed"),
        edge(Degraded, Upgrading, "healed, and a broker runs an outdated revision"),
        edge(Degraded, Provisioning, "no broker is left and all start anew"),
    ],
};

/// The life of a `RivvenConnect`.
pub const CONNECT: TransitionTable = TransitionTable {
    kind: Kind::Connect,
    edges: &[
        begin("the object is seen for the first time"),
        edge(Pending, Provisioning, "cluster Ready, Secrets there, spec accepted"),
        edge(Provisioning, Ready, "every worker ready, every enabled connector running"),
        edge(Provisioning, Degraded, "a worker or connector fails"),
        edge(Provisioning, Pending, "a prerequisite is gone before a worker ran"),
        edge(Ready, Scaling, "workers change"),
        edge(Ready, Upgrading, "workers move to a new revision"),
        edge(Ready, Degraded, "a worker or connector fails"),
        edge(Scaling, Ready, "workers as wanted"),
        edge(Scaling, Upgrading, "scaled, and a worker is outdated"),
        edge(Scaling, Degraded, "a worker or connector fails"),
        edge(Upgrading, Ready, "every worker at the desired revision"),
        edge(Upgrading, Scaling, "workers change"),
        edge(Upgrading, Degraded, "a worker or connector fails"),
        edge(Degraded, Ready, "healed"),
        edge(Degraded, Scaling, "workers change, or healed"),
        edge(Degraded, Upgrading, "workers move to a new revision"),
    ],
};

/// The life of a `RivvenTopic`.
pub const TOPIC: TransitionTable = TransitionTable {
    kind: Kind::Topic,
    edges: &[
        begin("the object is seen for the first time"),
        // There may be thousands of topics, and each phase is a write.
        Edge { from: None, to: Provisioning, when: "the same, and nothing stands in the way" },
        edge(Pending, Provisioning, "cluster Ready, name free, spec accepted"),
        edge(Provisioning, Ready, "read back from the broker and as wanted"),
        edge(Provisioning, Degraded, "the broker refuses"),
        edge(Provisioning, Pending, "the cluster is gone before the topic was made"),
        edge(Ready, Scaling, "partitions are being added"),
        edge(Ready, Upgrading, "configuration is being altered"),
        edge(Ready, Degraded, "drift that cannot be repaired, or the broker cannot be asked"),
        edge(Scaling, Ready, "partitions read back as wanted"),
        edge(Scaling, Upgrading, "partitions as wanted, configuration not"),
        edge(Scaling, Degraded, "the broker refuses"),
        edge(Upgrading, Ready, "configuration read back as wanted"),
        edge(Upgrading, Scaling, "partitions are being added"),
        edge(Upgrading, Degraded, "the broker refuses"),
        edge(Degraded, Ready, "read back and as wanted"),
        edge(Degraded, Scaling, "partitions are being added"),
        edge(Degraded, Upgrading, "configuration is being altered"),
        edge(Degraded, Provisioning, "the topic is missing and is made again"),
    ],
};
