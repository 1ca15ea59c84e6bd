//! The note of which replicas are on the move: written before they are, read back at each look.
//!
//! As `{"orders/3":"4->1 of 3"}`: a replica of the partition goes from broker 4 to broker 1, and the partition has three.

use std::collections::BTreeMap;

use rivven_fsm::cluster::Move;

/// The note as text.
pub fn text(moves: &[Move]) -> String {
    let one = |m: &Move| (format!("{}/{}", m.topic, m.partition), format!("{}->{} of {}", m.from, m.to, m.copies));
    serde_json::json!(moves.iter().map(one).collect::<BTreeMap<_, _>>()).to_string()
}

/// What a note says. What makes no sense in it is left out: somebody else wrote it, and nothing moves for it.
pub fn parse(text: &str) -> Vec<Move> {
    let noted: BTreeMap<String, String> = serde_json::from_str(text).unwrap_or_default();
    noted.iter().filter_map(|(partition, what)| one(partition, what)).collect()
}

fn one(partition: &str, what: &str) -> Option<Move> {
    let (topic, partition) = partition.rsplit_once('/')?;
    let (brokers, copies) = what.split_once(" of ")?;
    let (from, to) = brokers.split_once("->")?;
    let number = |text: &str| text.parse().ok();
    Some(Move {
        topic: topic.into(),
        partition: number(partition)?,
        from: number(from)?,
        to: number(to)?,
        copies: number(copies)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let moves: Vec<Move> = [("a/b", 3, 4, 1), ("orders", 0, 12, 0)]
            .map(|(topic, partition, from, to)| Move { topic: topic.into(), partition, from, to, copies: 3 })
            .into();
        assert_eq!(parse(&text(&moves)), moves);
        assert_eq!(text(&moves[1..]), r#"{"orders/0":"12->0 of 3"}"#);
    }

    #[test]
    fn what_makes_no_sense_moves_nothing() {
        for wrong in
            ["", "[]", "{", r#"{"a":"1->2 of 3"}"#, r#"{"a/1":"1->2"}"#, r#"{"a/1":"-1->2 of 3"}"#, r#"{"a/1":3}"#]
        {
            assert_eq!(parse(wrong), [], "{wrong}");
        }
        let half = r#"{"a/1":"1->2 of 3","b/x":"1->2 of 3"}"#;
        assert_eq!(parse(half).len(), 1);
    }
}
