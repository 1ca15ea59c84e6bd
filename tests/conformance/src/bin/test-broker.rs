//! The test broker, as a program of this package: only so do tests here find it built, and built anew where it changed.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rivven_test_broker::program().await
}
