//! The worker's file, as text that survives what the worker does to it.
//!
//! The released worker pastes the environment into the file before it parses it: every `${NAME}` and `${NAME:-default}`,
//! wherever it stands, is replaced by the raw value. So every string is written in double quotes with nothing but plain
//! ASCII letters, digits and signs, and with each `$` as `\x24`: only the placeholders that are meant are found. And a
//! value that goes into the environment is written the same way, without the quotes, which stand in the file.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

/// A value of the worker's file.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// As it stands.
    Plain(Value),
    /// Taken from the environment: a string, or a number if `bare`.
    Variable {
        /// Name of the variable.
        name: String,
        /// Without quotes around it.
        bare: bool,
    },
    /// By key.
    Map(BTreeMap<String, Node>),
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        match value {
            Value::Object(map) => Self::Map(map.into_iter().map(|(key, value)| (key, value.into())).collect()),
            other => Self::Plain(other),
        }
    }
}

impl Node {
    /// The value at a path, if there is one.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| match node {
            Self::Map(map) => map.get(*key),
            _ => None,
        })
    }

    /// Puts a value at a path; what is no map on the way is replaced.
    pub fn put(&mut self, path: &[&str], value: Self) {
        let Some((first, rest)) = path.split_first() else {
            *self = value;
            return;
        };
        if !matches!(self, Self::Map(_)) {
            *self = Self::Map(BTreeMap::new());
        }
        if let Self::Map(map) = self {
            map.entry((*first).to_owned()).or_insert_with(|| Self::Map(BTreeMap::new())).put(rest, value);
        }
    }

    /// Lays another map over this one, key by key.
    pub fn overlay(&mut self, over: Self) {
        match (self, over) {
            (Self::Map(map), Self::Map(over)) => {
                for (key, value) in over {
                    match map.get_mut(&key) {
                        Some(node) => node.overlay(value),
                        None => drop(map.insert(key, value)),
                    }
                }
            }
            (node, over) => *node = over,
        }
    }
}

/// The text of a file.
pub fn file(node: &Node) -> String {
    let mut out = String::new();
    write(node, 0, &mut out);
    out.push('\n');
    out
}

/// A string as it stands between double quotes in YAML.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let code = u32::from(c);
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\n' => write!(out, "\\n"),
            '$' => write!(out, "\\x24"),
            ' '..='~' => write!(out, "{c}"),
            _ if code <= 0xff => write!(out, "\\x{code:02x}"),
            _ if code <= 0xffff => write!(out, "\\u{code:04x}"),
            _ => write!(out, "\\U{code:08x}"),
        };
    }
    out
}

fn write(node: &Node, depth: usize, out: &mut String) {
    match node {
        Node::Variable { name, bare: true } => out.extend(["${", name, "}"]),
        Node::Variable { name, bare: false } => out.extend(["\"${", name, "}\""]),
        Node::Map(map) => {
            let entries = map.iter().map(|(key, value)| (Some(key.as_str()), Item::Node(value)));
            block('{', '}', entries, depth, out);
        }
        Node::Plain(value) => plain(value, depth, out),
    }
}

enum Item<'a> {
    Node(&'a Node),
    Value(&'a Value),
}

fn plain(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::String(text) => out.extend(["\"", &escaped(text), "\""]),
        Value::Array(list) => block('[', ']', list.iter().map(|value| (None, Item::Value(value))), depth, out),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| (Some(key.as_str()), Item::Value(value)));
            block('{', '}', entries, depth, out);
        }
        other => out.push_str(&other.to_string()),
    }
}

fn block<'a>(
    open: char,
    close: char,
    entries: impl Iterator<Item = (Option<&'a str>, Item<'a>)>,
    depth: usize,
    out: &mut String,
) {
    out.push(open);
    let mut empty = true;
    for (key, item) in entries {
        out.push_str(if empty { "\n" } else { ",\n" });
        empty = false;
        out.push_str(&"  ".repeat(depth + 1));
        if let Some(key) = key {
            out.extend(["\"", &escaped(key), "\": "]);
        }
        match item {
            Item::Node(node) => write(node, depth + 1, out),
            Item::Value(value) => plain(value, depth + 1, out),
        }
    }
    if !empty {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    }
    out.push(close);
}
