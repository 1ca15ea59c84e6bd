//! Checks that hold on the model and on a real API server: what the operator relies on.
//!
//! [`api`] needs nothing but an API server with the CRD of [`crd`]; [`controllers`] also needs the controllers of the
//! control plane, though no node. Both take an existing, empty namespace.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, EvictParams, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams, Preconditions, PropagationPolicy, WatchEvent, WatchParams,
};
use kube::{Client, Error, ResourceExt};
use serde_json::{Value, json};

/// The custom resource the checks use.
pub fn crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "probes.conformance.rivven.io" },
        "spec": {
            "group": "conformance.rivven.io", "scope": "Namespaced",
            "names": { "plural": "probes", "singular": "probe", "kind": "Probe", "listKind": "ProbeList" },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })
}

fn probes(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("conformance.rivven.io", "v1", "Probe");
    Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk_with_plural(&kind, "probes"))
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> Result<K> {
    serde_json::from_value(value).context("the check itself is wrong")
}

fn probe(name: &str, size: i64) -> Result<DynamicObject> {
    object(json!({
        "apiVersion": "conformance.rivven.io/v1", "kind": "Probe", "metadata": { "name": name },
        "spec": { "size": size },
    }))
}

fn config(name: &str, app: &str) -> Result<ConfigMap> {
    object(json!({ "metadata": { "name": name, "labels": { "app": app } }, "data": { "k": "v" } }))
}

/// A refusal with this code and reason.
fn refused<T: Debug>(result: Result<T, Error>, code: u16, reason: &str) -> Result<()> {
    match result {
        Err(Error::Api(status)) if status.code == code && status.reason == reason => Ok(()),
        other => bail!("wanted {code} {reason}, got {other:?}"),
    }
}

fn create() -> PostParams {
    PostParams::default()
}

fn merge(patch: &Value) -> Patch<&Value> {
    Patch::Merge(patch)
}

/// All checks of the API server itself.
pub async fn api(client: &Client, namespace: &str) -> Result<()> {
    creation(client, namespace).await.context("creation")?;
    updates(client, namespace).await.context("updates")?;
    statuses(client, namespace).await.context("statuses")?;
    patches(client, namespace).await.context("patches")?;
    deletion(client, namespace).await.context("deletion")?;
    lists(client, namespace).await.context("lists")?;
    watches(client, namespace).await.context("watches")?;
    services(client, namespace).await.context("services")?;
    stateful_sets(client, namespace).await.context("stateful sets")?;
    others(client, namespace).await.context("other kinds")
}

/// Names, what the server sets, what it refuses.
pub async fn creation(client: &Client, namespace: &str) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let made = maps.create(&create(), &config("creation", "a")?).await?;
    ensure!(made.uid().is_some() && made.resource_version().is_some() && made.creation_timestamp().is_some());
    ensure!(made.namespace().as_deref() == Some(namespace) && made.metadata.generation.is_none());
    refused(maps.create(&create(), &config("creation", "b")?).await, 409, "AlreadyExists")?;
    refused(maps.create(&create(), &config("Not_A_Name", "b")?).await, 422, "Invalid")?;
    refused(maps.create(&create(), &config("label", "-not-a-label-")?).await, 422, "Invalid")?;
    refused(maps.create(&create(), &object(json!({ "metadata": {} }))?).await, 422, "Invalid")?;
    let named = maps.create(&create(), &object(json!({ "metadata": { "generateName": "some-" } }))?).await?;
    ensure!(named.name_any().len() > "some-".len() && named.name_any().starts_with("some-"));
    let elsewhere: Api<ConfigMap> = Api::namespaced(client.clone(), "no-such-namespace");
    refused(elsewhere.create(&create(), &config("creation", "a")?).await, 404, "NotFound")?;
    refused(maps.get("absent").await, 404, "NotFound")?;
    let dry = PostParams { dry_run: true, ..create() };
    maps.create(&dry, &config("dry", "a")?).await?;
    refused(maps.get("dry").await, 404, "NotFound")?;
    let unknown = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("no.such.group", "v1", "X"), "xs");
    let unknown: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &unknown);
    // The real server says so in plain text, so that there is no reason to compare.
    ensure!(matches!(unknown.list(&ListParams::default()).await, Err(Error::Api(status)) if status.code == 404));
    let mut owned = config("owned", "a")?;
    owned.metadata.owner_references = Some(object(json!([
        { "apiVersion": "v1", "kind": "ConfigMap", "name": "creation", "uid": made.uid(), "controller": true },
        { "apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "x", "controller": true },
    ]))?);
    refused(maps.create(&create(), &owned).await, 422, "Invalid")
}

