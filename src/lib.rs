//! The Rivven operator: observe, decide, execute. See `docs/architecture.md`.

pub mod api;
pub mod broker;
pub mod controllers;
pub mod execute;
pub mod names;
pub mod observe;
pub mod process;
pub mod render;
