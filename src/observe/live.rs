//! The live objects of a cluster, as they are held against what is wanted.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::api::DynamicObject;
use kube::{Api, Resource};
use rivven_fsm::cluster::{Claim, Object, Presence};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ObserveError, Observer, Remembered, compare, pod};
use crate::broker::Token;
use crate::names;

/// How long what was read counts, as no watch tells of it. Then it is read again: a Secret that was deleted is made anew.
pub(super) const COUNTS: Duration = Duration::from_mins(5);

impl Observer {
    /// One object of a cluster: from the cache or, as the watches see labelled objects only and a foreign one need not
    /// carry our labels, from the API server when the cache does not have it.
    pub(super) async fn live(
        &self,
        namespace: &str,
        cluster: &str,
        object: Object,
    ) -> Result<Option<Value>, ObserveError> {
        if let Some(cached) = self.cached(namespace, cluster, object)? {
            return Ok(Some(cached));
        }
        let (version, name) = identity(cluster, object);
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = kube::core::GroupVersionKind::gvk(group, version, object.kind());
        let api = Api::<DynamicObject>::namespaced_with(
            self.client.clone(),
            namespace,
            &kube::core::ApiResource::from_gvk(&kind),
        );
        match api.get(&name).await {
            Ok(found) => value(&found).map(Some),
            // Of an object that is not there the API server tells which; of a kind that is not there it cannot.
            Err(kube::Error::Api(status))
                if status.code == 404 && status.details.as_ref().is_none_or(|d| d.name.is_empty()) =>
            {
                Err(ObserveError::NoSuchKind { group: group.to_owned(), kind: object.kind() })
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn cached(&self, namespace: &str, cluster: &str, object: Object) -> Result<Option<Value>, ObserveError> {
        let (_, name) = identity(cluster, object);
        let caches = &self.caches;
        match object {
            Object::AuthSecret | Object::Certificate => return Ok(None),
            Object::ConfigMap => caches.config_maps.get(namespace, &name).map(|found| value(found.as_ref())),
            Object::HeadlessService | Object::ClientService | Object::ExternalService(_) => {
                caches.services.get(namespace, &name).map(|found| value(found.as_ref()))
            }
            Object::PodDisruptionBudget => caches.budgets.get(namespace, &name).map(|found| value(found.as_ref())),
            Object::NetworkPolicy => caches.policies.get(namespace, &name).map(|found| value(found.as_ref())),
            Object::StatefulSet => caches.stateful_sets.get(namespace, &name).map(|found| value(found.as_ref())),
            Object::Ingress => caches.ingresses.get(namespace, &name).map(|found| value(found.as_ref())),
        }
        .transpose()
    }

    /// The Secret with the admin token, and the token.
    pub(super) async fn auth_secret(&self, namespace: &str, cluster: &str, uid: &str) -> (Presence, Option<Token>) {
        let key = (uid.to_owned(), names::auth_secret(cluster));
        if let Some(seen) = self.remembered(&key) {
            return (Presence::Current, seen.token);
        }
        match self.live(namespace, cluster, Object::AuthSecret).await {
            Ok(Some(secret)) => match (ownership(&secret, uid), token(&secret)) {
                (Presence::Current, None) => {
                    let why = format!("it has no usable key {}; delete it to have it made anew", names::TOKEN_KEY);
                    (Presence::Unknown { why }, None)
                }
                (Presence::Current, token) => {
                    self.remember(key, Remembered { at: Instant::now(), token: token.clone(), data: None });
                    (Presence::Current, token)
                }
                (other, _) => (other, None),
            },
            Ok(None) => (Presence::Missing, None),
            Err(error) => (Presence::Unknown { why: error.to_string() }, None),
        }
    }

    /// A claim that the watches do not see, as it does not carry our labels.
    pub(super) async fn unwatched_claim(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<Option<Claim>, ObserveError> {
        let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await?.map(|claim| pod::claim(&claim, uid)))
    }

    pub(super) fn remembered(&self, key: &(String, String)) -> Option<Remembered> {
        let secrets = self.secrets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        secrets.get(key).filter(|seen| seen.at.elapsed() < COUNTS).cloned()
    }

    pub(super) fn remember(&self, key: (String, String), seen: Remembered) {
        let mut secrets = self.secrets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        secrets.retain(|_, seen| seen.at.elapsed() < COUNTS);
        secrets.insert(key, seen);
    }
}

fn token(secret: &Value) -> Option<Token> {
    let secret: Secret = serde_json::from_value(secret.clone()).ok()?;
    Token::new(std::str::from_utf8(&secret.data?.get(names::TOKEN_KEY)?.0).ok()?)
}

/// How a live object stands to the desired one.
pub(super) fn presence(desired: &Value, live: Option<&Value>, uid: &str) -> Presence {
    let Some(live) = live else { return Presence::Missing };
    match ownership(live, uid) {
        Presence::Current if compare::is_current(desired, live) => Presence::Current,
        Presence::Current => Presence::Drifted,
        other => other,
    }
}

/// Ours is what names this very cluster, by uid, as its controller. A label or a name proves nothing.
pub(super) fn ownership(live: &Value, uid: &str) -> Presence {
    let owners = live.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let controller = owners.and_then(|owners| owners.iter().find(|owner| owner["controller"] == json!(true)));
    match controller {
        Some(owner) if owner["uid"] == json!(uid) => {
            if live.pointer("/metadata/deletionTimestamp").is_some() {
                Presence::Deleting
            } else {
                Presence::Current
            }
        }
        Some(owner) => Presence::Foreign {
            owner: format!(
                "{} {}",
                owner["kind"].as_str().unwrap_or("something"),
                owner["name"].as_str().unwrap_or_default()
            ),
        },
        None => Presence::Foreign { owner: "somebody else (it has no controller)".to_owned() },
    }
}

/// API version and name of an object of a cluster.
fn identity(cluster: &str, object: Object) -> (&'static str, String) {
    match object {
        Object::AuthSecret => ("v1", names::auth_secret(cluster)),
        Object::Certificate => ("cert-manager.io/v1", names::certificate(cluster)),
        Object::ConfigMap => ("v1", names::config_map(cluster)),
        Object::HeadlessService => ("v1", names::headless_service(cluster)),
        Object::ClientService => ("v1", names::client_service(cluster)),
        Object::PodDisruptionBudget => ("policy/v1", names::disruption_budget(cluster)),
        Object::NetworkPolicy => ("networking.k8s.io/v1", names::network_policy(cluster)),
        Object::StatefulSet => ("apps/v1", names::stateful_set(cluster)),
        Object::ExternalService(ordinal) => ("v1", names::external_service(cluster, ordinal)),
        Object::Ingress => ("networking.k8s.io/v1", names::ingress(cluster)),
    }
}

pub(super) fn value<K: Serialize + Resource>(object: &K) -> Result<Value, ObserveError> {
    serde_json::to_value(object).map_err(|error| ObserveError::Internal(error.to_string()))
}
