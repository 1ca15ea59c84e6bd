//! Oracle 3: the API server answers from the past, while something is done and to an operator that starts anew. Nothing
//! newer is undone, and all ends as ever.

use std::time::Duration;

use rivven_sim::{Verb, View};

use crate::support::cluster::Clustered;
use crate::support::play::{CLUSTERED, Operation, differ_nowhere};

const BEHIND: [u64; 2] = [2, 13];
const TRAVELS: u64 = 6;

async fn from_the_past(operation: &Operation) {
    let reference = operation.play::<Clustered>(1, |_, _| {}).await.unwrap();
    let mut plans = 0;
    for behind in BEHIND {
        let what = format!("{}, {behind} versions behind", operation.name);
        let (world, session) = operation.before::<Clustered>(1).await.unwrap();
        session.view(View::Behind(behind));
        operation.act(&world);
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Behind for ever is no end that can be waited for: what it does not see, it cannot finish.
        for _ in 0..90 {
            world.sim.step();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        session.view(View::Latest);
        session.expire_watches();
        operation.done(&world).await.unwrap_or_else(|why| panic!("{what}: {why}"));
        differ_nowhere(&reference.end, &world.end(), &what);
        plans += 1;
    }
    let (mut world, then, now) = (reference.world, reference.version, reference.end);
    let latest = world.sim.version();
    for travel in 0..TRAVELS {
        let version = then + (latest - then) * travel / TRAVELS;
        let what = format!("{}, at version {version} of {then} to {latest}", operation.name);
        let before = world.log().effective().0.len();
        world.stop();
        let session = world.start(|session| session.view(View::At(version)));
        // Not until it rests: what it wants to write is refused as often as it tries.
        tokio::time::sleep(Duration::from_secs(20)).await;
        let undone = world.log().effective().0.split_off(before);
        let hurts = |entry: &&rivven_sim::Entry| entry.verb == Verb::Delete || entry.subresource == "eviction";
        assert_eq!(
            undone.iter().filter(hurts).map(ToString::to_string).collect::<Vec<_>>(),
            Vec::<String>::new(),
            "{what}"
        );
        differ_nowhere(&now, &world.end(), &what);
        session.view(View::Latest);
        session.expire_watches();
        operation.done(&world).await.unwrap_or_else(|why| panic!("{what}: {why}"));
        differ_nowhere(&now, &world.end(), &format!("{what}, and back"));
        plans += 1;
    }
    println!("{}, oracle 3: plans: {plans}", operation.name);
}

#[tokio::test(start_paused = true)]
async fn a_rollout_restarts_no_broker_again() {
    from_the_past(&CLUSTERED[0]).await;
}

#[tokio::test(start_paused = true)]
async fn brokers_that_came_stay() {
    from_the_past(&CLUSTERED[1]).await;
}

#[tokio::test(start_paused = true)]
async fn brokers_that_left_stay_away() {
    from_the_past(&CLUSTERED[2]).await;
}

#[tokio::test(start_paused = true)]
async fn volumes_stay_as_large_as_they_are() {
    from_the_past(&CLUSTERED[3]).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_stays_so() {
    from_the_past(&CLUSTERED[4]).await;
}
