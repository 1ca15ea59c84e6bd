//! What a broker must answer, and whether it keeps what it acknowledged.
//!
//! [`checks`] is one set of named checks that runs against any broker; [`load`] produces numbered records, reads them
//! back and counts what was lost. Both speak to brokers as anybody would: through the published client and protocol,
//! and the HTTP admin API.

pub mod certificates;
pub mod check;
pub mod checks;
pub mod cluster;
pub mod expect;
pub mod http;
pub mod load;
pub mod process;
pub mod run;
pub mod single;
pub mod table;
pub mod tls;
pub mod wait;
pub mod wire;
