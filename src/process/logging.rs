//! Log lines on standard error; standard output belongs to `crd`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::util::TryInitError;

use super::cli::LogFormat;

/// Starts logging as `RUST_LOG` says, or at `info`.
///
/// A directive that cannot be parsed is left out instead of stopping the operator.
pub fn init(format: LogFormat) -> Result<(), TryInitError> {
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|value| !value.trim().is_empty());
    let filter = EnvFilter::builder().parse_lossy(directives.as_deref().unwrap_or("info"));
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(colour)).try_init()
        }
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
        }
    }
}
