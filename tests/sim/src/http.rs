//! Requests and answers.

use std::collections::BTreeMap;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, Service};

use crate::evict::evict;
use crate::faults::Fault;
use crate::json::text;
use crate::kinds::Kind;
use crate::log::{Entry, Verb};
use crate::patch;
use crate::refusal::Refusal;
use crate::selector::Selector;
use crate::sim::{Session, State};
use crate::store::{Key, Part, Store, list_body};
use crate::watch;

/// How long clients wait for an answer. Those of kube wait for 295 s; the model's clock, and what runs by it, need not.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// The API server as one session sees it.
#[derive(Clone)]
pub(crate) struct Server(pub(crate) Session);

impl Service<Request<Body>> for Server {
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let session = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            serve(&session, &parts, &body).await
        })
    }
}

/// One understood request.
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    pub(crate) verb: Verb,
    pub(crate) subresource: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) selector: Selector,
    /// Whether only metadata is asked for.
    pub(crate) partial: bool,
    content_type: String,
}

impl Call {
    pub(crate) fn param(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Whether an object is among those asked for.
    pub(crate) fn covers(&self, key: &Key, object: &Value) -> bool {
        key.group == self.key.group
            && key.plural == self.key.plural
            && (self.key.namespace.is_empty() || key.namespace == self.key.namespace)
            && self.selector.matches(object)
    }

    /// The object in the form asked for.
    pub(crate) fn present(&self, object: &Value) -> Value {
        if self.partial {
            let meta = &object["metadata"];
            return json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": meta });
        }
        object.clone()
    }
}

fn broken() -> BoxError {
    Box::new(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by the model of the API server"))
}

fn answer(code: u16, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string())).map_err(Into::into).boxed_unsync();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

async fn serve(session: &Session, parts: &http::request::Parts, body: &[u8]) -> Result<Answer, BoxError> {
    if session.is_cut() {
        return Err(broken());
    }
    let mut call = match understand(&session.sim.state().store, parts) {
        Ok(Ok(call)) => call,
        Ok(Err(discovery)) => return Ok(answer(200, &discovery)),
        Err(refusal) => return Ok(answer(refusal.code, &refusal.body())),
    };
    if call.verb == Verb::Create && call.key.name.is_empty() {
        // The path of a creation has no name; its object has, unless it is to be generated.
        let object: Value = serde_json::from_slice(body).unwrap_or_default();
        text(&object, "/metadata/name").clone_into(&mut call.key.name);
    }
    let (fault, result) = {
        let mut state = session.sim.state();
        let fault = state.sessions[session.id].meet(call.verb, &call.key, &call.subresource);
        let before = state.store.version;
        let result = match fault {
            Some(Fault::CutBefore | Fault::Disconnect | Fault::Hang | Fault::TimeOut) => None,
            Some(Fault::Answer(code)) => Some(Err(Refusal::of(code, "refused on purpose"))),
            Some(Fault::CutAfter | Fault::LoseReply | Fault::ExpireWatches) | None => {
                Some(act(&mut state, session.id, &call, body))
            }
        };
        if fault == Some(Fault::ExpireWatches) {
            state.sessions[session.id].expired += 1;
        }
        let entry = Entry {
            seq: state.log.len(),
            user: state.sessions[session.id].user.clone(),
            session: session.id,
            verb: call.verb,
            key: call.key.clone(),
            subresource: call.subresource.clone(),
            code: match &result {
                None => 0,
                Some(Ok((code, _))) => *code,
                Some(Err(refusal)) => refusal.code,
            },
            changed: state.store.version != before,
        };
        state.log.push(entry);
        (fault, result)
    };
    session.sim.0.wake.send_replace(());
    match fault {
        Some(Fault::CutBefore | Fault::CutAfter) => {
            session.cut();
            return Err(broken());
        }
        Some(Fault::Disconnect | Fault::LoseReply) => return Err(broken()),
        Some(Fault::Hang) => {
            session.ended().await;
            return Err(broken());
        }
        Some(Fault::TimeOut) => {
            session.sim.state().hanging += 1;
            tokio::time::sleep(CLIENT_PATIENCE).await;
            session.sim.state().hanging -= 1;
            return Err(broken());
        }
        Some(Fault::Answer(_) | Fault::ExpireWatches) | None => {}
    }
    match result {
        Some(Err(refusal)) => Ok(answer(refusal.code, &refusal.body())),
        Some(Ok(_)) if call.verb == Verb::Watch => Ok(watch::stream(session.clone(), call)),
        Some(Ok((code, value))) => Ok(answer(code, &value)),
        None => Err(broken()),
    }
}

/// Takes a request apart; an answer of its own if it is about the API itself.
fn understand(store: &Store, parts: &http::request::Parts) -> Result<Result<Call, Value>, Refusal> {
    let path = parts.uri.path().trim_matches('/');
    let segments: Vec<&str> = path.split('/').collect();
    let unknown = || Refusal::of(404, "the server could not find the requested resource");
    let (group, version, rest) = match segments.as_slice() {
        ["version"] => {
            return Ok(Err(
                json!({ "major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "" }),
            ));
        }
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Err(unknown()),
    };
    if rest.is_empty() {
        return discover(store, group, version).map(Err).ok_or_else(unknown);
    }
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) => {
            (*namespace, rest)
        }
        _ => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, subresource] => (*plural, *name, *subresource),
        _ => return Err(unknown()),
    };
    let kind = store.kind(group, plural).filter(|k| k.version == version).ok_or_else(unknown)?.clone();
    let query: BTreeMap<String, String> =
        parts.uri.query().unwrap_or_default().split('&').filter_map(parameter).collect();
    let get = |name: &str| query.get(name).map_or("", String::as_str);
    let verb = match (&parts.method, name.is_empty()) {
        (&Method::GET, false) => Verb::Get,
        (&Method::GET, true) if matches!(get("watch"), "true" | "1") => Verb::Watch,
        (&Method::GET, true) => Verb::List,
        (&Method::POST, _) => Verb::Create,
        (&Method::PUT, false) => Verb::Update,
        (&Method::PATCH, false) => Verb::Patch,
        (&Method::DELETE, false) => Verb::Delete,
        _ => return Err(Refusal::of(405, "the server does not allow this method on the requested resource")),
    };
    let known = match subresource {
        "" => name.is_empty() || verb != Verb::Create,
        "status" => kind.status && matches!(verb, Verb::Get | Verb::Update | Verb::Patch),
        "eviction" => kind.plural == "pods" && verb == Verb::Create,
        _ => false,
    };
    if !known || kind.namespaced && namespace.is_empty() && !matches!(verb, Verb::List | Verb::Watch) {
        return Err(unknown());
    }
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    Ok(Ok(Call {
        key: Key::new(&kind, namespace, name),
        selector: Selector::parse(get("labelSelector"), get("fieldSelector"))?,
        verb,
        subresource: subresource.into(),
        partial: header("accept").contains("as=PartialObjectMetadata"),
        content_type: header("content-type"),
        query,
        kind,
    }))
}

