//! Oracle 13: the API server answers wrongly, or not at all, at each request: reads, watches, writes and Events.

use rivven_sim::{Fault, Matcher};

use crate::support::broker::Fleet;
use crate::support::cluster::Clustered;
use crate::support::play::{ALONE, CLUSTERED, Operation, Played, Stocked, sample};

const FAULTS: [Fault; 5] =
    [Fault::Answer(409), Fault::Answer(429), Fault::Answer(500), Fault::TimeOut, Fault::ExpireWatches];

/// Each of about so many requests is answered wrongly in one way, the ways in turn.
async fn faulty<B: Stocked>(operation: &Operation, most: u64) {
    let reference: Played<B> = operation.play(1, |_, _| {}).await.unwrap();
    let mut plans = 0;
    for (fault, nth) in FAULTS.into_iter().cycle().zip(sample(reference.requests, most)) {
        let what = format!("{fault:?} at request {nth}");
        operation.same(&reference, &what, |_, session| session.on(Matcher::default(), nth, fault)).await;
        plans += 1;
    }
    println!("{}, oracles 13 and 5: plans: {plans}, of {} requests", operation.name, reference.requests);
}

#[tokio::test(start_paused = true)]
async fn a_rollout_ends_as_ever() {
    faulty::<Clustered>(&CLUSTERED[0], 5).await;
}

#[tokio::test(start_paused = true)]
async fn scaling_out_ends_as_ever() {
    faulty::<Clustered>(&CLUSTERED[1], 5).await;
}

#[tokio::test(start_paused = true)]
async fn scaling_in_ends_as_ever() {
    faulty::<Clustered>(&CLUSTERED[2], 5).await;
}

#[tokio::test(start_paused = true)]
async fn growth_of_volumes_ends_as_ever() {
    faulty::<Clustered>(&CLUSTERED[3], 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_ends_as_ever() {
    faulty::<Clustered>(&CLUSTERED[4], 5).await;
}

#[tokio::test(start_paused = true)]
async fn with_a_released_broker_every_request_may_fail() {
    for operation in &ALONE {
        faulty::<Fleet>(operation, u64::MAX).await;
    }
}
