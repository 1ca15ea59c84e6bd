//! Objects, their versions and their history; the rules of create, update and delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, TimeZone, Utc};
use serde_json::{Value, json};

use crate::defaults;
use crate::json::{deleting, hash, int, list, remove, text};
use crate::kinds::{self, Kind};
use crate::log::quiet;
use crate::refusal::Refusal;
use crate::validate;

/// Where an object lives. One version per resource is served, so the version is no part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// API group, "" for core.
    pub group: String,
    /// Plural of the kind.
    pub plural: String,
    /// Namespace, "" for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    pub(crate) fn new(kind: &Kind, namespace: &str, name: &str) -> Self {
        Self { group: kind.group.clone(), plural: kind.plural.clone(), namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn core(plural: &str, namespace: &str, name: &str) -> Self {
        Self { group: String::new(), plural: plural.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{} {}/{}", self.plural, self.group, self.namespace, self.name)
    }
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The `resourceVersion` it made.
    pub version: u64,
    /// Which object.
    pub key: Key,
    /// Before; none if it was created.
    pub before: Option<Arc<Value>>,
    /// After; none if it is gone.
    pub after: Option<Arc<Value>>,
}

/// Which half of an object an update may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
}

#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) objects: BTreeMap<Key, Arc<Value>>,
    pub(crate) version: u64,
    pub(crate) history: Vec<Change>,
    /// How many changes there were but those of Events and Leases.
    pub(crate) loud: u64,
    /// Watches from before this version are answered 410.
    pub(crate) compacted: u64,
    pub(crate) now: DateTime<Utc>,
    /// How often each name was used: uids depend on it and on nothing else, so that two runs can be compared.
    incarnations: BTreeMap<Key, u32>,
    /// Counts addresses, ports, container starts and generated names.
    pub(crate) serial: u32,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            kinds: kinds::served(),
            objects: BTreeMap::new(),
            version: 0,
            history: Vec::new(),
            loud: 0,
            compacted: 0,
            now: Utc.with_ymd_and_hms(2030, 1, 1, 0, 0, 0).unwrap(),
            incarnations: BTreeMap::new(),
            serial: 0,
        }
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    /// The current time as objects carry it.
    pub(crate) fn timestamp(&self) -> String {
        self.now.to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    pub(crate) fn kind(&self, group: &str, plural: &str) -> Option<&Kind> {
        self.kinds.iter().find(|k| k.group == group && k.plural == plural)
    }

    /// The kind of an object, by its `apiVersion` and `kind`.
    pub(crate) fn kind_of(&self, object: &Value) -> Option<&Kind> {
        self.kinds.iter().find(|k| k.kind == object["kind"] && k.api_version() == text(object, "/apiVersion"))
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// All objects of a resource, in every namespace or in one.
    pub(crate) fn list<'a>(
        &'a self,
        group: &'a str,
        plural: &'a str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        self.objects
            .iter()
            .filter(move |(k, _)| k.group == group && k.plural == plural && namespace.is_none_or(|n| k.namespace == n))
    }

    /// The objects as they were at a version.
    pub(crate) fn at(&self, version: u64) -> BTreeMap<Key, Arc<Value>> {
        let mut objects = self.objects.clone();
        for change in self.history.iter().rev().take_while(|c| c.version > version) {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), before.clone()),
                None => objects.remove(&change.key),
            };
        }
        objects
    }

    fn commit(&mut self, key: Key, after: Option<Value>) -> Option<Arc<Value>> {
        self.version += 1;
        self.loud += u64::from(!quiet(&key));
        let after = after.map(|mut o| {
            o["metadata"]["resourceVersion"] = self.version.to_string().into();
            Arc::new(o)
        });
        let before = match &after {
            Some(o) => self.objects.insert(key.clone(), o.clone()),
            None => self.objects.remove(&key),
        };
        if key.plural == "customresourcedefinitions" {
            self.kinds.retain(|k| !k.custom || k.resource() != key.name);
            if let Some(crd) = &after {
                self.kinds.push(Kind::declared(crd));
            }
        }
        self.history.push(Change { version: self.version, key, before, after: after.clone() });
        after
    }

    /// Creates an object.
    pub(crate) fn create(&mut self, kind: &Kind, namespace: &str, mut o: Value) -> Result<Arc<Value>, Refusal> {
        match_type(kind, &o)?;
        if !text(&o, "/metadata/resourceVersion").is_empty() {
            return Err(Refusal::of(500, "resourceVersion should not be set on objects to be created"));
        }
        if text(&o, "/metadata/name").is_empty() && !text(&o, "/metadata/generateName").is_empty() {
            let suffix = hash(&[text(&o, "/metadata/generateName"), &self.next().to_string()]) % 0xf_ffff;
            o["metadata"]["name"] = format!("{}{suffix:05x}", text(&o, "/metadata/generateName")).into();
        }
        let name = text(&o, "/metadata/name").to_owned();
        let key = Key::new(kind, namespace, &name);
        self.place(kind, namespace, &name, &mut o)?;
        if self.objects.contains_key(&key) {
            return Err(Refusal::exists(kind, &name));
        }
        if kind.status {
            remove(&mut o, "status");
        }
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink", "managedFields"] {
            remove(&mut o["metadata"], field);
        }
        defaults::fill(self, kind, &mut o, None);
        validate::any(kind, &o)?;
        validate::create(self, kind, &o)?;
        let nth = self.incarnations.entry(key.clone()).or_default();
        *nth += 1;
        let (a, b) = (hash(&[&key.to_string(), &nth.to_string()]), hash(&[&nth.to_string(), &key.to_string()]));
        o["metadata"]["uid"] = format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        )
        .into();
        o["metadata"]["creationTimestamp"] = self.timestamp().into();
        if kind.generation {
            o["metadata"]["generation"] = 1.into();
        }
        Ok(self.commit(key, Some(o)).unwrap())
    }

    /// Checks the name and the namespace of a new object.
    fn place(&self, kind: &Kind, namespace: &str, name: &str, o: &mut Value) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::invalid(
                kind,
                "",
                "metadata.name",
                "Required value: name or generateName is required",
            ));
        }
        if !kind.namespaced {
            return Ok(());
        }
        let given = text(o, "/metadata/namespace");
        if !given.is_empty() && given != namespace {
            return Err(Refusal::of(
                400,
                format!(
                    "the namespace of the provided object does not match the namespace sent on the request ({given} and {namespace})"
                ),
            ));
        }
        o["metadata"]["namespace"] = namespace.into();
        let spaces = self.kind("", "namespaces").unwrap();
        match self.get(&Key::core("namespaces", "", namespace)) {
            None => Err(Refusal::not_found(spaces, namespace)),
            Some(space) if deleting(space) => {
                let why =
                    format!("unable to create new content in namespace {namespace} because it is being terminated");
                Err(Refusal::forbidden(kind, name, &why))
            }
            Some(_) => Ok(()),
        }
    }

    /// Replaces an object, or its status.
    pub(crate) fn update(&mut self, kind: &Kind, key: &Key, mut new: Value, part: Part) -> Result<Arc<Value>, Refusal> {
        match_type(kind, &new)?;
        let name = key.name.as_str();
        let given = text(&new, "/metadata/name");
        if given != name {
            let why = format!("the name of the object ({given}) does not match the name on the URL ({name})");
            return Err(Refusal::of(400, why));
        }
        let old = self.get(key).cloned().ok_or_else(|| Refusal::not_found(kind, name))?;
        let uid = text(&new, "/metadata/uid");
        if !uid.is_empty() && uid != text(&old, "/metadata/uid") {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                text(&old, "/metadata/uid")
            );
            return Err(Refusal::conflict(kind, name, &why));
        }
        let version = text(&new, "/metadata/resourceVersion");
        if version.is_empty() && !kind.unconditional {
            let why = "Invalid value: 0x0: must be specified for an update";
            return Err(Refusal::invalid(kind, name, "metadata.resourceVersion", why));
        }
        if !version.is_empty() && version != text(&old, "/metadata/resourceVersion") {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(Refusal::conflict(kind, name, why));
        }
        if part == Part::Status {
            let status = new["status"].take();
            new = (*old).clone();
            if status.is_null() {
                remove(&mut new, "status");
            } else {
                new["status"] = status;
            }
        } else if kind.status {
            match old.get("status") {
                Some(status) => new["status"] = status.clone(),
                None => remove(&mut new, "status"),
            }
        }
        for field in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
        ] {
            match old["metadata"].get(field) {
                Some(value) => new["metadata"][field] = value.clone(),
                None => remove(&mut new["metadata"], field),
            }
        }
        if kind.namespaced {
            new["metadata"]["namespace"] = key.namespace.clone().into();
        }
        remove(&mut new["metadata"], "managedFields");
        defaults::fill(self, kind, &mut new, Some(&old));
        if new == *old {
            return Ok(old);
        }
        validate::any(kind, &new)?;
        validate::update(self, kind, &old, &new, part)?;
        if kind.generation && part == Part::Main && spec(&new) != spec(&old) {
            new["metadata"]["generation"] = (int(&old, "/metadata/generation", 0) + 1).into();
        }
        Ok(self.save(key, new))
    }

    /// Stores a changed object, or ends it if it waited for its last finalizer only.
    fn save(&mut self, key: &Key, new: Value) -> Arc<Value> {
        let graceful = key.plural == "pods" && int(&new, "/metadata/deletionGracePeriodSeconds", 0) > 0;
        if deleting(&new) && list(&new, "/metadata/finalizers").is_empty() && !graceful {
            self.commit(key.clone(), None);
            return Arc::new(new);
        }
        self.commit(key.clone(), Some(new)).unwrap()
    }

    /// Changes an object the way controllers of the cluster do: any part of it, no rules. Says whether it changed.
    pub(crate) fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) -> bool {
        let Some(old) = self.get(key).cloned() else { return false };
        let mut new = (*old).clone();
        change(&mut new);
        if new == *old {
            return false;
        }
        self.save(key, new);
        true
    }

    /// Deletes an object, or marks it; answers the object, and whether it is gone.
    pub(crate) fn delete(&mut self, kind: &Kind, key: &Key, options: &Value) -> Result<(Arc<Value>, bool), Refusal> {
        let old = self.get(key).cloned().ok_or_else(|| Refusal::not_found(kind, &key.name))?;
        for (field, label) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let (want, is) =
                (text(&options["preconditions"], &format!("/{field}")), text(&old["metadata"], &format!("/{field}")));
            if !want.is_empty() && want != is {
                let why = format!("Precondition failed: {label} in precondition: {want}, {label} in object meta: {is}");
                return Err(Refusal::conflict(kind, &key.name, &why));
            }
        }
        let mut new = (*old).clone();
        let mut finalizers: Vec<Value> = list(&old, "/metadata/finalizers").to_vec();
        let policy = text(options, "/propagationPolicy");
        if !policy.is_empty() {
            finalizers.retain(|f| f != "orphan" && f != "foregroundDeletion");
        }
        match policy {
            "Orphan" => finalizers.push("orphan".into()),
            "Foreground" => finalizers.push("foregroundDeletion".into()),
            _ => {}
        }
        let grace = if kind.plural == "pods" { grace(&old, options) } else { 0 };
        // What they contain goes first: a controller lifts these.
        let contents = match kind.plural.as_str() {
            "namespaces" => Some("kubernetes"),
            "customresourcedefinitions" => Some("customresourcecleanup.apiextensions.k8s.io"),
            _ => None,
        };
        if let Some(finalizer) = contents {
            finalizers.retain(|f| f != finalizer);
            finalizers.push(finalizer.into());
        }
        if kind.plural == "namespaces" {
            new["status"]["phase"] = "Terminating".into();
        }
        if finalizers.is_empty() && grace == 0 {
            self.commit(key.clone(), None);
            return Ok((old, true));
        }
        if finalizers.is_empty() {
            remove(&mut new["metadata"], "finalizers");
        } else {
            new["metadata"]["finalizers"] = finalizers.into();
        }
        if !deleting(&old) {
            let end = self.now + chrono::Duration::seconds(grace);
            new["metadata"]["deletionTimestamp"] = end.to_rfc3339_opts(SecondsFormat::Secs, true).into();
            if kind.generation {
                new["metadata"]["generation"] = (int(&old, "/metadata/generation", 0) + 1).into();
            }
            new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        } else if grace == 0 {
            new["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        }
        if new == *old {
            return Ok((old, false));
        }
        Ok((self.commit(key.clone(), Some(new)).unwrap(), false))
    }
}

