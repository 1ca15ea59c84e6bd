//! The rules of who may do what: a ConfigMap that a spec names, of which brokers are restarted when its content changes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::live::COUNTS;
use super::{ObserveError, Observer, compare};
use crate::api::RivvenClusterSpec;
use crate::names;

impl Observer {
    /// The hash of a ConfigMap's content, by its name. `None`: it does not exist. It is nobody's to watch, so what was read
    /// counts for some minutes.
    pub(super) async fn content(&self, namespace: &str, name: &str) -> Result<Option<String>, ObserveError> {
        let key = (namespace.to_owned(), name.to_owned());
        let seen = self.contents().get(&key).filter(|(at, _)| at.elapsed() < COUNTS).map(|(_, hash)| hash.clone());
        if seen.is_some() {
            return Ok(seen);
        }
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let Some(map) = api.get_opt(name).await? else { return Ok(None) };
        let hash = compare::hash(&json!([map.data, map.binary_data]));
        let mut contents = self.contents();
        contents.retain(|_, (at, _)| at.elapsed() < COUNTS);
        contents.insert(key, (Instant::now(), hash.clone()));
        Ok(Some(hash))
    }

    /// The hashes of the rules that `specs` name. Of rules that are missing or cannot be read, the hash that the live
    /// template carries: no broker restarts because a ConfigMap is away for a moment.
    pub(super) async fn rules(
        &self,
        namespace: &str,
        specs: impl IntoIterator<Item = &RivvenClusterSpec>,
        set: Option<&Value>,
    ) -> BTreeMap<String, String> {
        let mut rules = BTreeMap::new();
        for name in specs.into_iter().filter_map(RivvenClusterSpec::rules) {
            if rules.contains_key(name) {
                continue;
            }
            let hash = self.content(namespace, name).await.ok().flatten().or_else(|| carried(set?, name));
            rules.extend(hash.map(|hash| (name.to_owned(), hash)));
        }
        rules
    }
}

/// The hash that the template of a StatefulSet carries, if it is of this ConfigMap.
fn carried(set: &Value, name: &str) -> Option<String> {
    let template = set.pointer("/spec/template")?;
    let volumes = template.pointer("/spec/volumes")?.as_array()?;
    let mounts = |volume: &Value| volume["name"] == "rbac" && volume["configMap"]["name"] == name;
    volumes.iter().find(|volume| mounts(volume))?;
    Some(template["metadata"]["annotations"].get(names::RULES)?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::{Arc, Mutex};

    use kube::client::Body;

    use super::*;
    use crate::broker::{Access, Brokers};
    use crate::observe::Caches;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_in_time_and_what_is_away_changes_nothing() {
        // What the API server answers: the content, or that there is none.
        let content = Arc::new(Mutex::new(Some("a")));
        let answers = content.clone();
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let (code, body) = match *answers.lock().unwrap() {
                Some(rule) => (200, json!({ "metadata": { "name": "rules" }, "data": { "rules.yaml": rule } })),
                None => (
                    404,
                    json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "message": "", "code": 404 }),
                ),
            };
            let body = Body::from(body.to_string().into_bytes());
            async move { Ok::<_, std::convert::Infallible>(http::Response::builder().status(code).body(body).unwrap()) }
        });
        let client = kube::Client::new(service, "ns");
        let observer =
            Observer::new(client, Caches::default(), Brokers::new(Access::Direct), "cluster.local".to_owned());
        let auth =
            json!({ "enabled": true, "mechanism": "mtls", "rbac": { "enabled": true, "configMapName": "rules" } });
        let spec: RivvenClusterSpec = serde_json::from_value(json!({ "auth": auth })).unwrap();
        let rules = |set| observer.rules("ns", [&spec], set);
        let first = rules(None).await;
        assert_eq!(first.len(), 1);
        *content.lock().unwrap() = Some("b");
        assert_eq!(rules(None).await, first, "read a moment ago");
        tokio::time::advance(COUNTS).await;
        let second = rules(None).await;
        assert_ne!(second, first);
        *content.lock().unwrap() = None;
        tokio::time::advance(COUNTS).await;
        let live = |name: &str| {
            let annotations = json!({ names::RULES: second["rules"] });
            let volumes = json!([{ "name": "rbac", "configMap": { "name": name } }]);
            json!({ "spec": { "template": { "metadata": { "annotations": annotations }, "spec": { "volumes": volumes } } } })
        };
        let (ours, others) = (live("rules"), live("others"));
        assert_eq!(rules(Some(&ours)).await, second, "away for a moment");
        assert_eq!(rules(Some(&others)).await, BTreeMap::new(), "the hash of others is none of these");
    }
}
