//! Scheduler and kubelet: pods go from Pending to Ready, or wherever their behaviour leads.

use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};

use super::Nodes;
use crate::json::{condition, deleting, int, list, text};
use crate::store::{Key, Store};

/// How a pod behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Starts and becomes ready.
    #[default]
    Ok,
    /// Runs and never becomes ready, or stops being it.
    NeverReady,
    /// Ends with an error soon after each start; the text is the end of its log.
    CrashLoop(String),
    /// Is killed for want of memory soon after each start.
    OomKilled,
    /// Its image cannot be pulled.
    ImagePullFails,
    /// Its container cannot be made; the text says why.
    ConfigError(String),
    /// No node takes it; the text says why.
    Unschedulable(String),
    /// Does not end when it is asked to: it is there until its grace period is over.
    Stubborn,
}

fn behaviour(nodes: &Nodes, pod: &Value) -> Behaviour {
    nodes.rules.iter().rev().find_map(|rule| rule(pod)).unwrap_or_default()
}

fn pods(store: &Store) -> Vec<(Key, Arc<Value>)> {
    store.list("", "pods", None).map(|(k, p)| (k.clone(), p.clone())).collect()
}

/// Gives pods a node, once their claims are bound: the node with the fewest pods, the first of equals.
pub(crate) fn schedule(store: &mut Store, nodes: &Nodes) {
    for (key, pod) in pods(store) {
        if !text(&pod, "/spec/nodeName").is_empty() || deleting(&pod) {
            continue;
        }
        let unbound = claims(&pod).any(|claim| {
            let claim = store.get(&Key::core("persistentvolumeclaims", &key.namespace, claim));
            claim.is_none_or(|c| text(c, "/status/phase") != "Bound" || deleting(c))
        });
        let load = |node: &str| store.list("", "pods", None).filter(|(_, p)| text(p, "/spec/nodeName") == node).count();
        let open =
            store.list("", "nodes", None).filter(|(k, n)| n["spec"]["unschedulable"] != true && up(store, &k.name));
        let node = open.min_by_key(|(k, _)| load(&k.name)).map(|(k, _)| k.name.clone());
        let refusal = match behaviour(nodes, &pod) {
            Behaviour::Unschedulable(why) => Some(why),
            _ if unbound => Some("pod has unbound immediate PersistentVolumeClaims".to_owned()),
            _ if node.is_none() => Some("0 nodes are available: 3 node(s) were unschedulable".to_owned()),
            _ => None,
        };
        let now = store.timestamp();
        store.edit(&key, |p| {
            if let Some(why) = refusal {
                set_condition(p, "PodScheduled", false, Some(("Unschedulable", &why)), &now);
            } else {
                p["spec"]["nodeName"] = node.into();
                set_condition(p, "PodScheduled", true, None, &now);
            }
        });
    }
}

/// Whether a node answers: a node without conditions does, a test takes it down by writing `Ready: Unknown`.
fn up(store: &Store, node: &str) -> bool {
    let node = store.get(&Key::core("nodes", "", node));
    node.is_some_and(|n| matches!(condition(n, "Ready"), "" | "True"))
}

/// Names of the claims a pod mounts.
pub(super) fn claims(pod: &Value) -> impl Iterator<Item = &str> {
    list(pod, "/spec/volumes").iter().map(|v| text(v, "/persistentVolumeClaim/claimName")).filter(|c| !c.is_empty())
}

