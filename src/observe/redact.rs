//! The last log lines of a broker, fit for a status: short, without control characters, without secrets.

/// How many of the last lines are kept.
const LINES: usize = 6;
/// How many characters are kept.
const CHARACTERS: usize = 600;
/// Words after which a value is taken out.
const SECRETS: [&str; 5] = ["token", "password", "secret", "authorization", "bearer"];

/// The last lines of a log.
pub fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join(" | ");
    let clean: String = redact(&last).chars().filter(|c| !c.is_control()).collect();
    let skip = clean.chars().count().saturating_sub(CHARACTERS);
    let cut: String = clean.chars().skip(skip).collect();
    // No word in part: of half a secret nobody could tell that it is one.
    if skip == 0 { cut } else { cut.split_once(' ').map_or_else(String::new, |(_, whole)| whole.to_owned()) }
}

/// The words without these values and without what looks like a secret, and no longer than a status takes.
pub fn without(words: &str, values: &[String]) -> String {
    let clean = values.iter().fold(words.to_owned(), |words, value| words.replace(value.as_str(), "[redacted]"));
    redact(&clean).chars().take(CHARACTERS).collect()
}

/// Takes out the value of `key=value`, `key: value` and `Bearer value` where the key names a secret.
fn redact(text: &str) -> String {
    let mut hide_next = false;
    let words = text.split(' ').map(|word| {
        if std::mem::take(&mut hide_next) && !word.is_empty() {
            hide_next = word.eq_ignore_ascii_case("bearer");
            return if hide_next { word.to_owned() } else { "[redacted]".to_owned() };
        }
        let lower = word.to_lowercase();
        if !SECRETS.iter().any(|secret| lower.contains(secret)) {
            return word.to_owned();
        }
        match word.find(['=', ':']) {
            Some(at) if at + 1 < word.len() => format!("{}[redacted]", &word[..=at]),
            Some(_) => {
                hide_next = true;
                word.to_owned()
            }
            None => {
                hide_next = lower.ends_with("bearer");
                word.to_owned()
            }
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out() {
        assert_eq!(redact("RIVVEN_CLUSTER_AUTH_TOKEN=abc failed"), "RIVVEN_CLUSTER_AUTH_TOKEN=[redacted] failed");
        assert_eq!(redact("password: hunter2 wrong"), "password: [redacted] wrong");
        assert_eq!(redact("Authorization: Bearer abc"), "Authorization: Bearer [redacted]");
        assert_eq!(redact("sent Bearer abc to peer"), "sent Bearer [redacted] to peer");
        assert_eq!(redact("nothing here"), "nothing here");
        let values = ["https://hooks/T0/s3cret".to_owned(), "s3cret".to_owned()];
        assert_eq!(without("url (https://hooks/T0/s3cret): s3cret", &values), "url ([redacted]): [redacted]");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let log = (0..20).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
        assert_eq!(last_words(&log), "line 14 | line 15 | line 16 | line 17 | line 18 | line 19");
        assert_eq!(last_words("").len(), 0);
        assert!(last_words(&"x".repeat(5000)).len() <= CHARACTERS);
    }
}