/// Optimistic locking, generations, writes without effect.
pub async fn updates(client: &Client, namespace: &str) -> Result<()> {
    let probes = probes(client, namespace);
    let first = probes.create(&create(), &probe("updates", 1)?).await?;
    ensure!(first.metadata.generation == Some(1));
    let mut next = first.clone();
    next.data["spec"]["size"] = 2.into();
    let second = probes.replace("updates", &create(), &next).await?;
    ensure!(second.metadata.generation == Some(2) && second.uid() == first.uid());
    refused(probes.replace("updates", &create(), &next).await, 409, "Conflict")?;
    let same = probes.replace("updates", &create(), &second).await?;
    ensure!(same.resource_version() == second.resource_version(), "a write without effect made a version");
    let mut labelled = second.clone();
    labelled.labels_mut().insert("a".into(), "b".into());
    let third = probes.replace("updates", &create(), &labelled).await?;
    ensure!(third.metadata.generation == Some(2) && third.resource_version() != second.resource_version());
    let mut foreign = third.clone();
    foreign.metadata.uid = Some("6f0b6c3c-0000-4000-8000-000000000000".into());
    refused(probes.replace("updates", &create(), &foreign).await, 409, "Conflict")?;
    let mut blind = third.clone();
    blind.metadata.resource_version = None;
    refused(probes.replace("updates", &create(), &blind).await, 422, "Invalid")?;
    refused(
        probes
            .replace("absent", &create(), &{
                let mut absent = probe("absent", 1)?;
                absent.metadata.resource_version = Some("1".into());
                absent
            })
            .await,
        404,
        "NotFound",
    )?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    maps.create(&create(), &config("updates", "a")?).await?;
    maps.replace("updates", &create(), &config("updates", "b")?).await.context("built-in kinds take blind updates")?;
    Ok(())
}

/// Spec and status do not touch each other.
pub async fn statuses(client: &Client, namespace: &str) -> Result<()> {
    let probes = probes(client, namespace);
    let mut given = probe("statuses", 1)?;
    given.data["status"] = json!({ "phase": "Invented" });
    let made = probes.create(&create(), &given).await?;
    ensure!(made.data.get("status").is_none(), "a status was created");
    let mut seen = made.clone();
    seen.data["status"] = json!({ "phase": "Ready" });
    seen.data["spec"]["size"] = 9.into();
    seen.labels_mut().insert("a".into(), "b".into());
    let stated = probes.replace_status("statuses", &create(), &seen).await?;
    ensure!(stated.data["status"]["phase"] == "Ready" && stated.data["spec"]["size"] == 1);
    ensure!(stated.metadata.generation == Some(1) && !stated.labels().contains_key("a"));
    let mut changed = stated.clone();
    changed.data["spec"]["size"] = 2.into();
    changed.data["status"] = json!({ "phase": "Invented" });
    let kept = probes.replace("statuses", &create(), &changed).await?;
    ensure!(kept.data["status"]["phase"] == "Ready" && kept.metadata.generation == Some(2));
    let patch = json!({ "status": { "phase": "Degraded" }, "spec": { "size": 7 } });
    let patched = probes.patch_status("statuses", &PatchParams::default(), &merge(&patch)).await?;
    ensure!(patched.data["status"]["phase"] == "Degraded" && patched.data["spec"]["size"] == 2);
    refused(probes.replace_status("statuses", &create(), &seen).await, 409, "Conflict")
}

