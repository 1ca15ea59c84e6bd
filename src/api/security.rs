//! TLS and authentication.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{defaults, is_false};

/// TLS to clients and between brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.enabled) || !self.enabled || has(self.certSecretName) || has(self.issuerRef)").message("tls.enabled needs certSecretName or issuerRef"),
    validation = Rule::new("!has(self.certSecretName) || !has(self.issuerRef)").message("tls.certSecretName and tls.issuerRef exclude each other: what an issuer makes goes into a Secret of its own")
)]
pub struct TlsSpec {
    /// Serve TLS.
    #[serde(default)]
    pub enabled: bool,
    /// Secret of type `kubernetes.io/tls` with `tls.crt`, `tls.key` and, for mutual TLS, `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub cert_secret_name: Option<String>,
    /// Issuer of a cert-manager Certificate that the operator makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
    /// Secret with the `ca.crt` by which client certificates are verified. Set: clients must show one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub client_ca_secret_name: Option<String>,
}

impl TlsSpec {
    /// The Secret with the certificate of the brokers of a cluster. `None`: they serve none.
    pub fn secret(&self, cluster: &str) -> Option<String> {
        let named = || self.cert_secret_name.clone();
        let issued = || self.issuer_ref.as_ref().map(|_| crate::names::certificate_secret(cluster));
        named().or_else(issued).filter(|_| self.enabled)
    }
}

/// A cert-manager issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// `Issuer` or `ClusterIssuer`.
    #[serde(default = "issuer_kind")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// API group.
    #[serde(default = "issuer_group")]
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
}

defaults! {
    issuer_kind: String = "Issuer";
    issuer_group: String = "cert-manager.io";
}

/// Authentication of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.enabled) || !self.enabled || has(self.mechanism)").message("auth.enabled needs a mechanism"),
    validation = Rule::new("!has(self.mechanism) || self.mechanism != 'scram' || has(self.scramSecretName)").message("auth.mechanism scram needs scramSecretName"),
    validation = Rule::new("!has(self.mechanism) || self.mechanism != 'token' || has(self.tokenSecretName)").message("auth.mechanism token needs tokenSecretName"),
    validation = Rule::new("!has(self.rbac) || !has(self.rbac.enabled) || !self.rbac.enabled || (has(self.enabled) && self.enabled)").message("auth.rbac needs auth.enabled: rules are about who somebody is")
)]
pub struct AuthSpec {
    /// Demand authentication.
    #[serde(default)]
    pub enabled: bool,
    /// How clients prove who they are. `mtls` needs `tls.enabled` with `tls.clientCaSecretName`; the others need the
    /// operator to log in as a client, which this release does not do: they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<AuthMechanism>,
    /// Secret with the SCRAM users: a key for each user, its value the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub scram_secret_name: Option<String>,
    /// Secret with the tokens: a key for each user, its value the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub token_secret_name: Option<String>,
    /// Rules of who may do what.
    #[serde(default)]
    pub rbac: RbacSpec,
}

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthMechanism {
    /// By a client certificate.
    Mtls,
    /// By SCRAM-SHA-256.
    Scram,
    /// By a token.
    Token,
}

/// Rules of who may do what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.enabled) || !self.enabled || has(self.configMapName)").message("auth.rbac needs configMapName")
)]
pub struct RbacSpec {
    /// Enforce rules.
    #[serde(default, skip_serializing_if = "is_false")]
    pub enabled: bool,
    /// ConfigMap with the rules, mounted at `/etc/rivven-rbac`. Brokers restart in order when its content changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub config_map_name: Option<String>,
}
