//! Produces numbered records at a given rate, remembers every acknowledgement, reads all back and tells what is missing.

mod ledger;
mod produce;
mod read;
mod report;
mod route;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::tls::Tls;
use crate::wait::{PACE, until};

pub use ledger::{Ack, Gaps, Ledger};
pub use read::{Read, Record, read_all, read_partition};
pub use report::{Comparison, Report, Retries, compare};
pub use route::Routes;

/// What to produce, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Brokers to ask for the leaders, as host:port
    #[arg(long, required = true, value_delimiter = ',')]
    pub bootstrap: Vec<String>,
    /// The topic; created where it is missing
    #[arg(long)]
    pub topic: String,
    /// Its number of partitions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// How long to produce
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Records in a second, of all producers together
    #[arg(long, default_value_t = 200.0, value_parser = rate)]
    pub rate: f64,
    /// Producers; each writes to every partition, in order
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub producers: u32,
    /// Writes every acknowledgement to this file, one a line: partition, offset, value
    #[arg(long)]
    pub acks_file: Option<PathBuf>,
    /// How long one request may take before it counts as failed
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub limit: Duration,
    /// How long to look for what is missing before it counts as lost
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub patience: Duration,
    /// Set to end before the duration is over.
    #[arg(skip)]
    pub stop: Arc<AtomicBool>,
    /// Reaches a broker at another address than it advertises
    #[arg(long, value_name = "NODE=HOST:PORT", value_parser = mapping)]
    pub address: Vec<(String, String)>,
    /// Where brokers speak TLS.
    #[command(flatten)]
    pub tls: Option<Tls>,
}

impl Options {
    /// 10 s of 200 records a second from two producers.
    pub fn new(bootstrap: Vec<String>, topic: &str, partitions: u32) -> Self {
        Self {
            bootstrap,
            topic: topic.to_owned(),
            partitions,
            duration: Duration::from_secs(10),
            rate: 200.0,
            producers: 2,
            acks_file: None,
            limit: Duration::from_secs(5),
            patience: Duration::from_secs(20),
            stop: Arc::default(),
            address: Vec::new(),
            tls: None,
        }
    }
}

/// Produces until the duration is over, then reads back.
pub async fn run(options: &Options) -> Result<Report> {
    let routes = routes(options);
    until("the topic", options.patience, || routes.topic(options.partitions)).await?;
    let ledger = Ledger::new(options.partitions, options.acks_file.as_deref())?;
    let (ledger, retries) = produce::produce(options, &routes, ledger).await?;
    let (acks, gaps) = ledger.close();
    let compared = verify(options, &acks).await?;
    Ok(Report { gaps: Some(gaps), retries, ..Report::of(&acks, &compared) })
}

/// Reads back what an earlier run was acknowledged.
pub async fn verify_file(options: &Options, acks: &Path) -> Result<Report> {
    let acks = ledger::read(acks)?;
    let compared = verify(options, &acks).await?;
    Ok(Report::of(&acks, &compared))
}

/// Reads until nothing is missing or the patience is over: a new leader may need a moment until it serves all again.
pub async fn verify(options: &Options, acks: &[Ack]) -> Result<Comparison> {
    let (routes, end) = (routes(options), Instant::now() + options.patience);
    loop {
        let read = until("reading back", options.patience, || read_all(&routes, options.partitions)).await?;
        let compared = compare(acks, &read.records);
        if compared.lost.is_empty() || Instant::now() >= end {
            return Ok(Comparison { unreadable: read.unreadable, ..compared });
        }
        sleep(PACE).await;
    }
}

fn routes(options: &Options) -> Routes {
    Routes {
        bootstrap: options.bootstrap.clone(),
        topic: options.topic.clone(),
        addresses: options.address.iter().cloned().collect::<BTreeMap<_, _>>(),
        limit: options.limit,
        tls: options.tls.clone(),
    }
}

/// `500ms`, `10s`, `2m`
fn duration(text: &str) -> Result<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).context("no unit: ms, s or m")?;
    let (number, unit) = text.split_at(split);
    let number = number.parse().context("not a number")?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_mins(number)),
        other => bail!("{other:?} is none of ms, s and m"),
    }
}

/// More than none.
fn rate(text: &str) -> Result<f64> {
    let rate: f64 = text.parse()?;
    ensure!((0.001..1e6).contains(&rate), "not between 0.001 and a million");
    Ok(rate)
}

/// `key=value`
pub(crate) fn mapping(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').context("there is no =")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("10s").unwrap(), Duration::from_secs(10));
        assert_eq!(duration("2m").unwrap(), Duration::from_mins(2));
        for wrong in ["10", "s", "", "1h", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn tls(arguments: &[&str]) -> Result<Option<Tls>, clap::Error> {
        let line = ["load", "--bootstrap", "b:1", "--topic", "t"].iter().chain(arguments);
        clap::Parser::try_parse_from(line).map(|line: Line| line.options.tls)
    }

    #[test]
    fn tls_is_spoken_where_an_authority_is_named() {
        assert_eq!(tls(&[]).unwrap(), None);
        assert_eq!(tls(&["--tls-ca", "ca"]).unwrap(), Some(Tls::new("ca")));
        let all = tls(&["--tls-ca", "ca", "--tls-cert", "c", "--tls-key", "k", "--tls-name", "b:1=broker"]).unwrap();
        let names = vec![("b:1".to_owned(), "broker".to_owned())];
        assert_eq!(all, Some(Tls { cert: Some("c".into()), key: Some("k".into()), names, ..Tls::new("ca") }));
        for wrong in [
            &["--tls-cert", "c", "--tls-key", "k"][..],
            &["--tls-name", "b:1=b"],
            &["--tls-ca", "ca", "--tls-key", "k"],
        ] {
            assert!(tls(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_rate_is_positive_and_finite() {
        assert!((rate("0.5").unwrap() - 0.5).abs() < f64::EPSILON);
        for wrong in ["0", "-1", "inf", "NaN", ""] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