/// Merge patches and JSON patches.
pub async fn patches(client: &Client, namespace: &str) -> Result<()> {
    let probes = probes(client, namespace);
    let made = probes.create(&create(), &probe("patches", 1)?).await?;
    let params = PatchParams::default();
    let added = probes.patch("patches", &params, &merge(&json!({ "spec": { "more": [1] } }))).await?;
    ensure!(added.data["spec"] == json!({ "size": 1, "more": [1] }) && added.metadata.generation == Some(2));
    let removed = probes.patch("patches", &params, &merge(&json!({ "spec": { "more": null } }))).await?;
    ensure!(removed.data["spec"] == json!({ "size": 1 }));
    let stale = json!({ "metadata": { "resourceVersion": made.resource_version() }, "spec": { "size": 3 } });
    refused(probes.patch("patches", &params, &merge(&stale)).await, 409, "Conflict")?;
    let none = probes.patch("patches", &params, &merge(&json!({ "spec": { "size": 1 } }))).await?;
    ensure!(none.resource_version() == removed.resource_version());
    let steps = |steps: Value| -> Result<Patch<DynamicObject>> { Ok(Patch::Json(object(steps)?)) };
    let good = steps(
        json!([{ "op": "test", "path": "/spec/size", "value": 1 }, { "op": "replace", "path": "/spec/size", "value": 4 }]),
    )?;
    ensure!(probes.patch("patches", &params, &good).await?.data["spec"]["size"] == 4);
    refused(probes.patch("patches", &params, &good).await, 422, "Invalid")?;
    refused(probes.patch("absent", &params, &merge(&json!({ "spec": {} }))).await, 404, "NotFound")?;
    let strategic = Patch::Strategic(json!({ "spec": { "size": 5 } }));
    refused(probes.patch("patches", &params, &strategic).await, 415, "UnsupportedMediaType")
}

/// Preconditions and finalizers.
pub async fn deletion(client: &Client, namespace: &str) -> Result<()> {
    let probes = probes(client, namespace);
    let mut held = probe("deletion", 1)?;
    held.metadata.finalizers = Some(vec!["conformance.rivven.io/held".into()]);
    let made = probes.create(&create(), &held).await?;
    let wrong = |uid: Option<&str>, version: Option<&str>| {
        DeleteParams::default()
            .preconditions(Preconditions { uid: uid.map(Into::into), resource_version: version.map(Into::into) })
    };
    refused(
        probes.delete("deletion", &wrong(Some("6f0b6c3c-0000-4000-8000-000000000000"), None)).await,
        409,
        "Conflict",
    )?;
    refused(probes.delete("deletion", &wrong(None, Some("1"))).await, 409, "Conflict")?;
    let right = wrong(made.uid().as_deref(), made.resource_version().as_deref());
    let marked = probes.delete("deletion", &right).await?.left().context("it was not kept for its finalizer")?;
    ensure!(marked.metadata.deletion_timestamp.is_some() && marked.metadata.generation == Some(2));
    let again = probes.delete("deletion", &DeleteParams::default()).await?.left().context("it was not kept")?;
    ensure!(again.resource_version() == marked.resource_version(), "a second deletion made a version");
    let more = json!({ "metadata": { "finalizers": ["conformance.rivven.io/held", "conformance.rivven.io/new"] } });
    refused(probes.patch("deletion", &PatchParams::default(), &merge(&more)).await, 422, "Invalid")?;
    probes.patch("deletion", &PatchParams::default(), &merge(&json!({ "metadata": { "finalizers": null } }))).await?;
    refused(probes.get("deletion").await, 404, "NotFound")?;
    refused(probes.delete("deletion", &DeleteParams::default()).await, 404, "NotFound")?;
    let made = probes.create(&create(), &probe("orphaned", 1)?).await?;
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    probes.delete("orphaned", &orphan).await?;
    // Until the garbage collector has been there, the name is taken; afterwards it is free.
    if let Some(left) = probes.get_opt("orphaned").await? {
        ensure!(left.uid() == made.uid() && left.finalizers().contains(&"orphan".to_owned()));
        refused(probes.create(&create(), &probe("orphaned", 1)?).await, 409, "AlreadyExists")?;
    }
    Ok(())
}

