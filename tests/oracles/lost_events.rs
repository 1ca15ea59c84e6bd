//! Oracle 4: each watch event in turn is lost; what was missed is listed anew when the watch ends, as it does every few
//! minutes. Until then the operator may wait for the event: it does not decide from a view that it knows to be old.

use std::time::Duration;

use rivven_sim::Session;

use crate::support::World;
use crate::support::broker::Fleet;
use crate::support::cluster::Clustered;
use crate::support::play::{ALONE, CLUSTERED, Operation, Played, Stocked, sample};

async fn lost<B: Stocked>(operation: &Operation, most: u64) {
    let reference: Played<B> = operation.play(1, |_, _| {}).await.unwrap();
    let mut plans = 0;
    for nth in sample(reference.events, most) {
        let what = format!("event {nth} lost");
        let plan = |_: &World<B>, session: &Session| {
            session.drop_event(session.events() + nth);
            let session = session.clone();
            drop(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_mins(1)).await;
                session.expire_watches();
            }));
        };
        operation.same(&reference, &what, plan).await;
        plans += 1;
    }
    println!("{}, oracles 4 and 5: plans: {plans}, of {} events", operation.name, reference.events);
}

#[tokio::test(start_paused = true)]
async fn a_rollout_goes_on() {
    lost::<Clustered>(&CLUSTERED[0], 4).await;
}

#[tokio::test(start_paused = true)]
async fn scaling_goes_on() {
    lost::<Clustered>(&CLUSTERED[1], 4).await;
    lost::<Clustered>(&CLUSTERED[2], 4).await;
}

#[tokio::test(start_paused = true)]
async fn growth_and_deletion_go_on() {
    lost::<Clustered>(&CLUSTERED[3], 4).await;
    lost::<Clustered>(&CLUSTERED[4], 4).await;
}

#[tokio::test(start_paused = true)]
async fn with_a_released_broker_any_event_may_be_lost() {
    for operation in &ALONE {
        lost::<Fleet>(operation, u64::MAX).await;
    }
}
