//! Who asked the API server for what, from its audit log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};

use anyhow::Result;
use serde_json::Value;

use crate::variable;

/// A place in the log, from which requests are counted.
pub struct Mark(u64);

impl Mark {
    /// Here.
    pub fn now() -> Result<Self> {
        Ok(Self(std::fs::metadata(variable("RIVVEN_E2E_AUDIT_LOG")?)?.len()))
    }

    /// The requests of `user` since, by verb and path. Renewals of leases and of watches are left out: they are how a
    /// silent operator stays one.
    pub fn requests(&self, user: &str) -> Result<BTreeMap<String, usize>> {
        let mut log = File::open(variable("RIVVEN_E2E_AUDIT_LOG")?)?;
        log.seek(SeekFrom::Start(self.0))?;
        let mut counts = BTreeMap::new();
        for line in BufReader::new(log).lines() {
            // The last line may be in the writing.
            let Ok(event) = serde_json::from_str::<Value>(&line?) else { continue };
            let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let renewal = text("/objectRef/resource") == "leases" || text("/verb") == "watch";
            if text("/user/username") != user || renewal || text("/stage") != "ResponseComplete" {
                continue;
            }
            let path = text("/requestURI").split('?').next().unwrap_or_default().to_owned();
            *counts.entry(format!("{} {path}", text("/verb"))).or_insert(0) += 1;
        }
        Ok(counts)
    }
}
