//! Whatever a spec says, it comes through: read, wished, admitted, rendered and decided without a panic, and quantities
//! to the byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod generate;

use std::cell::RefCell;
use std::collections::BTreeMap;

use chrono::DateTime;
use generate::{cluster_spec, text, topic_object};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rivven_fsm::{Phase, cluster, topic};
use rivven_operator::api::quantity::bytes;
use rivven_operator::api::{RivvenClusterSpec, RivvenTopic};
use rivven_operator::broker::{capabilities, capabilities_of};
use rivven_operator::render;
use serde_json::json;

/// The same cases on every machine.
fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// How often each thing happened.
#[derive(Default)]
struct Counts(RefCell<BTreeMap<&'static str, usize>>);

impl Counts {
    fn add(&self, what: &'static str) {
        *self.0.borrow_mut().entry(what).or_default() += 1;
    }

    fn of(&self, what: &str) -> usize {
        self.0.borrow().get(what).copied().unwrap_or(0)
    }
}

#[test]
fn any_cluster_comes_through() {
    let counts = Counts::default();
    let inputs = (
        cluster_spec(),
        text(),
        proptest::option::of(prop_oneof![any::<String>(), Just("tls=true,clustering=true".to_owned())]),
        any::<bool>(),
    );
    runner(3000)
        .run(&inputs, |(json, name, annotation, accepted_before)| {
            counts.add("generated");
            let name = name.as_str().unwrap_or_default().to_owned();
            let Ok(spec) = serde_json::from_value::<RivvenClusterSpec>(json) else {
                counts.add("not readable");
                return Ok(());
            };
            // What was accepted is kept as JSON and read again.
            prop_assert_eq!(&serde_json::from_value::<RivvenClusterSpec>(json!(spec)).unwrap(), &spec);
            let mut wish = spec.wish(&name);
            let capabilities =
                capabilities_of(&spec.version, spec.replicas, annotation.as_deref()).unwrap_or_else(|problem| {
                    wish.problems.push(problem);
                    capabilities(&spec.version)
                });
            let (wrong, unsupported) = (!wish.problems.is_empty(), !wish.unsupported.is_empty());
            for problem in wish.problems.iter().chain(&wish.unsupported) {
                prop_assert!(!problem.is_empty());
            }
            if !wrong {
                prop_assert!(wish.storage_bytes > 0 && spec.config.default_replication_factor <= spec.replicas);
            }
            let before = RivvenClusterSpec { replicas: 1, ..serde_json::from_value(json!({})).unwrap() };
            let accepted = accepted_before.then(|| before.wish(&name));
            let candidate = cluster::Candidate { accepted, ..cluster::Candidate::first(wish, capabilities) };
            let admission = cluster::admit(&candidate);
            if wrong || unsupported {
                prop_assert!(!admission.refusals().is_empty());
            }
            counts.add(match &admission {
                cluster::Admission::Accepted => "accepted",
                cluster::Admission::Kept(_) => "kept",
                cluster::Admission::Refused(_) => "refused",
            });
            // With any number a Service each would be made.
            let spec = RivvenClusterSpec { replicas: spec.replicas.min(99), ..spec };
            let input = render::Input {
                name: &name,
                namespace: "n",
                uid: "u",
                spec: &spec,
                capabilities,
                domain: "cluster.local",
                restarted_at: None,
                certificate: None,
                rules: &BTreeMap::new(),
            };
            let objects = render::cluster(&input);
            let outside = spec.external_access.as_ref().map_or(0, |_| spec.replicas as usize)
                + usize::from(spec.ingress.is_some())
                + usize::from(spec.tls.enabled && spec.tls.issuer_ref.is_some());
            prop_assert_eq!(objects.len(), cluster::Object::ALL.len() + outside);
            let again = render::cluster(&input);
            prop_assert!(objects == again);
            let refused = matches!(admission, cluster::Admission::Refused(_));
            let observation = cluster::Observation {
                certificate: spec.tls.enabled.then(cluster::Certificate::default),
                seen_at: DateTime::UNIX_EPOCH,
                windows: spec.windows(),
                min_ready: std::time::Duration::ZERO,
                recorded: None,
                deletion: None,
                finalizer: true,
                paused: spec.paused,
                adopt_volumes: false,
                admission,
                objects: if refused {
                    Vec::new()
                } else {
                    objects.into_keys().map(|object| (object, cluster::Presence::Missing)).collect()
                },
                stateful_set: None,
                brokers: Vec::new(),
                replicas: spec.replicas,
                storage_bytes: 10 << 30,
                capabilities,
                dependents: Vec::new(),
                partitions: cluster::Partitions::Unreplicated,
                formed: false,
                moves: Vec::new(),
                rebalance: spec.rebalance,
                scale_in: cluster::ReclaimPolicy::Delete,
            };
            let decision = cluster::decide(&observation, DateTime::UNIX_EPOCH);
            if refused {
                prop_assert!(decision.steps.is_empty(), "a refused spec led to {:?}", decision.steps);
            }
            Ok(())
        })
        .unwrap();
    println!("clusters: {:?}", counts.0.borrow());
    for what in ["not readable", "accepted", "refused", "kept"] {
        assert!(counts.of(what) >= 10, "too few were {what}: {:?}", counts.0.borrow());
    }
}

#[test]
fn any_topic_comes_through() {
    let counts = Counts::default();
    runner(3000)
        .run(&topic_object(), |json| {
            counts.add("generated");
            let Ok(object) = serde_json::from_value::<RivvenTopic>(json) else {
                counts.add("not readable");
                return Ok(());
            };
            let wish = object.wish();
            counts.add(if wish.problems.is_empty() { "fine" } else { "wrong" });
            if wish.problems.is_empty() {
                prop_assert_eq!(wish.config.len(), 7);
                prop_assert!(!wish.topic.is_empty() && wish.topic.is_ascii() && object.spec.partitions > 0);
            }
            let wrong = !wish.problems.is_empty();
            let observation = topic::Observation {
                recorded: Some(Phase::Pending),
                deletion: None,
                finalizer: true,
                wish,
                cluster: topic::Cluster::Ready { uid: "u".to_owned(), replicates: true, brokers: 1000, acls: true },
                mark: None,
                adopt: false,
                older: None,
                seen: topic::Seen::Absent,
            };
            let decision = topic::decide(&observation, DateTime::UNIX_EPOCH);
            prop_assert_eq!(decision.steps.is_empty(), wrong, "{:?}", decision.steps);
            Ok(())
        })
        .unwrap();
    println!("topics: {:?}", counts.0.borrow());
    for what in ["not readable", "fine", "wrong"] {
        assert!(counts.of(what) >= 10, "too few were {what}: {:?}", counts.0.borrow());
    }
}

/// Bytes by whole numbers only: digits times unit, divided by the power of ten of the fraction, rounded up.
fn exact(whole: &str, fraction: &str, suffix: &str) -> u128 {
    let unit: u128 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => 1 << 60,
    };
    let digits: u128 = format!("{whole}{fraction}").parse().unwrap();
    (digits * unit).div_ceil(10_u128.pow(u32::try_from(fraction.len()).unwrap()))
}

