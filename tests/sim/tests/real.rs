//! The same checks against the API server that `KUBECONFIG` names, each in a namespace of its own.
//! `cargo test -p rivven-sim --test real -- --ignored`
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Config, ResourceExt};
use rivven_sim::conformance;
use serde_json::json;

/// Without the client's own retries, which would answer a 429 by asking again for hours.
async fn client() -> Client {
    let mut config = Config::infer().await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

async fn namespace(client: &Client) -> String {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let named = serde_json::from_value(json!({ "metadata": { "generateName": "conformance-" } })).unwrap();
    namespaces.create(&PostParams::default(), &named).await.unwrap().name_any()
}

async fn clean(client: &Client, namespace: &str) {
    Api::<Namespace>::all(client.clone()).delete(namespace, &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn api() {
    let client = client().await;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd: CustomResourceDefinition = serde_json::from_value(conformance::crd()).unwrap();
    if crds.get_opt(&crd.name_any()).await.unwrap().is_none() {
        crds.create(&PostParams::default(), &crd).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let namespace = namespace(&client).await;
    conformance::api(&client, &namespace).await.unwrap();
    clean(&client, &namespace).await;
    crds.delete(&crd.name_any(), &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs an API server alone, without controllers"]
async fn alone() {
    let client = client().await;
    let namespace = namespace(&client).await;
    conformance::claims(&client, &namespace).await.unwrap();
    conformance::evictions(&client, &namespace).await.unwrap();
    clean(&client, &namespace).await;
}

#[tokio::test]
#[ignore = "needs a control plane"]
async fn controllers() {
    let client = client().await;
    let namespace = namespace(&client).await;
    conformance::controllers(&client, &namespace).await.unwrap();
    clean(&client, &namespace).await;
}
