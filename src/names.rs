//! Names, labels and ports, in one place.

use std::collections::BTreeMap;

/// Label: the cluster an object belongs to.
pub const CLUSTER: &str = "rivven.io/cluster";
/// Label on claims and on the StatefulSet: the uid of the cluster, which proves whose they are.
pub const CLUSTER_UID: &str = "rivven.io/cluster-uid";
/// Label and value by which watches find the operator's objects.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "rivven-operator");
/// Annotation of the StatefulSet: the spec that is in force, as JSON.
pub const ACCEPTED_SPEC: &str = "rivven.io/accepted-spec";
/// Annotation of the StatefulSet: the last spec that every broker ran well on, as JSON.
pub const PROVEN_SPEC: &str = "rivven.io/proven-spec";
/// Annotation of the StatefulSet: which template's rollout was halted, and why, as JSON.
pub const HALTED: &str = "rivven.io/halted";
/// Annotation of a cluster: another value restarts every broker, in order.
pub const RESTARTED_AT: &str = "rivven.io/restarted-at";
/// Annotation of a pod that asks for its restart, in order.
pub const RESTART: &str = "rivven.io/restart";
/// Annotation of a cluster: the version that may be taken although it is older or skips a minor release.
pub const FORCE_VERSION: &str = "rivven.io/force-version";
/// Annotation of a claim: the size in bytes that the operator asked for last.
pub const ASKED: &str = "rivven.io/asked-bytes";
/// Finalizer of every kind.
pub const FINALIZER: &str = "rivven.io/finalizer";
/// Annotation of a cluster: its own uid, once its brokers were one cluster.
pub const FORMED: &str = "rivven.io/formed";
/// Annotation of a cluster: which replicas are on the move.
pub const MOVES: &str = "rivven.io/moves";
/// Annotation of a claim: since when its broker, which is to leave, has held no replica.
pub const EMPTY_SINCE: &str = "rivven.io/empty-since";
/// Annotation of a cluster that lets it take over the volumes of one that is gone.
pub const ADOPT_VOLUMES: &str = "rivven.io/adopt-volumes";
/// Annotation of a topic: the uid of the cluster on which this object made or adopted its topic.
pub const TOPIC_MARK: &str = "rivven.io/topic-cluster-uid";
/// Annotation of a topic that lets it take over a topic it did not make.
pub const ADOPT_TOPIC: &str = "rivven.io/adopt";
/// Annotation of an object: which of its annotations are the spec's. One that is taken out there is taken off here.
pub const ANNOTATIONS: &str = "rivven.io/annotations";
/// Annotation of a broker's pod: the hash of the rules of who may do what that it was started with.
pub const RULES: &str = "rivven.io/rules-hash";
/// Key of the admin token in Secret `rivven-{name}-auth`.
pub const TOKEN_KEY: &str = "token";
/// Annotation of the brokers' pods: which certificate they were started with.
pub const CERTIFICATE_HASH: &str = "rivven.io/certificate-hash";
/// Key in the ConfigMap: the certificate that brokers show, without its key.
pub const CERTIFICATE_KEY: &str = "tls.crt";
/// Key in the ConfigMap: whom brokers believe.
pub const AUTHORITIES_KEY: &str = "ca.crt";
/// Name of the brokers' container.
pub const CONTAINER: &str = "rivven";

/// Label: the connect an object belongs to.
pub const CONNECT: &str = "rivven.io/connect";
/// Label: the number of a worker.
pub const WORKER: &str = "rivven.io/worker";
/// Annotation of a worker's pod: which connectors it runs.
pub const CONNECTORS: &str = "rivven.io/connectors";
/// Annotation of a worker's pod: hash of the template that it was made from.
pub const TEMPLATE: &str = "rivven.io/template";
/// Annotation of a worker's pod: salted hash of the secrets that it takes from the environment.
pub const SECRETS: &str = "rivven.io/secrets";
/// Annotation of a connect's ConfigMap, the ledger: which worker may run which connectors, as JSON.
pub const PLACEMENT: &str = "rivven.io/placement";
/// Key of a worker's Secret that is no variable: what the hash of the variables is salted with.
pub const SALT_KEY: &str = "salt";

/// Client protocol.
pub const CLIENT_PORT: u16 = 9292;
/// Broker to broker.
pub const CLUSTER_PORT: u16 = 9393;
/// Health, metrics and admin over HTTP.
pub const API_PORT: u16 = 9090;

/// StatefulSet, and the stem of every name.
pub fn stateful_set(cluster: &str) -> String {
    format!("rivven-{cluster}")
}

