//! Oracle 6: at rest nothing is written, and after each disturbance all is as before. Oracle 12: whatever order the
//! controllers run in, the end is the same. Oracle 2 where no call changes anything at a broker.

use rivven_sim::Sim;
use serde_json::json;

use crate::support::broker::Fleet;
use crate::support::cluster::Clustered;
use crate::support::play::{ALONE, CLUSTERED, Operation, Played, Stocked, but_for_restarts, differ_nowhere};

/// What somebody does to a cluster at rest.
type Disturbance = (&'static str, fn(&Sim));

const DISTURBANCES: [Disturbance; 10] = [
    ("the first pod is deleted", |sim| drop(sim.delete("pods", "default", "rivven-x-0", &json!({})))),
    ("the first broker ends", |sim| sim.restart_containers("default", "rivven-x-0")),
    ("the configuration is deleted", |sim| drop(sim.delete("configmaps", "default", "rivven-x-config", &json!({})))),
    ("the configuration is another", |sim| {
        sim.edit("configmaps", "default", "rivven-x-config", |o| o["data"]["rivven.yaml"] = json!("nonsense"));
    }),
    ("a Service is deleted", |sim| drop(sim.delete("services", "default", "rivven-x", &json!({})))),
    ("the budget lets more go", |sim| {
        sim.edit("poddisruptionbudgets.policy", "default", "rivven-x-pdb", |o| o["spec"]["maxUnavailable"] = json!(3));
    }),
    ("the policy is deleted", |sim| {
        drop(sim.delete("networkpolicies.networking.k8s.io", "default", "rivven-x", &json!({})));
    }),
    ("the number of brokers is another", |sim| {
        sim.apply(json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "rivven-x" }, "spec": { "replicas": 5 },
        }));
    }),
    ("the hash is taken off", |sim| {
        sim.edit("statefulsets.apps", "default", "rivven-x", |o| {
            o["metadata"]["annotations"].as_object_mut().unwrap().remove("rivven.io/desired-hash");
        });
    }),
    ("the status is erased", |sim| {
        sim.edit("rivvenclusters.rivven.io", "default", "x", |o| o["status"] = json!({}));
    }),
];

async fn rests<B: Stocked>(operation: &Operation) {
    let Played { world, session, end, .. } = operation.play::<B>(1, |_, _| {}).await.unwrap();
    let silent = async |what: &str| {
        let before = world.log().writes().0.len();
        for _ in 0..3 {
            session.expire_watches();
            operation.done(&world).await.unwrap_or_else(|why| panic!("{}, {what}: {why}", operation.name));
        }
        let writes = world.log().writes();
        assert_eq!(writes.0.len(), before, "{}, {what}: written at rest: {:?}", operation.name, writes.lines().last());
    };
    silent("at first").await;
    let disturbances = if (operation.change)().is_some() { &DISTURBANCES[..] } else { &[] };
    for (what, disturb) in disturbances {
        disturb(&world.sim);
        operation.done(&world).await.unwrap_or_else(|why| panic!("{}, {what}: {why}", operation.name));
        // A volume that came with a broker that nobody wanted stays, as what is in it is not known: who made it takes it away.
        for key in world.end().into_keys().filter(|key| !end.contains_key(key)) {
            if let Some(claim) = key.strip_prefix("persistentvolumeclaims default/") {
                world.sim.delete("persistentvolumeclaims", "default", claim, &json!({})).unwrap();
            }
        }
        operation.done(&world).await.unwrap_or_else(|why| panic!("{}, {what}: {why}", operation.name));
        differ_nowhere(
            &but_for_restarts(end.clone()),
            &but_for_restarts(world.end()),
            &format!("{}, {what}", operation.name),
        );
        silent(what).await;
    }
    println!("{}, oracle 6: plans: {}", operation.name, disturbances.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_rollout_and_after_growth() {
    rests::<Clustered>(&CLUSTERED[0]).await;
    rests::<Clustered>(&CLUSTERED[3]).await;
}

#[tokio::test(start_paused = true)]
async fn after_scaling_and_after_a_deletion() {
    for operation in [&CLUSTERED[1], &CLUSTERED[2], &CLUSTERED[4]] {
        rests::<Clustered>(operation).await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_released_broker() {
    for operation in &ALONE {
        rests::<Fleet>(operation).await;
    }
}

async fn in_any_order<B: Stocked>(operation: &Operation, seeds: std::ops::RangeInclusive<u64>) {
    let reference: Played<B> = operation.play(1, |_, _| {}).await.unwrap();
    let mut plans = 0;
    for seed in seeds {
        let what = format!("{}, seed {seed}", operation.name);
        let run: Played<B> = operation.play(seed, |_, _| {}).await.unwrap_or_else(|why| panic!("{what}: {why}"));
        differ_nowhere(&reference.end, &run.end, &what);
        assert_eq!(reference.counts, run.counts, "{what}");
        plans += 1;
    }
    println!("{}, oracle 12: plans: {plans}", operation.name);
}

#[tokio::test(start_paused = true)]
async fn the_order_of_the_controllers_makes_no_difference() {
    for operation in &CLUSTERED {
        in_any_order::<Clustered>(operation, 2..=2).await;
    }
    for operation in &ALONE {
        in_any_order::<Fleet>(operation, 2..=9).await;
    }
}

#[tokio::test(start_paused = true)]
async fn growth_and_deletion_change_nothing_at_a_broker() {
    for operation in &CLUSTERED[3..] {
        let calls = operation.play::<Clustered>(1, |_, _| {}).await.unwrap().calls;
        println!("{}, oracle 2: calls that change something at a broker: {calls}", operation.name);
        assert_eq!(calls, 0, "each is to be cut and lost in turn, as in tests/scaling.rs");
    }
}
