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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::CHECKS;

    fn columns() -> Vec<Column> {
        let column =
            |broker: &str, outcomes: [Outcome; 2]| Column { broker: broker.to_owned(), outcomes: outcomes.into() };
        vec![
            column("one", [Outcome::Ok, Outcome::Differs("no pong".to_owned())]),
            column("other", [Outcome::NotApplicable("clustering"), Outcome::Ok]),
        ]
    }

    #[test]
    fn differences_are_told_below_the_table() {
        let expected = "\
operation  one          other
handshake  ok           not applicable: clustering
ping       differs [1]  ok

[1] one, ping: no pong
";
        assert_eq!(text(&CHECKS[..2], &columns()), expected);
    }

    #[test]
    fn only_a_difference_fails() {
        let passes: Vec<_> = columns().iter().map(Column::passes).collect();
        assert_eq!(passes, [false, true]);
    }

    #[test]
    fn programs_get_every_outcome() {
        let expected = json!([
            { "broker": "one", "operation": "handshake", "outcome": "ok" },
            { "broker": "one", "operation": "ping", "outcome": "differs", "what": "no pong" },
            { "broker": "other", "operation": "handshake", "outcome": "not_applicable", "what": "clustering" },
            { "broker": "other", "operation": "ping", "outcome": "ok" },
        ]);
        assert_eq!(json(&CHECKS[..2], &columns()), expected);
    }
}