/// How long a pod may take to end: not at all if it never ran or has ended.
fn grace(pod: &Value, options: &Value) -> i64 {
    if text(pod, "/spec/nodeName").is_empty() || matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return 0;
    }
    let asked = int(options, "/gracePeriodSeconds", int(pod, "/spec/terminationGracePeriodSeconds", 30));
    if deleting(pod) { asked.min(int(pod, "/metadata/deletionGracePeriodSeconds", asked)) } else { asked }
}

/// What counts for the generation: everything but metadata and status.
fn spec(o: &Value) -> Value {
    let mut rest = o.clone();
    remove(&mut rest, "metadata");
    remove(&mut rest, "status");
    rest
}

fn match_type(kind: &Kind, o: &Value) -> Result<(), Refusal> {
    let (version, name) = (text(o, "/apiVersion"), text(o, "/kind"));
    if version == kind.api_version() && name == kind.kind {
        return Ok(());
    }
    Err(Refusal::of(
        400,
        format!("{name} in version \"{version}\" cannot be handled as a {}: no kind is registered", kind.kind),
    ))
}

/// A `LIST` answer.
pub(crate) fn list_body(kind: &Kind, version: u64, items: &[Value]) -> Value {
    json!({
        "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
        "metadata": { "resourceVersion": version.to_string() }, "items": items,
    })
}