/// One `key=value` of a query, decoded.
fn parameter(pair: &str) -> Option<(String, String)> {
    let decode = |s: &str| {
        let bytes = s.as_bytes();
        let (mut out, mut i) = (Vec::new(), 0);
        while i < bytes.len() {
            let hex = s.get(i + 1..i + 3).and_then(|h| u8::from_str_radix(h, 16).ok());
            match (bytes[i], hex) {
                (b'%', Some(byte)) => {
                    out.push(byte);
                    i += 2;
                }
                (b'+', _) => out.push(b' '),
                (byte, _) => out.push(byte),
            }
            i += 1;
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let (k, v) = pair.split_once('=')?;
    Some((decode(k), decode(v)))
}

/// The resources of a group and version.
fn discover(store: &Store, group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<&Kind> = store.kinds.iter().filter(|k| k.group == group && k.version == version).collect();
    let resource = |k: &&Kind| {
        json!({
            "name": k.plural, "singularName": k.kind.to_lowercase(), "namespaced": k.namespaced, "kind": k.kind,
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        })
    };
    let first = kinds.first()?;
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(),
        "resources": kinds.iter().map(resource).collect::<Vec<_>>(),
    }))
}

/// Does what was asked. A watch is only checked here: its answer is a stream.
fn act(state: &mut State, session: usize, call: &Call, body: &[u8]) -> Result<(u16, Value), Refusal> {
    let visible = state.sessions[session].view.version(state.store.version);
    if call.param("dryRun") == "All" {
        return write(&mut state.store.clone(), call, body);
    }
    match call.verb {
        Verb::Get => {
            let found = state.store.get(&call.key).ok_or_else(|| Refusal::not_found(&call.kind, &call.key.name))?;
            Ok((200, call.present(found)))
        }
        Verb::List => {
            let items = |objects: &BTreeMap<Key, std::sync::Arc<Value>>| -> Vec<Value> {
                objects.iter().filter(|(k, o)| call.covers(k, o)).map(|(_, o)| call.present(o)).collect()
            };
            let items = if visible == state.store.version {
                items(&state.store.objects)
            } else {
                items(&state.store.at(visible))
            };
            let mut body = list_body(&call.kind, visible, &items);
            if call.partial {
                body["kind"] = "PartialObjectMetadataList".into();
                body["apiVersion"] = "meta.k8s.io/v1".into();
            }
            Ok((200, body))
        }
        Verb::Watch => Ok((200, Value::Null)),
        _ => write(&mut state.store, call, body),
    }
}