/// Selectors.
pub async fn lists(client: &Client, namespace: &str) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    for (name, app) in [("list-a", "la"), ("list-b", "lb"), ("list-c", "lc")] {
        maps.create(&create(), &config(name, app)?).await?;
    }
    for (labels, found) in [
        ("app=la", vec!["list-a"]),
        ("app in (la, lb)", vec!["list-a", "list-b"]),
        ("app in (la,lb),app!=la", vec!["list-b"]),
        ("app notin (la,lb),app=lc", vec!["list-c"]),
        ("app=la,!other", vec!["list-a"]),
        ("app=la,other", vec![]),
    ] {
        let list = maps.list(&ListParams::default().labels(labels)).await?;
        let names: Vec<String> = list.iter().map(ResourceExt::name_any).collect();
        ensure!(names == found, "{labels}: {names:?}");
        ensure!(list.metadata.resource_version.is_some_and(|v| !v.is_empty()));
    }
    let one = maps.list(&ListParams::default().fields("metadata.name=list-b")).await?;
    ensure!(one.items.len() == 1 && one.items[0].name_any() == "list-b");
    refused(maps.list(&ListParams::default().fields("data.k=v")).await, 400, "BadRequest")?;
    let slim = maps.list_metadata(&ListParams::default().labels("app=la")).await?;
    ensure!(slim.items.len() == 1 && slim.items[0].name_any() == "list-a");
    Ok(())
}

/// Watches start at a version, follow the selector, and carry the version of a deletion.
pub async fn watches(client: &Client, namespace: &str) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let start = maps.list(&ListParams::default()).await?.metadata.resource_version.context("no version")?;
    let params = WatchParams::default().labels("app=watched").timeout(20);
    let stream = maps.watch(&params, &start).await?.boxed();
    pin_mut!(stream);
    maps.create(&create(), &config("watch", "other")?).await?;
    let label = |app: &str| json!({ "metadata": { "labels": { "app": app } } });
    maps.patch("watch", &PatchParams::default(), &merge(&label("watched"))).await?;
    maps.patch("watch", &PatchParams::default(), &merge(&json!({ "data": { "k": "w" } }))).await?;
    let away = maps.patch("watch", &PatchParams::default(), &merge(&label("other"))).await?;
    maps.patch("watch", &PatchParams::default(), &merge(&label("watched"))).await?;
    maps.delete("watch", &DeleteParams::default()).await?;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        match stream.try_next().await?.context("the watch ended early")? {
            WatchEvent::Added(o) => seen.push(("added", o)),
            WatchEvent::Modified(o) => seen.push(("modified", o)),
            WatchEvent::Deleted(o) => seen.push(("deleted", o)),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(e) => bail!("{e:?}"),
        }
    }
    let kinds: Vec<&str> = seen.iter().map(|(k, _)| *k).collect();
    ensure!(kinds == ["added", "modified", "deleted", "added", "deleted"], "{kinds:?}");
    ensure!(seen[2].1.labels()["app"] == "watched", "an object that left the selector is shown as it was");
    ensure!(seen[2].1.resource_version() == away.resource_version());
    let versions: Vec<u64> = seen.iter().filter_map(|(_, o)| o.resource_version()?.parse().ok()).collect();
    ensure!(versions.is_sorted() && versions[4] > versions[3], "{versions:?}");
    Ok(())
}

fn service(name: &str, port: i64) -> Result<Service> {
    object(json!({ "metadata": { "name": name }, "spec": { "selector": { "app": "x" }, "ports": [{ "port": port }] } }))
}

/// The address is the server's, and stays.
pub async fn services(client: &Client, namespace: &str) -> Result<()> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let made = serde_json::to_value(services.create(&create(), &service("services", 80)?).await?)?;
    let ip = made["spec"]["clusterIP"].clone();
    ensure!(ip.is_string() && made["spec"]["clusterIPs"] == json!([ip]));
    ensure!(made["spec"]["ports"] == json!([{ "port": 80, "protocol": "TCP", "targetPort": 80 }]));
    ensure!(made["spec"]["type"] == "ClusterIP" && made["spec"]["sessionAffinity"] == "None");
    let next = serde_json::to_value(services.replace("services", &create(), &service("services", 81)?).await?)?;
    ensure!(next["spec"]["clusterIP"] == ip && next["spec"]["ports"][0]["port"] == 81);
    let move_it = json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"] } });
    refused(services.patch("services", &PatchParams::default(), &merge(&move_it)).await, 422, "Invalid")?;
    refused(services.create(&create(), &service("1-begins-with-a-digit", 80)?).await, 422, "Invalid")
}

