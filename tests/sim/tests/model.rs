//! The model against its own conformance checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use rivven_sim::{Sim, conformance};

#[tokio::test(start_paused = true)]
async fn the_model_behaves_as_an_api_server() {
    let sim = Sim::new(1);
    sim.apply(conformance::crd());
    let client = sim.client("test");
    conformance::api(&client, "default").await.unwrap();
    conformance::claims(&client, "default").await.unwrap();
    conformance::evictions(&client, "default").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_model_behaves_as_a_control_plane() {
    for seed in 1..=5 {
        let sim = Sim::new(seed);
        let ticker = sim.clone();
        let steps = tokio::spawn(async move {
            loop {
                ticker.step();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        conformance::controllers(&sim.client("test"), "default").await.unwrap();
        steps.abort();
    }
}
