//! The outcomes as a table: operation × broker.

use serde_json::{Value, json};

use crate::check::{Check, Outcome};

/// What was found out about one broker.
pub struct Column {
    /// The broker's name on the command line.
    pub broker: String,
    /// In the order of the checks.
    pub outcomes: Vec<Outcome>,
}

impl Column {
    /// Everything that applies is as it must be.
    pub fn passes(&self) -> bool {
        !self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Differs(_)))
    }
}

/// For people. Differences are numbered and told below the table.
pub fn text(checks: &[Check], columns: &[Column]) -> String {
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    rows.push(std::iter::once("operation".to_owned()).chain(columns.iter().map(|c| c.broker.clone())).collect());
    for (index, check) in checks.iter().enumerate() {
        let mut row = vec![check.operation.to_owned()];
        for column in columns {
            row.push(match column.outcomes.get(index) {
                Some(Outcome::Differs(what)) => {
                    notes.push(format!("[{}] {}, {}: {what}", notes.len() + 1, column.broker, check.operation));
                    format!("differs [{}]", notes.len())
                }
                Some(outcome) => outcome.to_string(),
                None => String::new(),
            });
        }
        rows.push(row);
    }
    let table = aligned(&rows);
    if notes.is_empty() { table } else { format!("{table}\n{}\n", notes.join("\n")) }
}

fn aligned(rows: &[Vec<String>]) -> String {
    let cells = rows.first().map_or(0, Vec::len);
    let width = |cell: usize| rows.iter().map(|row| row[cell].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..cells).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// For programs.
pub fn json(checks: &[Check], columns: &[Column]) -> Value {
    let entry = |broker: &str, check: &Check, outcome: &Outcome| {
        let mut entry = json!(outcome);
        entry["broker"] = json!(broker);
        entry["operation"] = json!(check.operation);
        entry
    };
    let of = |column: &Column| -> Vec<Value> {
        checks.iter().zip(&column.outcomes).map(|(check, outcome)| entry(&column.broker, check, outcome)).collect()
    };
    columns.iter().flat_map(of).collect()
}