/// A stateful set as the operator makes them.
pub fn stateful_set(name: &str, replicas: i64, image: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "replicas": replicas, "serviceName": name, "podManagementPolicy": "Parallel",
            "updateStrategy": { "type": "OnDelete" }, "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name, "tier": "t" } },
                "spec": { "containers": [{
                    "name": "main", "image": image, "env": [{ "name": "A", "value": "b" }],
                    "resources": { "limits": { "memory": "1024Mi", "cpu": "0.5" } },
                    "ports": [{ "containerPort": 9090 }],
                    "readinessProbe": { "httpGet": { "path": "/health", "port": 9090 } },
                    "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                }] },
            },
            "volumeClaimTemplates": [{
                "metadata": { "name": "data", "labels": { "claim": "yes" } },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1024Mi" } } },
            }],
        },
    })
}

/// What is filled in and what cannot be changed.
pub async fn stateful_sets(client: &Client, namespace: &str) -> Result<()> {
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let made = sets.create(&create(), &object(stateful_set("frozen", 0, "image:1"))?).await?;
    let seen = serde_json::to_value(&made)?;
    let template = &seen["spec"]["template"]["spec"];
    let main = &template["containers"][0];
    for (what, is, should) in [
        ("limits", &main["resources"]["limits"], json!({ "memory": "1Gi", "cpu": "500m" })),
        ("requests", &main["resources"]["requests"], Value::Null),
        ("ports", &main["ports"], json!([{ "containerPort": 9090, "protocol": "TCP" }])),
        ("pull policy", &main["imagePullPolicy"], json!("IfNotPresent")),
        ("message policy", &main["terminationMessagePolicy"], json!("File")),
        ("message path", &main["terminationMessagePath"], json!("/dev/termination-log")),
        (
            "probe",
            &main["readinessProbe"],
            json!({
                "httpGet": { "path": "/health", "port": 9090, "scheme": "HTTP" },
                "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
            }),
        ),
        ("restart policy", &template["restartPolicy"], json!("Always")),
        ("grace", &template["terminationGracePeriodSeconds"], json!(30)),
        ("security", &template["securityContext"], json!({})),
        ("history", &seen["spec"]["revisionHistoryLimit"], json!(10)),
        (
            "retention",
            &seen["spec"]["persistentVolumeClaimRetentionPolicy"],
            json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }),
        ),
        (
            "claims",
            &seen["spec"]["volumeClaimTemplates"],
            json!([{
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data", "labels": { "claim": "yes" } },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } }, "volumeMode": "Filesystem" },
                "status": { "phase": "Pending" },
            }]),
        ),
    ] {
        ensure!(*is == should, "{what}: {is}");
    }
    let mut same = object::<StatefulSet>(stateful_set("frozen", 0, "image:1"))?;
    // A real control plane writes the status of the set meanwhile.
    let written = loop {
        same.metadata.resource_version = sets.get("frozen").await?.resource_version();
        match sets.replace("frozen", &create(), &same).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            written => break written?,
        }
    };
    ensure!(written.metadata.generation == made.metadata.generation, "writing the same form again changed the spec");
    let patch = |patch: Value| {
        let sets = sets.clone();
        async move { sets.patch("frozen", &PatchParams::default(), &merge(&patch)).await }
    };
    refused(patch(json!({ "spec": { "serviceName": "other" } })).await, 422, "Invalid")?;
    refused(patch(json!({ "spec": { "podManagementPolicy": "OrderedReady" } })).await, 422, "Invalid")?;
    refused(patch(json!({ "spec": { "volumeClaimTemplates": null } })).await, 422, "Invalid")?;
    refused(
        patch(json!({ "spec": { "template": { "metadata": { "labels": { "app": "other" } } } } })).await,
        422,
        "Invalid",
    )?;
    patch(json!({ "spec": {
        "replicas": 0, "minReadySeconds": 1, "template": { "metadata": { "annotations": { "a": "b" } } },
        "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Delete" }, "updateStrategy": { "type": "OnDelete" },
    } }))
    .await?;
    Ok(())
}

fn pod(name: &str, app: &str) -> Result<Pod> {
    object(json!({
        "metadata": { "name": name, "labels": { "app": app } },
        "spec": { "containers": [{ "name": "main", "image": "image:1" }], "automountServiceAccountToken": false },
    }))
}

