//! PostgreSQL with logical replication, and what the released worker makes of it.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{LogParams, PostParams};
use rivven_e2e::postgres::Postgres;
use rivven_e2e::{Place, operator, wait};
use rivven_operator::api::{Phase, RivvenConnectStatus};
use rivven_operator::render::connect::translate::RELEASED_IMAGE;
use serde_json::json;

fn reason(status: &RivvenConnectStatus) -> &str {
    status.reason.as_deref().unwrap_or_default()
}

/// If this fails because the worker follows the database, a release can what 0.0.22 cannot: then the refusal is to be
/// lifted for it (`translate::check_source`), and the changes of the database are to be looked for in the topic.
#[tokio::test]
async fn the_released_worker_goes_down_with_a_database_so_it_is_not_given_one() -> Result<()> {
    operator::ensure(&[]).await?;
    let place = Place::new("postgres").await?;
    let database = Postgres::start("s3cret").await?;
    database.sql("CREATE TABLE orders (id int PRIMARY KEY, item text)").await?;
    place.cluster("one", json!({})).await?;
    place.cluster_is("one", Phase::Ready).await?;
    let login = json!({ "metadata": { "name": "login" }, "stringData": {
        "host": place.host().await?, "port": database.port.to_string(), "database": "postgres", "user": "postgres",
        "password": "s3cret",
    } });
    place.api::<Secret>().create(&PostParams::default(), &serde_json::from_value(login)?).await?;
    let source = json!({
        "name": "db", "connector": "postgres-cdc", "topic": "orders", "configSecretRef": "login",
        // Its TLS ends the whole process (observed on 0.0.22).
        "config": { "tls": { "mode": "disable" } },
        "postgresCdc": {
            "slotName": "rivven", "publication": "rivven", "snapshotMode": "never",
            "tables": [{ "schema": "public", "table": "orders" }],
        },
    });

    // By its name it is known, and refused.
    place.pipeline("released", "one", json!({ "image": RELEASED_IMAGE, "sources": [source] })).await?;
    let status = place.pipeline_says("released", |status| reason(status) == "ConnectorRefused").await?;
    ensure!(status.phase == Some(Phase::Pending), "{status:?}");
    ensure!(place.workers("released").await?.is_empty(), "nothing is started for it");

    // The same program by another name is started, and this is why it is refused.
    place.pipeline("renamed", "one", json!({ "sources": [source] })).await?;
    let worker = wait::until("a worker that went down", || async {
        let down = |pod: &Pod| {
            let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
            statuses.first().filter(|container| container.restart_count > 0).map(|_| pod.name_any())
        };
        Ok(place.workers("renamed").await?.iter().find_map(down))
    })
    .await?;
    // The container that ended last, or the one before: the kubelet takes their logs away as it likes.
    wait::until("the words with which it went down", || async {
        for previous in [false, true] {
            let of = LogParams { previous, ..LogParams::default() };
            let log = place.api::<Pod>().logs(&worker, &of).await.unwrap_or_default();
            if log.contains("relative URL without a base") {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })
    .await?;
    let slot = database.sql("SELECT active FROM pg_replication_slots WHERE slot_name = 'rivven'").await?;
    ensure!(slot == "f", "it made the slot and does not follow it: {slot:?}");
    let status = place.pipeline_says("renamed", |status| status.phase == Some(Phase::Degraded)).await?;
    println!(
        "the released worker and PostgreSQL: {}: {}",
        reason(&status),
        status.message.as_deref().unwrap_or_default()
    );
    place.done().await
}
