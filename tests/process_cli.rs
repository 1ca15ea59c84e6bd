//! The command line, as people and Pods write it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use clap::Parser;
use clap::error::ErrorKind;
use rivven_operator::process::cli::{BrokerAccess, Cli, Command, LogFormat, Namespaces};

fn parse(arguments: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("rivven-operator").chain(arguments.split_whitespace()))
}

#[test]
fn the_documented_defaults() {
    let run = parse("").unwrap().run;
    assert_eq!(run.metrics_addr.to_string(), "0.0.0.0:8080");
    assert_eq!(run.health_addr.to_string(), "0.0.0.0:8081");
    assert!(run.leader_election && run.namespaces.is_all());
    assert_eq!((run.broker_access, run.log_format), (BrokerAccess::Auto, LogFormat::Text));
    assert_eq!((run.cluster_domain.as_str(), run.resync().as_secs()), ("cluster.local", 300));
    assert_eq!((run.lease_name.as_str(), run.lease_namespace.as_str()), ("rivven-operator", "default"));
}

#[test]
fn leader_election_is_a_flag_and_a_value() {
    for (written, meant) in [
        ("--leader-election", true),
        ("--leader-election=true", true),
        ("--leader-election=false", false),
        ("--leader-election=0", false),
        ("--leader-election --namespace a", true),
    ] {
        assert_eq!(parse(written).unwrap().run.leader_election, meant, "{written}");
    }
    assert!(parse("--leader-election=perhaps").is_err());
}

#[test]
fn namespaces_are_a_checked_list() {
    let list = |text: &str| text.parse::<Namespaces>();
    assert!(list("").unwrap().is_all() && list(" ").unwrap().contains("any"));
    let two = list("b, a,b").unwrap();
    assert_eq!(two.names(), ["a", "b"]);
    assert!(two.contains("a") && !two.contains("c"));
    let long = "x".repeat(64);
    // An empty element must not quietly mean "all".
    for wrong in [",", "a,", "A", "a_b", "-a", "a-", "a.b", long.as_str()] {
        assert!(list(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for wrong in [
        "--metrics-addr nowhere",
        "--broker-access sideways",
        "--resync-seconds 0",
        "--lease-name Bad_Name",
        "--cluster-domain a..b",
        "--log-format xml",
        "probe",
        "crd --namespace a",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn subcommands() {
    assert_eq!(parse("crd").unwrap().command, Some(Command::Crd));
    let Some(Command::Probe(probe)) = parse("probe --url http://a.b.svc:8080/metrics").unwrap().command else {
        panic!("not a probe");
    };
    assert_eq!((probe.url.port_u16(), probe.timeout_seconds), (Some(8080), 10));
}

#[test]
fn every_flag_of_the_operator_has_an_environment_variable() {
    let help = parse("--help").unwrap_err();
    assert_eq!(help.kind(), ErrorKind::DisplayHelp);
    let help = help.to_string();
    for name in [
        "METRICS_ADDR",
        "HEALTH_ADDR",
        "LEADER_ELECTION",
        "WATCH_NAMESPACE",
        "BROKER_ACCESS",
        "CLUSTER_DOMAIN",
        "RESYNC_SECONDS",
        "LOG_FORMAT",
        "LEASE_NAME",
        "POD_NAMESPACE",
    ] {
        assert!(help.contains(&format!("[env: {name}=")), "{name} in {help}");
    }
}