/// Eviction asks the budget, and takes preconditions. Not part of [`api`]: it writes the budget's status itself, so it
/// needs an API server without a disruption controller.
pub async fn evictions(client: &Client, namespace: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
    let budget = json!({
        "metadata": { "name": "evictions" },
        "spec": { "maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": { "matchLabels": { "app": "evictions" } } },
    });
    budgets.create(&create(), &object(budget)?).await?;
    for name in ["evict-a", "evict-b"] {
        pods.create(&create(), &pod(name, "evictions")?).await?;
        let running =
            json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
        pods.patch_status(name, &PatchParams::default(), &merge(&running)).await?;
    }
    // `Api::evict` cannot do this: it writes `delete_options`, which the API server drops, and the precondition with it.
    let evict_only = async |name: &str, uid: &str| -> Result<Value, Error> {
        let body = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name, "namespace": namespace },
            "deleteOptions": { "preconditions": { "uid": uid } },
        });
        let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction"))
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .map_err(Error::HttpError)?;
        client.request(request).await
    };
    refused(pods.evict("absent", &EvictParams::default()).await, 404, "NotFound")?;
    refused(pods.evict("evict-a", &EvictParams::default()).await, 429, "TooManyRequests").context("no room")?;
    let allowed = json!({ "status": {
        "disruptionsAllowed": 1, "observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2,
    } });
    budgets.patch_status("evictions", &PatchParams::default(), &merge(&allowed)).await?;
    let uid = pods.get("evict-a").await?.uid().context("no uid")?;
    let other = pods.get("evict-b").await?.uid().context("no uid")?;
    refused(evict_only("evict-a", &other).await, 409, "Conflict").context("another pod of that name")?;
    let budget = serde_json::to_value(budgets.get("evictions").await?)?;
    ensure!(budget["status"]["disruptionsAllowed"] == 0, "a refused eviction charges the budget: {budget}");
    budgets.patch_status("evictions", &PatchParams::default(), &merge(&allowed)).await?;
    evict_only("evict-a", &uid).await.context("room for one")?;
    let budget = serde_json::to_value(budgets.get("evictions").await?)?;
    ensure!(budget["status"]["disruptionsAllowed"] == 0, "{budget}");
    refused(pods.evict("evict-b", &EvictParams::default()).await, 429, "TooManyRequests")
        .context("room for no more")?;
    let unready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    pods.patch_status("evict-b", &PatchParams::default(), &merge(&unready)).await?;
    refused(evict_only("evict-b", &uid).await, 429, "TooManyRequests").context("another, unready pod of that name")?;
    pods.evict("evict-b", &EvictParams::default()).await.context("an unready pod may always go")?;
    budgets.delete("evictions", &DeleteParams::default()).await?;
    Ok(())
}

/// Claims, secrets and events.
pub async fn others(client: &Client, namespace: &str) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = json!({
        "metadata": { "name": "others" },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "none-such", "resources": { "requests": { "storage": "1Gi" } } },
    });
    claims.create(&create(), &object(claim)?).await?;
    let patch = |patch: Value| {
        let claims = claims.clone();
        async move { claims.patch("others", &PatchParams::default(), &merge(&patch)).await }
    };
    refused(patch(json!({ "spec": { "accessModes": ["ReadWriteMany"] } })).await, 422, "Invalid")?;
    let size = |size: &str| json!({ "spec": { "resources": { "requests": { "storage": size } } } });
    let grown = patch(size("2Gi")).await;
    ensure!(grown.is_err(), "an unbound claim, or one of a class that cannot grow, grew");
    claims.delete("others", &DeleteParams::default()).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets
        .create(&create(), &object(json!({ "metadata": { "name": "others" }, "stringData": { "a": "b" } }))?)
        .await?;
    ensure!(secret.data.context("no data")?["a"].0 == b"b" && secret.type_.as_deref() == Some("Opaque"));
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let event = json!({
        "metadata": { "name": "others" }, "reason": "R", "message": "m", "type": "Normal",
        "involvedObject": { "apiVersion": "v1", "kind": "Secret", "name": "others", "namespace": namespace },
    });
    events.create(&create(), &object(event)?).await?;
    Ok(())
}

