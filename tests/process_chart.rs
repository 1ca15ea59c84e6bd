//! The chart, as far as it can be read without Helm: the rights are least, and the values are documented and checked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

fn read(path: &str) -> String {
    let chart = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("charts/rivven-operator");
    std::fs::read_to_string(chart.join(path)).unwrap()
}

/// Each resource and what may be done with it.
fn rules() -> BTreeMap<String, Vec<String>> {
    let template = read("templates/_rules.tpl");
    let yaml: String = template
        .lines()
        .skip_while(|line| !line.contains("define"))
        .skip(1)
        .take_while(|line| !line.contains("end }}"))
        .fold(String::new(), |yaml, line| yaml + line + "\n");
    let rules: Vec<BTreeMap<String, Vec<String>>> = serde_saphyr::from_str(&yaml).unwrap();
    rules
        .into_iter()
        .flat_map(|rule| {
            let verbs = rule["verbs"].clone();
            assert_eq!(rule["apiGroups"].len(), 1, "one group a rule, so that it can be read at a glance");
            rule["resources"].clone().into_iter().map(move |resource| (resource, verbs.clone()))
        })
        .collect()
}

#[test]
fn secrets_are_neither_listed_nor_watched_and_nothing_is_wild() {
    let rules = rules();
    // update: a worker's variables, when the Secret that they are copied from changes.
    assert_eq!(rules["secrets"], ["get", "create", "update"]);
    for (resource, verbs) in &rules {
        assert!(!resource.contains('*') && !verbs.iter().any(|verb| verb == "*"), "{resource}");
        for verb in ["deletecollection", "escalate", "bind", "impersonate"] {
            assert!(!verbs.iter().any(|granted| granted == verb), "{verb} {resource}");
        }
    }
}

#[test]
fn only_what_has_no_other_way_to_go_is_deleted() {
    let deleted: Vec<_> = rules()
        .into_iter()
        .filter(|(_, verbs)| verbs.iter().any(|verb| verb == "delete"))
        .map(|(name, _)| name)
        .collect();
    // What lets clients in is switched off under a cluster that goes on: no garbage collector comes for it.
    // A worker without connectors is taken away while its connect stays.
    assert_eq!(deleted, ["deployments", "ingresses", "persistentvolumeclaims", "pods", "services", "statefulsets"]);
}

/// Deleted only at the end of a cluster whose StatefulSet is already gone: nothing else would stop those brokers.
#[test]
fn pods_are_evicted_and_never_written() {
    let rules = rules();
    assert_eq!(rules["pods"], ["list", "watch", "delete"]);
    assert_eq!(rules["pods/eviction"], ["create"]);
}

#[test]
fn every_value_is_documented_and_in_the_schema() {
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let readme = read("README.md");
    walk(&values, &schema, "", &readme);
}

/// `resources` is documented as one; a map that is empty by default is a leaf.
fn walk(values: &Value, schema: &Value, path: &str, readme: &str) {
    let leaf = path == "resources" || values.as_object().is_none_or(serde_json::Map::is_empty);
    if leaf {
        assert!(readme.contains(&format!("| `{path}` |")), "{path} is not in the README");
        return;
    }
    assert_eq!(schema["additionalProperties"], false, "{path} takes what it does not know");
    for (name, value) in values.as_object().unwrap() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let known = &schema["properties"][name];
        assert!(known.is_object(), "{path} is not in the schema");
        walk(value, known, &path, readme);
    }
}
