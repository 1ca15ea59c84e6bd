//! The broker as a process.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rivven_test_broker::program().await
}