/// How a bound claim may change. Not part of [`api`]: it writes the claim's status itself, so it needs an API server
/// without a volume controller. Leaves the storage class `conformance` behind.
pub async fn claims(client: &Client, namespace: &str) -> Result<()> {
    let classes: Api<StorageClass> = Api::all(client.clone());
    if classes.get_opt("conformance").await?.is_none() {
        let class =
            json!({ "metadata": { "name": "conformance" }, "provisioner": "none", "allowVolumeExpansion": true });
        classes.create(&create(), &object(class)?).await?;
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = |class: &str| {
        json!({
            "metadata": { "name": format!("claim-{class}") },
            "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": { "requests": { "storage": "2Gi" } } },
        })
    };
    let request = async |class: &str, size: &str| {
        let patch = json!({ "spec": { "resources": { "requests": { "storage": size } } } });
        claims.patch(&format!("claim-{class}"), &PatchParams::default(), &merge(&patch)).await
    };
    for class in ["conformance", "no-such-class"] {
        claims.create(&create(), &object(claim(class))?).await?;
        refused(request(class, "1Gi").await, 422, "Invalid").context("an unbound claim shrinks")?;
        let bound = json!({ "status": { "phase": "Bound", "capacity": { "storage": "2Gi" } } });
        claims.patch_status(&format!("claim-{class}"), &PatchParams::default(), &merge(&bound)).await?;
    }
    request("conformance", "8Gi").await.context("a growth")?;
    request("conformance", "4Gi").await.context("a growth taken back in part")?;
    refused(request("conformance", "2Gi").await, 422, "Invalid").context("down to the capacity")?;
    refused(request("conformance", "1Gi").await, 422, "Invalid").context("below the capacity")?;
    refused(request("no-such-class", "8Gi").await, 403, "Forbidden").context("a class that cannot grow")
}

/// Looks again every quarter of a second, up to a minute, until the condition holds.
async fn eventually<F: Future<Output = Result<bool>>>(what: &str, holds: impl Fn() -> F) -> Result<()> {
    for _ in 0..240 {
        if holds().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    bail!("never: {what}")
}

/// All checks of the controllers around the API server. No node is needed.
pub async fn controllers(client: &Client, namespace: &str) -> Result<()> {
    collection(client, namespace).await.context("garbage collection")?;
    Box::pin(set_controller(client, namespace)).await.context("stateful set controller")
}

/// Dependents go with their owner, or are orphaned.
pub async fn collection(client: &Client, namespace: &str) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    for (policy, survives) in [
        (PropagationPolicy::Background, false),
        (PropagationPolicy::Foreground, false),
        (PropagationPolicy::Orphan, true),
    ] {
        let (owner, child) = (format!("owner-{policy:?}").to_lowercase(), format!("owned-{policy:?}").to_lowercase());
        let made = maps.create(&create(), &config(&owner, "gc")?).await?;
        let mut dependent = config(&child, "gc")?;
        dependent.metadata.owner_references = Some(object(json!([{
            "apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": made.uid(), "controller": true, "blockOwnerDeletion": true,
        }]))?);
        maps.create(&create(), &dependent).await?;
        // The real collector learns of new objects through watches: give them a moment.
        tokio::time::sleep(Duration::from_secs(1)).await;
        maps.delete(&owner, &DeleteParams { propagation_policy: Some(policy.clone()), ..DeleteParams::default() })
            .await?;
        eventually("the owner goes", || async { Ok(maps.get_opt(&owner).await?.is_none()) }).await?;
        eventually("the dependent goes, or is free", || async {
            Ok(match maps.get_opt(&child).await? {
                None => !survives,
                Some(left) => survives && left.owner_references().is_empty(),
            })
        })
        .await
        .with_context(|| format!("{policy:?}"))?;
    }
    Ok(())
}

