//! The Rivven operator: observe, decide, execute. See `docs/architecture.md`.

pub mod api;
pub mod process;
