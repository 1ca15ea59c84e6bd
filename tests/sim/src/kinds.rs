//! The resources the model serves.

use serde_json::Value;

use crate::json::text;

/// One served resource.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent properties of a resource")]
pub struct Kind {
    /// API group, "" for core.
    pub group: String,
    /// The one version that is served.
    pub version: String,
    /// Plural, as in paths.
    pub plural: String,
    /// Kind, as in objects.
    pub kind: String,
    /// Whether it lives in a namespace.
    pub namespaced: bool,
    /// Whether `status` is written through `/status` only.
    pub status: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub generation: bool,
    /// Whether an update may leave `resourceVersion` out.
    pub unconditional: bool,
    /// Whether it is a custom resource.
    pub custom: bool,
}

impl Kind {
    /// A namespaced custom resource with a status subresource.
    pub fn custom(group: &str, version: &str, plural: &str, kind: &str) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
            kind: kind.into(),
            namespaced: true,
            status: true,
            generation: true,
            unconditional: false,
            custom: true,
        }
    }

    /// `plural.group`, as error messages name a resource.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `kind.group`, as messages about invalid objects name a kind.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// As in objects: `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// What a `CustomResourceDefinition` object declares.
    pub(crate) fn declared(crd: &Value) -> Self {
        let version = &crd["spec"]["versions"][0];
        Self {
            namespaced: text(crd, "/spec/scope") == "Namespaced",
            status: version.pointer("/subresources/status").is_some(),
            ..Self::custom(
                text(crd, "/spec/group"),
                text(version, "/name"),
                text(crd, "/spec/names/plural"),
                text(crd, "/spec/names/kind"),
            )
        }
    }
}

/// Group, version, plural, kind, and flags: `c` cluster-scoped, `s` status, `g` generation, `r` needs a resourceVersion.
const BUILT_IN: &[(&str, &str, &str, &str, &str)] = &[
    ("", "v1", "configmaps", "ConfigMap", ""),
    ("", "v1", "events", "Event", ""),
    ("", "v1", "namespaces", "Namespace", "cs"),
    ("", "v1", "nodes", "Node", "cs"),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", "s"),
    ("", "v1", "pods", "Pod", "sg"),
    ("", "v1", "secrets", "Secret", ""),
    ("", "v1", "serviceaccounts", "ServiceAccount", ""),
    ("", "v1", "services", "Service", "s"),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", "csgr"),
    ("apps", "v1", "deployments", "Deployment", "sg"),
    ("apps", "v1", "statefulsets", "StatefulSet", "sg"),
    ("coordination.k8s.io", "v1", "leases", "Lease", "r"),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", "g"),
    ("events.k8s.io", "v1", "events", "Event", ""),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", "sg"),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", "g"),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", "sgr"),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", "c"),
];

/// Everything served at the start: what Kubernetes brings along as far as this operator meets it, and its own kinds.
pub(crate) fn served() -> Vec<Kind> {
    let built_in = BUILT_IN.iter().map(|&(group, version, plural, kind, flags)| Kind {
        namespaced: !flags.contains('c'),
        status: flags.contains('s'),
        generation: flags.contains('g'),
        unconditional: !flags.contains('r'),
        custom: false,
        ..Kind::custom(group, version, plural, kind)
    });
    let own =
        [("rivvenclusters", "RivvenCluster"), ("rivvenconnects", "RivvenConnect"), ("rivventopics", "RivvenTopic")];
    built_in.chain(own.iter().map(|(plural, kind)| Kind::custom("rivven.io", "v1alpha1", plural, kind))).collect()
}
