//! The released broker is the measure of the checks; the test broker has to do all of them.

use std::io::Write;

use rivven_conformance::check::{Check, On, Outcome};
use rivven_conformance::checks::CHECKS;
use rivven_conformance::run::{Candidate, run};
use rivven_conformance::table;

use crate::support::released_broker;

/// What the released broker must come to.
fn released(check: &Check) -> Outcome {
    match (check.on, check.needs) {
        (On::Unformed(_) | On::Formed(_), _) => Outcome::NotApplicable("clustering"),
        (On::Single(_) | On::Own(_), [lacking, ..]) => Outcome::NotApplicable(lacking.name()),
        (On::Single(_) | On::Own(_), []) => Outcome::Ok,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broker_does_all_that_applies_to_it() {
    let candidate = |name: &str, binary, clustered| Candidate { name: name.to_owned(), binary, clustered };
    let brokers = [
        candidate("released broker", released_broker(), false),
        candidate("test broker", env!("CARGO_BIN_EXE_test-broker").into(), true),
    ];
    let columns = run(&brokers, CHECKS, |_, _, _| ()).await;
    // The table is what people run this for: it is shown also where the test passes.
    let shown = format!("\n{}\n", table::text(CHECKS, &columns));
    std::io::stdout().write_all(shown.as_bytes()).unwrap();
    let [of_released, of_test] = columns.as_slice() else { panic!("two brokers") };
    for (index, check) in CHECKS.iter().enumerate() {
        assert_eq!(of_released.outcomes[index], released(check), "{}, released", check.operation);
        assert_eq!(of_test.outcomes[index], Outcome::Ok, "{}, test", check.operation);
    }
}