/// Pod of a broker; also its node id.
pub fn pod(cluster: &str, ordinal: u32) -> String {
    format!("rivven-{cluster}-{ordinal}")
}

/// The ordinal of a broker, by its pod's name.
pub fn ordinal(cluster: &str, pod: &str) -> Option<u32> {
    pod.strip_prefix("rivven-")?.strip_prefix(cluster)?.strip_prefix('-')?.parse().ok()
}

/// Volume claim of a broker.
pub fn claim(cluster: &str, ordinal: u32) -> String {
    format!("data-rivven-{cluster}-{ordinal}")
}

/// Service for clients.
pub fn client_service(cluster: &str) -> String {
    stateful_set(cluster)
}

/// Service of a broker for clients from outside. With the longest name of a cluster and two digits it has 59 of the 63
/// characters that the name of a Service may have.
pub fn external_service(cluster: &str, ordinal: u32) -> String {
    format!("{}-ext", pod(cluster, ordinal))
}

/// The ordinal of the broker that such a Service is of.
pub fn external_ordinal(cluster: &str, service: &str) -> Option<u32> {
    ordinal(cluster, service.strip_suffix("-ext")?)
}

/// Service that gives each broker its DNS name.
pub fn headless_service(cluster: &str) -> String {
    format!("rivven-{cluster}-headless")
}

/// Configuration file of the brokers.
pub fn config_map(cluster: &str) -> String {
    format!("rivven-{cluster}-config")
}

/// Disruption budget.
pub fn disruption_budget(cluster: &str) -> String {
    format!("rivven-{cluster}-pdb")
}

/// Network policy.
pub fn network_policy(cluster: &str) -> String {
    stateful_set(cluster)
}

/// Ingress for the HTTP API.
pub fn ingress(cluster: &str) -> String {
    stateful_set(cluster)
}

/// Secret with the token of the admin API.
pub fn auth_secret(cluster: &str) -> String {
    format!("rivven-{cluster}-auth")
}

/// Certificate that is asked of cert-manager.
pub fn certificate(cluster: &str) -> String {
    stateful_set(cluster)
}

/// Secret that cert-manager puts the certificate into.
pub fn certificate_secret(cluster: &str) -> String {
    format!("rivven-{cluster}-tls")
}

/// DNS name of a broker.
pub fn host(cluster: &str, namespace: &str, ordinal: u32, domain: &str) -> String {
    format!("{}.{}.{namespace}.svc.{domain}", pod(cluster, ordinal), headless_service(cluster))
}

/// Where the other brokers reach the HTTP API of a broker.
pub fn api_url(cluster: &str, namespace: &str, ordinal: u32, domain: &str, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}:{API_PORT}", host(cluster, namespace, ordinal, domain))
}

/// The broker of the cluster that is reached at a URL, if any.
pub fn ordinal_at(cluster: &str, namespace: &str, url: &str, domain: &str) -> Option<u32> {
    let (scheme, rest) = url.split_once("://")?;
    let found = ordinal(cluster, rest.split(['.', ':']).next()?)?;
    (api_url(cluster, namespace, found, domain, scheme == "https") == url).then_some(found)
}

/// What selects the brokers of a cluster.
pub fn selector(cluster: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "rivven"),
        ("app.kubernetes.io/instance", cluster),
        ("app.kubernetes.io/component", "broker"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Labels of every object of a cluster.
pub fn labels(cluster: &str) -> BTreeMap<String, String> {
    let mut labels = selector(cluster);
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    labels.insert(CLUSTER.to_owned(), cluster.to_owned());
    labels
}

/// The stem of the names of a connect, its Service, its `ServiceMonitor` and its first worker.
pub fn connect(connect: &str) -> String {
    format!("rivven-connect-{connect}")
}

/// Deployment of a worker, and the Secret of its variables.
pub fn worker(connect: &str, index: u32) -> String {
    if index == 0 { self::connect(connect) } else { format!("rivven-connect-{connect}-w{index}") }
}

/// The workers' files.
pub fn connect_config(connect: &str) -> String {
    format!("rivven-connect-{connect}-config")
}

/// What selects the workers of a connect.
pub fn connect_selector(connect: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "rivven-connect"),
        ("app.kubernetes.io/instance", connect),
        ("app.kubernetes.io/component", "worker"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Labels of every object of a connect.
pub fn connect_labels(connect: &str) -> BTreeMap<String, String> {
    let mut labels = connect_selector(connect);
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    labels.insert(CONNECT.to_owned(), connect.to_owned());
    labels
}
