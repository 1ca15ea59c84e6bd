//! The model of the API server that in-process tests run against (`tests/sim`) is held against the real one: the very
//! same checks, here.

use anyhow::Result;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use rivven_e2e::{Place, wait};
use rivven_sim::conformance;

/// Serves the kind that the checks use, and waits until it is served.
async fn serve_kind(client: &Client) -> Result<CustomResourceDefinition> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd: CustomResourceDefinition = serde_json::from_value(conformance::crd())?;
    if crds.get_opt(&crd.name_any()).await?.is_none() {
        crds.create(&PostParams::default(), &crd).await?;
    }
    wait::until("the kind served", || async {
        let found = crds.get(&crd.name_any()).await?;
        let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.iter().any(|c| c.type_ == "Established" && c.status == "True").then_some(()))
    })
    .await?;
    let group = format!("{}/{}", crd.spec.group, crd.spec.versions[0].name);
    wait::until("the kind in discovery", || async { Ok(client.list_api_group_resources(&group).await.ok().map(drop)) })
        .await?;
    Ok(crd)
}

#[tokio::test]
async fn the_model_answers_as_the_real_api_server_does() -> Result<()> {
    let place = Place::with("model", "baseline").await?;
    let crd = serve_kind(&place.client).await?;
    conformance::api(&place.client, &place.namespace).await?;
    Api::<CustomResourceDefinition>::all(place.client.clone())
        .delete(&crd.name_any(), &DeleteParams::default())
        .await?;
    place.done().await
}

#[tokio::test]
async fn the_models_controllers_act_as_the_real_ones_do() -> Result<()> {
    let place = Place::with("model", "baseline").await?;
    conformance::controllers(&place.client, &place.namespace).await?;
    place.done().await
}
