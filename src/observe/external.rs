//! What lets clients from outside in, as it is there.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use rivven_fsm::cluster::{External, Object, Presence};
use serde_json::Value;

use super::{ObserveError, Observer, live};
use crate::names;

impl Observer {
    /// The Service of a broker for clients from outside, if it is ours.
    pub(super) fn external(
        &self,
        (namespace, cluster, uid): (&str, &str, &str),
        ordinal: u32,
        pod: Option<&Pod>,
    ) -> Option<External> {
        let service = self.caches.services.get(namespace, &names::external_service(cluster, ordinal))?;
        let ours = service.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.uid == uid);
        ours.then(|| external(&service, pod))
    }

    /// What is there, ours, and wanted no more. Only the watches are asked: what lost its label is left to the garbage
    /// collector, for looking for every Service that might be there would make an idle operator talk. A broker that
    /// leaves keeps its Service until it is gone: `stays`.
    pub(super) fn unwanted(
        &self,
        (namespace, cluster, uid): (&str, &str, &str),
        wanted: &BTreeMap<Object, Value>,
        stays: impl Fn(u32) -> bool,
    ) -> Result<BTreeMap<Object, Value>, ObserveError> {
        let ordinal = |service: &Service| names::external_ordinal(cluster, &service.name_any());
        let services = self.caches.services.select(namespace, |service| ordinal(service).is_some());
        let ordinals = services.iter().filter_map(|service| ordinal(service)).filter(|ordinal| !stays(*ordinal));
        let mut unwanted = BTreeMap::new();
        for object in ordinals.map(Object::ExternalService).chain([Object::Ingress]) {
            let found = if wanted.contains_key(&object) { None } else { self.cached(namespace, cluster, object)? };
            unwanted
                .extend(found.filter(|found| live::ownership(found, uid) == Presence::Current).map(|o| (object, o)));
        }
        Ok(unwanted)
    }
}

/// Where a broker is reached from outside, as its Service tells and, where the broker's node lets clients in, its pod.
fn external(service: &Service, pod: Option<&Pod>) -> External {
    let spec = service.spec.as_ref();
    let port = spec.and_then(|spec| spec.ports.as_ref()?.first());
    let balanced = spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
    let (hosts, port) = if balanced {
        let given = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        let hosts = given.into_iter().flatten().filter_map(|given| given.hostname.clone().or_else(|| given.ip.clone()));
        (hosts.collect(), port.map(|port| port.port))
    } else {
        let node = pod.and_then(|pod| pod.status.as_ref()?.host_ip.clone());
        (node.into_iter().collect::<Vec<String>>(), port.and_then(|port| port.node_port))
    };
    let address = |host: &String| {
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        port.map(|port| format!("{host}:{port}"))
    };
    let mut addresses: Vec<String> = hosts.iter().filter_map(address).collect();
    addresses.sort();
    External { addresses, balanced }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn told(spec: &Value, status: &Value) -> External {
        let service = serde_json::from_value(json!({ "metadata": {}, "spec": spec, "status": status })).unwrap();
        let pod = serde_json::from_value(json!({ "metadata": {}, "status": { "hostIP": "10.0.0.7" } })).unwrap();
        external(&service, Some(&pod))
    }

    #[test]
    fn addresses_are_what_was_given_and_not_what_was_asked_for() {
        let ports = json!([{ "port": 9292, "nodePort": 30123 }]);
        let balanced = json!({ "type": "LoadBalancer", "loadBalancerIP": "192.0.2.9", "ports": ports });
        let none = External { addresses: Vec::new(), balanced: true };
        assert_eq!(told(&balanced, &json!({ "loadBalancer": {} })), none);
        let given = json!({ "loadBalancer": { "ingress": [{ "ip": "2001:db8::1" }, { "hostname": "lb.example" }] } });
        assert_eq!(told(&balanced, &given).addresses, ["[2001:db8::1]:9292", "lb.example:9292"]);
        let by_node = told(&json!({ "type": "NodePort", "ports": ports }), &json!({}));
        assert_eq!(by_node, External { addresses: vec!["10.0.0.7:30123".to_owned()], balanced: false });
        let not_yet = told(&json!({ "type": "NodePort", "ports": [{ "port": 9292 }] }), &json!({}));
        assert_eq!(not_yet.addresses, Vec::<String>::new());
    }
}