#[test]
fn quantities_are_exact() {
    let counts = Counts::default();
    let suffix = select(vec!["", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]);
    runner(20_000)
        .run(&("[0-9]{1,15}", "[0-9]{0,4}", suffix), |(whole, fraction, suffix)| {
            let quantity =
                if fraction.is_empty() { format!("{whole}{suffix}") } else { format!("{whole}.{fraction}{suffix}") };
            let is = exact(&whole, &fraction, suffix);
            let countable = i64::try_from(is).ok().map(i64::unsigned_abs);
            prop_assert_eq!(bytes(&quantity), countable, "{}", quantity);
            counts.add(if countable.is_some() { "counted" } else { "too many to count" });
            // The wish says the same, or names the field.
            let spec: RivvenClusterSpec =
                serde_json::from_value(json!({ "replicas": 1, "storage": { "size": quantity } })).unwrap();
            let wish = spec.wish("a");
            match countable.filter(|bytes| *bytes > 0) {
                Some(bytes) => prop_assert_eq!((wish.storage_bytes, wish.problems), (bytes, Vec::new())),
                None => prop_assert!(wish.problems.iter().any(|problem| problem.starts_with("storage.size: "))),
            }
            Ok(())
        })
        .unwrap();
    println!("quantities: {:?}", counts.0.borrow());
    runner(20_000)
        .run(&any::<String>(), |text| {
            let _ = bytes(&text);
            Ok(())
        })
        .unwrap();
    runner(20_000)
        .run(&"[+-]?[0-9.]{0,45}([eE][+-]?[0-9]{1,12}|[a-zA-Z]{0,3})", |text| {
            let _ = bytes(&text);
            Ok(())
        })
        .unwrap();
}
