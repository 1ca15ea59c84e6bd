//! Short ways to read objects.

use serde_json::Value;

/// The string at a JSON pointer, or "".
pub(crate) fn text<'a>(v: &'a Value, pointer: &str) -> &'a str {
    v.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a JSON pointer, or the default.
pub(crate) fn int(v: &Value, pointer: &str, default: i64) -> i64 {
    v.pointer(pointer).and_then(Value::as_i64).unwrap_or(default)
}

/// The list at a JSON pointer, or an empty one.
pub(crate) fn list<'a>(v: &'a Value, pointer: &str) -> &'a [Value] {
    v.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Sets `object[key]` where it is missing or null.
pub(crate) fn default(object: &mut Value, key: &str, value: Value) {
    if object.get(key).is_none_or(Value::is_null) {
        object[key] = value;
    }
}

/// Removes a key of an object, if there is one.
pub(crate) fn remove(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(key);
    }
}

/// The list at `object[key]`, to be changed in place; empty if it is not there.
pub(crate) fn each_mut<'a>(object: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Whether the object is being deleted.
pub(crate) fn deleting(v: &Value) -> bool {
    v.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null())
}

/// The status of a condition, or "".
pub(crate) fn condition<'a>(v: &'a Value, kind: &str) -> &'a str {
    list(v, "/status/conditions").iter().find(|c| text(c, "/type") == kind).map_or("", |c| text(c, "/status"))
}

/// The uid of the controller owner, or "".
pub(crate) fn controller_uid(v: &Value) -> &str {
    list(v, "/metadata/ownerReferences").iter().find(|o| o["controller"] == true).map_or("", |o| text(o, "/uid"))
}

/// A stable 64-bit hash (FNV-1a): the same on every run and platform.
pub(crate) fn hash(parts: &[&str]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            h = (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    h
}
