//! All end-to-end tests, in one program: each by itself would be linked with the whole operator. What a file is about
//! stands at its top; `cargo xtask e2e -- rollout::` runs one file.

mod api;
mod certificates;
mod connect;
mod external;
mod formation;
mod lease;
mod life;
mod lifecycle;
mod many;
mod model;
mod operator;
mod postgres;
mod rollout;
mod scaling;
mod storage;
