//! Label and field selectors.

use serde_json::Value;

use crate::json::{list, text};
use crate::refusal::Refusal;

#[derive(Clone, Debug)]
enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    /// A field and whether it must be equal.
    Field(&'static str, String, bool),
}

/// A parsed selector: all terms must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector(Vec<Term>);

impl Selector {
    /// Parses the `labelSelector` and `fieldSelector` of a query.
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, Refusal> {
        let mut terms = Vec::new();
        for term in split(labels) {
            terms.push(label(&term).ok_or_else(|| Refusal::of(400, format!("unable to parse requirement: {term:?}")))?);
        }
        for term in fields.split(',').filter(|t| !t.is_empty()) {
            let (field, value, equal) = match term.split_once("!=") {
                Some((f, v)) => (f, v, false),
                None => term
                    .split_once('=')
                    .map(|(f, v)| (f, v.trim_start_matches('='), true))
                    .ok_or_else(|| Refusal::of(400, format!("invalid field selector: {term:?}")))?,
            };
            let pointer = match field {
                "metadata.name" => "/metadata/name",
                "metadata.namespace" => "/metadata/namespace",
                "spec.nodeName" => "/spec/nodeName",
                "status.phase" => "/status/phase",
                other => return Err(Refusal::of(400, format!("field label not supported: {other}"))),
            };
            terms.push(Term::Field(pointer, value.to_owned(), equal));
        }
        Ok(Self(terms))
    }

    /// A `LabelSelector` object.
    pub(crate) fn of(selector: &Value) -> Self {
        let mut terms: Vec<Term> = selector["matchLabels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| Term::In(k.clone(), vec![v.as_str().unwrap_or_default().to_owned()]))
            .collect();
        for e in list(selector, "/matchExpressions") {
            let key = text(e, "/key").to_owned();
            let values = list(e, "/values").iter().filter_map(Value::as_str).map(str::to_owned).collect();
            terms.push(match text(e, "/operator") {
                "In" => Term::In(key, values),
                "NotIn" => Term::NotIn(key, values),
                "Exists" => Term::Exists(key),
                _ => Term::Absent(key),
            });
        }
        Self(terms)
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|term| match term {
            Term::In(k, v) => labels[k].as_str().is_some_and(|l| v.iter().any(|x| x == l)),
            Term::NotIn(k, v) => !labels[k].as_str().is_some_and(|l| v.iter().any(|x| x == l)),
            Term::Exists(k) => labels[k].is_string(),
            Term::Absent(k) => !labels[k].is_string(),
            Term::Field(pointer, v, equal) => (text(object, pointer) == v) == *equal,
        })
    }
}

/// Splits at commas that are not inside parentheses.
fn split(selector: &str) -> Vec<String> {
    let (mut terms, mut depth) = (vec![String::new()], 0);
    for c in selector.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(String::new());
                continue;
            }
            _ => {}
        }
        terms.last_mut().unwrap().push(c);
    }
    terms.into_iter().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect()
}

fn label(term: &str) -> Option<Term> {
    if let Some((head, values)) = term.strip_suffix(')').and_then(|t| t.split_once('(')) {
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        let (key, op) = head.trim().rsplit_once(' ')?;
        return match op {
            "in" => Some(Term::In(key.trim().into(), values)),
            "notin" => Some(Term::NotIn(key.trim().into(), values)),
            _ => None,
        };
    }
    if let Some((k, v)) = term.split_once("!=") {
        return Some(Term::NotIn(k.trim().into(), vec![v.trim().into()]));
    }
    if let Some((k, v)) = term.split_once('=') {
        return Some(Term::In(k.trim().into(), vec![v.trim_start_matches('=').trim().into()]));
    }
    Some(match term.strip_prefix('!') {
        Some(k) => Term::Absent(k.trim().into()),
        None => Term::Exists(term.into()),
    })
}