/// Parallel pods, claims, revisions, `OnDelete`, adoption.
pub async fn set_controller(client: &Client, namespace: &str) -> Result<()> {
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let names = async || -> Result<Vec<String>> {
        let list = pods.list(&ListParams::default().labels("app=set")).await?;
        Ok(list.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).map(ResourceExt::name_any).collect())
    };
    let made = sets.create(&create(), &object(stateful_set("set", 3, "image:1"))?).await?;
    eventually("three pods", || async { Ok(names().await? == ["set-0", "set-1", "set-2"]) }).await?;
    let settled = |generation: i64| {
        let sets = sets.clone();
        async move {
            let status = sets.get("set").await?.status.unwrap_or_default();
            Ok(status.observed_generation == Some(generation) && status.update_revision.is_some())
        }
    };
    eventually("status", || settled(1)).await?;
    let first = sets.get("set").await?.status.context("no status")?;
    ensure!(first.replicas == 3 && first.current_revision == first.update_revision);
    let zero = pods.get("set-0").await?;
    let labels = zero.labels();
    ensure!(Some(&labels["controller-revision-hash"]) == first.update_revision.as_ref(), "{labels:?}");
    ensure!(labels["statefulset.kubernetes.io/pod-name"] == "set-0" && labels["tier"] == "t");
    ensure!(labels["apps.kubernetes.io/pod-index"] == "0");
    let owner = &zero.owner_references()[0];
    ensure!(Some(&owner.uid) == made.uid().as_ref() && owner.controller == Some(true) && owner.kind == "StatefulSet");
    let spec = zero.spec.clone().context("no spec")?;
    ensure!(spec.hostname.as_deref() == Some("set-0") && spec.subdomain.as_deref() == Some("set"));
    let volume = spec.volumes.iter().flatten().find(|v| v.name == "data").context("no volume")?;
    ensure!(volume.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name == "data-set-0"));
    let claim = claims.get("data-set-0").await?;
    ensure!(claim.labels().get("claim").map(String::as_str) == Some("yes"), "{:?}", claim.labels());
    ensure!(claim.labels().get("app").map(String::as_str) == Some("set"), "{:?}", claim.labels());
    ensure!(claim.owner_references().is_empty());
    ensure!(claim.finalizers().contains(&"kubernetes.io/pvc-protection".to_owned()));

    // A new template moves updateRevision only; a pod that is deleted comes back with it.
    let image =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "main", "image": "image:2" }] } } } });
    sets.patch("set", &PatchParams::default(), &Patch::Merge(&image)).await.map(|_| ()).or_else(|e| match e {
        // Volume mounts of the other containers are gone with this patch: that is fine with both.
        Error::Api(status) => bail!("{status:?}"),
        other => Err(other.into()),
    })?;
    eventually("the new generation is observed", || settled(2)).await?;
    let second = sets.get("set").await?.status.context("no status")?;
    ensure!(second.current_revision == first.current_revision && second.update_revision != first.update_revision);
    ensure!(pods.get("set-1").await?.uid().is_some() && names().await?.len() == 3, "OnDelete leaves pods alone");
    let old = pods.get("set-1").await?;
    pods.delete("set-1", &DeleteParams::default()).await?;
    eventually("the pod comes back", || async {
        Ok(pods.get_opt("set-1").await?.is_some_and(|p| p.uid() != old.uid()))
    })
    .await?;
    let new = pods.get("set-1").await?;
    ensure!(Some(&new.labels()["controller-revision-hash"]) == second.update_revision.as_ref());

    // Orphaned pods are adopted by a set of the same name, and not restarted if the template is the same.
    let current = sets.get("set").await?;
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        preconditions: Some(Preconditions { uid: current.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    sets.delete("set", &orphan).await?;
    eventually("the set goes", || async { Ok(sets.get_opt("set").await?.is_none()) }).await?;
    ensure!(pods.get("set-1").await?.owner_references().is_empty() && names().await?.len() == 3);
    let mut again = current.clone();
    again.metadata = kube::api::ObjectMeta {
        name: Some("set".into()),
        labels: current.metadata.labels.clone(),
        ..kube::api::ObjectMeta::default()
    };
    again.status = None;
    let again = sets.create(&create(), &again).await?;
    eventually("the pods are adopted", || async {
        let all = pods.list(&ListParams::default().labels("app=set")).await?;
        Ok(all.iter().all(|p| p.owner_references().iter().any(|o| Some(&o.uid) == again.uid().as_ref())))
    })
    .await?;
    eventually("status", || settled(1)).await?;
    let third = sets.get("set").await?.status.context("no status")?;
    ensure!(third.update_revision == second.update_revision, "the same template makes the same revision");
    ensure!(pods.get("set-1").await?.uid() == new.uid() && names().await?.len() == 3);

    // Scaled in from the top; claims stay.
    sets.patch("set", &PatchParams::default(), &merge(&json!({ "spec": { "replicas": 1 } }))).await?;
    eventually("one pod", || async { Ok(names().await? == ["set-0"]) }).await?;
    ensure!(claims.get_opt("data-set-2").await?.is_some_and(|c| c.metadata.deletion_timestamp.is_none()));
    sets.delete("set", &DeleteParams::background()).await?;
    eventually("all pods go", || async { Ok(names().await?.is_empty()) }).await?;
    Ok(())
}
