//! The operator's real code against a model of Kubernetes and of the brokers: what must hold whatever goes wrong. Which
//! oracle is shown where stands in `docs/oracles.md`. One program, as linking it takes longer than most of its tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod broker_answers;
mod deletion_order;
mod every_write;
mod faulty_answers;
mod lost_events;
mod misoperation;
mod paths;
mod rest;
mod views_of_the_past;
