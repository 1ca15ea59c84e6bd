//! Writes a record to a topic's first partition and reads it back with the published client.
//!
//! `exchange <host:port> <topic> <text>`

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rivven_client::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut arg = |what| args.next().context(what);
    let (address, topic, text) = (arg("an address")?, arg("a topic")?, arg("a text")?);
    let mut client = Client::connect(&address).await?;
    let offset = client.publish_to_partition(&topic, 0, None::<&[u8]>, text.clone()).await?;
    println!("==> wrote to topic {topic}, partition 0, offset {offset}: {text}");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let records = client.consume(&topic, 0, offset, 1).await?;
        if let Some(record) = records.first() {
            let read = String::from_utf8_lossy(&record.value).into_owned();
            println!("==> read  from topic {topic}, partition 0, offset {}: {read}", record.offset);
            ensure!(read == text, "another record was read than was written");
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the record could not be read back");
        }
    }
}