fn write(store: &mut Store, call: &Call, body: &[u8]) -> Result<(u16, Value), Refusal> {
    let (kind, key) = (&call.kind, &call.key);
    let parse = || -> Result<Value, Refusal> {
        let value = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(body) };
        value.map_err(|e| Refusal::of(400, format!("the object provided is unrecognized: {e}")))
    };
    let part = if call.subresource == "status" { Part::Status } else { Part::Main };
    match (call.verb, call.subresource.as_str()) {
        (Verb::Create, "eviction") => {
            evict(store, &key.namespace, &key.name, &parse()?)?;
            Ok((201, json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })))
        }
        (Verb::Create, _) => store.create(kind, &key.namespace, parse()?).map(|o| (201, call.present(&o))),
        (Verb::Update, _) => store.update(kind, key, parse()?, part).map(|o| (200, call.present(&o))),
        (Verb::Patch, _) => {
            if call.content_type.starts_with("application/apply-patch") {
                return Err(Refusal::of(415, "server-side apply is not served by the model of the API server"));
            }
            let current = store.get(key).cloned().ok_or_else(|| Refusal::not_found(kind, &key.name))?;
            let mut patched = patch::apply(kind, &call.content_type, &current, body)?;
            if text(&patched, "/metadata/resourceVersion").is_empty() {
                patched["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
            }
            store.update(kind, key, patched, part).map(|o| (200, call.present(&o)))
        }
        _ => {
            let mut options = parse()?;
            for field in ["propagationPolicy", "gracePeriodSeconds"] {
                if !call.param(field).is_empty() && options.get(field).is_none() {
                    let value = call.param(field);
                    options[field] = value.parse::<i64>().map_or_else(|_| value.into(), Value::from);
                }
            }
            let (object, gone) = store.delete(kind, key, &options)?;
            if gone && kind.plural != "pods" {
                let details = json!({ "name": key.name, "group": kind.group, "kind": kind.plural, "uid": object["metadata"]["uid"] });
                let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
                return Ok((200, body));
            }
            Ok((200, call.present(&object)))
        }
    }
}
