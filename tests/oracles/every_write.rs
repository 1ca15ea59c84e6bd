//! Oracle 1 on a released broker: the operator ends before or after each of its writes, or never hears of its effect.

use std::collections::BTreeMap;

use rivven_sim::{Fault, Log, Session, Sim};
use serde_json::{Value, json};

use crate::support::broker::Fleet;
use crate::support::{World, cluster};

type Act = fn(&Sim);

/// What users do, one after the other; each thing is done when the world is at rest after the one before.
struct Scenario {
    name: &'static str,
    acts: &'static [Act],
    /// Phase of the cluster at the end; "" if it is gone.
    ends: &'static str,
}

fn change(sim: &Sim, spec: &Value) {
    sim.apply(json!({
        "apiVersion": "rivven.io/v1alpha1", "kind": "RivvenCluster", "metadata": { "name": "x" }, "spec": spec,
    }));
}

fn create(sim: &Sim) {
    sim.apply(cluster(&json!({ "replicas": 1 })));
}

fn create_to_delete(sim: &Sim) {
    sim.apply(cluster(&json!({ "replicas": 1, "storage": { "reclaimPolicy": "Delete" } })));
}

fn env(sim: &Sim) {
    change(sim, &json!({ "env": [{ "name": "RUST_LOG", "value": "debug" }] }));
}

fn version(sim: &Sim) {
    change(sim, &json!({ "version": "0.0.21" }));
}

fn open(sim: &Sim) {
    let access = json!({ "type": "LoadBalancer", "annotations": { "a": "b" } });
    change(sim, &json!({ "externalAccess": access, "ingress": { "host": "x.example" } }));
}

fn close(sim: &Sim) {
    change(sim, &json!({ "externalAccess": null, "ingress": null }));
}

fn delete(sim: &Sim) {
    sim.delete("rivvenclusters.rivven.io", "default", "x", &json!({})).unwrap();
}

const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "create", acts: &[create], ends: "Ready" },
    Scenario { name: "roll out", acts: &[create, env, version], ends: "Ready" },
    Scenario { name: "clients from outside", acts: &[create, open, close], ends: "Ready" },
    Scenario { name: "delete, keep volumes", acts: &[create, delete], ends: "" },
    Scenario { name: "delete all", acts: &[create_to_delete, delete], ends: "" },
];

/// How one run ended.
struct Played {
    end: BTreeMap<String, Value>,
    log: Log,
}

async fn play(scenario: &Scenario, plan: impl FnOnce(&Session)) -> Result<Played, String> {
    let mut world = World::<Fleet>::new(1);
    world.start(plan);
    for act in scenario.acts {
        act(&world.sim);
        world.settle().await?;
    }
    let phase = world.phase("rivvenclusters.rivven.io", "x");
    if phase != scenario.ends {
        return Err(format!("ends {phase:?}"));
    }
    Ok(Played { end: world.end(), log: world.log() })
}

/// What differs, for a person.
fn differences(reference: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>) -> String {
    let keys: std::collections::BTreeSet<_> = reference.keys().chain(other.keys()).collect();
    let differing = keys.into_iter().filter(|key| reference.get(*key) != other.get(*key));
    differing
        .map(|key| format!("{key}\n  {:?}\n  {:?}", reference.get(key), other.get(key)))
        .collect::<Vec<_>>()
        .join("\n")
}

async fn same_end(scenario: &Scenario, reference: &Played, what: &str, plan: impl FnOnce(&Session)) -> Played {
    let run = play(scenario, plan).await.unwrap_or_else(|why| panic!("{}, {what}: {why}", scenario.name));
    assert!(
        run.end == reference.end,
        "{}, {what}:\n{}\n{:#?}",
        scenario.name,
        differences(&reference.end, &run.end),
        run.log.writes().lines()
    );
    run
}

#[tokio::test(start_paused = true)]
async fn oracle_1_a_crash_at_any_write_ends_in_the_same_world() {
    let mut plans = 0;
    for scenario in &SCENARIOS {
        let began = std::time::Instant::now();
        let reference = play(scenario, |_| {}).await.unwrap();
        let writes = reference.log.writes();
        println!("{}: {} writes, {:?}", scenario.name, writes.0.len(), began.elapsed());
        for nth in 1..=writes.0.len() as u64 {
            for fault in [Fault::CutBefore, Fault::CutAfter, Fault::LoseReply] {
                same_end(scenario, &reference, &format!("{fault:?} at {nth}"), |s| s.on_write(nth, fault)).await;
                plans += 1;
            }
        }
    }
    println!("a released broker, oracle 1: plans: {plans}");
    assert!(plans > 100, "{plans}");
}
