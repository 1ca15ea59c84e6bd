//! Clients from outside: what is made for them, and that they come in.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::ListParams;
use rivven_e2e::{Place, operator, wait};
use rivven_operator::api::Phase;
use serde_json::{Value, json};

/// The address of the only node, as it is reached from this machine.
async fn node(place: &Place) -> Result<String> {
    let nodes = Api::<Node>::all(place.client.clone()).list(&ListParams::default()).await?.items;
    let addresses = nodes.into_iter().filter_map(|node| node.status?.addresses).flatten();
    let address = addresses.into_iter().find(|address| address.type_ == "InternalIP");
    Ok(address.context("a node with an address")?.address)
}

/// Where the first broker is reached from outside, as the status tells.
async fn external(place: &Place) -> Result<Vec<String>> {
    let brokers = place.status("x").await?.brokers;
    Ok(brokers.into_iter().next().map(|broker| broker.external).unwrap_or_default())
}

async fn service(place: &Place) -> Result<Option<Service>> {
    Ok(place.api::<Service>().get_opt("rivven-x-0-ext").await?)
}

#[tokio::test]
async fn a_record_is_written_through_the_port_of_a_node() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("nodeport").await?;
    place.cluster("x", json!({ "externalAccess": { "type": "NodePort" } })).await?;
    place.cluster_is("x", Phase::Ready).await?;
    let told = wait::until("an address", || async {
        let told = external(&place).await?;
        Ok((!told.is_empty()).then_some(told))
    })
    .await?;
    let spec = service(&place).await?.context("a Service")?.spec.context("a spec")?;
    let port = spec.ports.unwrap_or_default().first().and_then(|port| port.node_port).context("a port of the node")?;
    ensure!(told == [format!("{}:{port}", node(&place).await?)], "{told:?}");
    place.topic("orders", "x", json!({ "partitions": 1 })).await?;
    place.topic_is("orders", Phase::Ready).await?;
    // Not through the API server: from this machine to the node, as a client would come.
    let mut client =
        wait::until("the port open", || async { Ok(rivven_client::Client::connect(&told[0]).await.ok()) }).await?;
    client.publish_to_partition("orders", 0, None::<&[u8]>, &b"from outside"[..]).await?;
    let read = client.consume("orders", 0, 0, 10).await?;
    ensure!(read.iter().any(|message| message.value.as_ref() == b"from outside"), "{read:?}");
    println!("written and read at {}", told[0]);

    let before = place.pods("x").await?;
    place.change("x", json!({ "externalAccess": null })).await?;
    wait::until("the Service gone", || async { Ok(service(&place).await?.is_none().then_some(())) }).await?;
    place.as_wanted("x").await?;
    ensure!(external(&place).await?.is_empty() && place.pods("x").await? == before, "nothing restarts for it");
    place.done().await
}

#[tokio::test]
async fn a_load_balancer_that_nobody_gives_is_said() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("balancer").await?;
    place.cluster("x", json!({})).await?;
    place.cluster_is("x", Phase::Ready).await?;
    let annotations = json!({ "lb.example/internal": "true" });
    place.change("x", json!({ "externalAccess": { "type": "LoadBalancer", "annotations": annotations } })).await?;
    let status = wait::until("ExternalAddressPending", || async {
        let status = place.status("x").await?;
        let pending = status.blocked_by.iter().any(|blocked| blocked.reason == "ExternalAddressPending");
        Ok((pending && status.phase == Some(Phase::Ready)).then_some(status))
    })
    .await?;
    ensure!(status.brokers.iter().all(|broker| broker.external.is_empty()), "{:?}", status.brokers);
    let made = service(&place).await?.context("a Service")?;
    ensure!(made.metadata.annotations.unwrap_or_default().get("lb.example/internal").is_some_and(|v| v == "true"));

    // Somebody gives one, as a controller of load balancers does.
    let given = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "198.51.100.7" }] } } });
    let patch = kube::api::Patch::Merge(given);
    place.api::<Service>().patch_status("rivven-x-0-ext", &kube::api::PatchParams::default(), &patch).await?;
    wait::until("the address", || async { Ok((external(&place).await? == ["198.51.100.7:9292"]).then_some(())) })
        .await?;
    ensure!(place.as_wanted("x").await?.blocked_by.is_empty());
    place.done().await
}

#[tokio::test]
async fn an_ingress_is_made_and_taken_away() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("ingress").await?;
    let wanted = json!({
        "host": "rivven.example.com", "className": "nginx", "tlsSecretName": "rivven-tls",
        "annotations": { "cert-manager.io/cluster-issuer": "letsencrypt" },
    });
    place.cluster("x", json!({ "metrics": { "enabled": false }, "ingress": wanted })).await?;
    place.as_wanted("x").await?;
    let ingresses = place.api::<Ingress>();
    let made: Value = json!(ingresses.get("rivven-x").await?);
    let backend = json!({ "service": { "name": "rivven-x", "port": { "number": 9090 } } });
    ensure!(made["spec"]["ingressClassName"] == "nginx", "{made}");
    ensure!(made["spec"]["tls"] == json!([{ "hosts": ["rivven.example.com"], "secretName": "rivven-tls" }]), "{made}");
    ensure!(made["spec"]["rules"][0]["host"] == "rivven.example.com", "{made}");
    ensure!(made["spec"]["rules"][0]["http"]["paths"][0]["backend"] == backend, "{made}");
    ensure!(made["metadata"]["annotations"]["cert-manager.io/cluster-issuer"] == "letsencrypt", "{made}");
    let ports: Value = json!(place.api::<Service>().get("rivven-x").await?.spec)["ports"].clone();
    ensure!(ports.as_array().is_some_and(|ports| ports.iter().any(|port| port["port"] == 9090)), "{ports}");
    place.change("x", json!({ "ingress": null })).await?;
    wait::until("the Ingress gone", || async { Ok(ingresses.get_opt("rivven-x").await?.is_none().then_some(())) })
        .await?;
    place.as_wanted("x").await?;
    place.done().await
}