fn set_condition(o: &mut Value, kind: &str, holds: bool, why: Option<(&str, &str)>, now: &str) {
    let status = if holds { "True" } else { "False" };
    let mut conditions = list(o, "/status/conditions").to_vec();
    let mut new = json!({ "type": kind, "status": status, "lastTransitionTime": now });
    if let Some((reason, message)) = why {
        new["reason"] = reason.into();
        new["message"] = message.into();
    }
    match conditions.iter_mut().find(|c| c["type"] == kind) {
        Some(old) => {
            if old["status"] == status {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
    o["status"]["conditions"] = conditions.into();
}

/// Moves every pod of every node that answers one stage on.
pub(crate) fn run(store: &mut Store, nodes: &Nodes) {
    let now = store.timestamp();
    for (key, pod) in pods(store) {
        let node = text(&pod, "/spec/nodeName");
        if node.is_empty() {
            continue;
        }
        if !up(store, node) {
            // The node controller speaks for a node that does not.
            store.edit(&key, |p| set_condition(p, "Ready", false, Some(("NodeLost", "node does not answer")), &now));
            continue;
        }
        let behaviour = behaviour(nodes, &pod);
        if deleting(&pod) {
            terminate(store, &key, &pod, &behaviour);
            continue;
        }
        if matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed") {
            continue;
        }
        let missing = missing(store, &key.namespace, &pod);
        let serial = store.serial;
        let mut starts = 0;
        let instant = store.now;
        store.edit(&key, |p| starts = advance(p, &behaviour, missing, instant, serial));
        store.serial += starts;
    }
}

/// First stops the containers, then removes the pod.
fn terminate(store: &mut Store, key: &Key, pod: &Value, behaviour: &Behaviour) {
    let now = store.timestamp();
    if *behaviour == Behaviour::Stubborn
        && time(text(pod, "/metadata/deletionTimestamp")).is_some_and(|t| store.now < t)
    {
        return;
    }
    if condition(pod, "Ready") == "True" {
        store.edit(key, |p| {
            ready(p, false, &now);
            each_status(p, |s| {
                let id = s["containerID"].clone();
                s["state"] = json!({ "terminated": { "exitCode": 0, "reason": "Completed", "finishedAt": now, "containerID": id } });
            });
        });
        return;
    }
    // Without grace left the store lets it go, once nobody's finalizer holds it.
    store.edit(key, |p| p["metadata"]["deletionGracePeriodSeconds"] = 0.into());
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(Into::into)
}

fn each_status(pod: &mut Value, change: impl FnMut(&mut Value)) {
    crate::json::each_mut(&mut pod["status"], "containerStatuses").for_each(change);
}

fn ready(pod: &mut Value, is: bool, now: &str) {
    let why = (!is).then_some(("ContainersNotReady", "containers with unready status"));
    set_condition(pod, "ContainersReady", is, why, now);
    set_condition(pod, "Ready", is, why, now);
    each_status(pod, |s| s["ready"] = is.into());
}

/// What a pod refers to and is not there: a volume's source stops it before, an environment source at its start.
fn missing(store: &Store, namespace: &str, pod: &Value) -> Option<(&'static str, String)> {
    let absent = |plural: &str, name: &str| store.get(&Key::core(plural, namespace, name)).is_none();
    for volume in list(pod, "/spec/volumes") {
        for (plural, source, name) in
            [("secrets", &volume["secret"], "/secretName"), ("configmaps", &volume["configMap"], "/name")]
        {
            if !source.is_null() && source["optional"] != true && absent(plural, text(source, name)) {
                return Some(("ContainerCreating", String::new()));
            }
        }
    }
    for container in list(pod, "/spec/containers") {
        let variables = list(container, "/env")
            .iter()
            .map(|e| (&e["valueFrom"]["secretKeyRef"], &e["valueFrom"]["configMapKeyRef"]));
        let whole = list(container, "/envFrom").iter().map(|e| (&e["secretRef"], &e["configMapRef"]));
        for (secret, config) in variables.chain(whole) {
            for (plural, what, source) in [("secrets", "secret", secret), ("configmaps", "configmap", config)] {
                if source.is_null() || source["optional"] == true {
                    continue;
                }
                let (name, key) = (text(source, "/name"), text(source, "/key"));
                let found = store.get(&Key::core(plural, namespace, name));
                let Some(found) = found else {
                    return Some(("CreateContainerConfigError", format!("{what} \"{name}\" not found")));
                };
                if !key.is_empty() && found["data"].get(key).is_none() {
                    let why = format!("couldn't find key {key} in {what} {namespace}/{name}");
                    return Some(("CreateContainerConfigError", why));
                }
            }
        }
    }
    None
}

/// Moves a pod one stage on; answers how many containers were started.
fn advance(
    pod: &mut Value,
    behaviour: &Behaviour,
    missing: Option<(&'static str, String)>,
    instant: DateTime<Utc>,
    serial: u32,
) -> u32 {
    let now = instant.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    if pod["status"]["containerStatuses"].is_null() {
        let fresh = |c: &Value| {
            json!({
                "name": c["name"], "image": c["image"], "imageID": "", "ready": false, "started": false, "restartCount": 0,
                "state": { "waiting": { "reason": "ContainerCreating" } }, "lastState": {},
            })
        };
        let statuses: Vec<Value> = list(pod, "/spec/containers").iter().map(fresh).collect();
        pod["status"]["containerStatuses"] = statuses.into();
        pod["status"]["startTime"] = now.as_str().into();
        pod["status"]["hostIP"] = "192.0.2.1".into();
        set_condition(pod, "Initialized", true, None, &now);
        ready(pod, false, &now);
        return 0;
    }
    let waiting = match (behaviour, missing) {
        (_, Some((reason, why))) => Some((reason, why)),
        (Behaviour::ImagePullFails, _) => Some(("ImagePullBackOff", "Back-off pulling image: not found".to_owned())),
        (Behaviour::ConfigError(why), _) => Some(("CreateContainerConfigError", why.clone())),
        _ => None,
    };
    let crash = match behaviour {
        Behaviour::CrashLoop(log) => Some((1, "Error", log.as_str())),
        Behaviour::OomKilled => Some((137, "OOMKilled", "")),
        _ => None,
    };
    let mut starts = 0;
    each_status(pod, |s| {
        let running = s["state"].get("running").is_some();
        if let (true, Some((code, reason, log))) = (running, crash) {
            let started = s["state"]["running"]["startedAt"].clone();
            s["lastState"] = json!({ "terminated": {
                "exitCode": code, "reason": reason, "message": log, "startedAt": started, "finishedAt": now,
                "containerID": s["containerID"],
            }});
            s["state"] = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off restarting failed container" } });
            s["started"] = false.into();
        } else if !running {
            if let Some((reason, message)) = &waiting {
                s["state"] = json!({ "waiting": { "reason": reason } });
                if !message.is_empty() {
                    s["state"]["waiting"]["message"] = message.as_str().into();
                }
                return;
            }
            let ended = time(text(s, "/lastState/terminated/finishedAt"));
            let restarts = int(s, "/restartCount", 0);
            // 10 s, 20 s, … up to 5 min, as the real back-off.
            let pause = Duration::seconds((10 << restarts.min(5)).min(300));
            if ended.is_some_and(|t| crash.is_some() && instant < t + pause) {
                return;
            }
            starts += 1;
            s["restartCount"] = (restarts + i64::from(ended.is_some())).into();
            s["containerID"] = format!("model://{:08x}", serial + starts).into();
            s["imageID"] = s["image"].clone();
            s["state"] = json!({ "running": { "startedAt": now } });
            s["started"] = true.into();
        }
    });
    let statuses = list(pod, "/status/containerStatuses");
    let all_run = statuses.iter().all(|s| s["state"].get("running").is_some());
    // A container that started just now is ready at the next look at the earliest.
    let is_ready = all_run && starts == 0 && *behaviour != Behaviour::NeverReady;
    if statuses.iter().any(|s| s["containerID"].is_string()) {
        pod["status"]["phase"] = "Running".into();
    }
    if all_run && pod["status"]["podIP"].is_null() {
        let ip = format!("10.244.{}.{}", serial / 250 % 250, serial % 250 + 1);
        pod["status"]["podIPs"] = json!([{ "ip": ip }]);
        pod["status"]["podIP"] = ip.into();
    }
    if (condition(pod, "Ready") == "True") != is_ready {
        ready(pod, is_ready, &now);
    }
    starts
}

/// Ends the running containers of a pod, as if their processes had.
pub(crate) fn restart(store: &mut Store, namespace: &str, name: &str) {
    let now = store.timestamp();
    store.edit(&Key::core("pods", namespace, name), |p| {
        each_status(p, |s| {
            let ended = json!({ "terminated": { "exitCode": 0, "reason": "Completed", "finishedAt": now, "containerID": s["containerID"] } });
            s["lastState"] = ended.clone();
            s["state"] = ended;
        });
        ready(p, false, &now);
    });
}
