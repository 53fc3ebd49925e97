//! JSON texts and their parts. A `jsonb` is the one text that PostgreSQL prints for it, so both types are read alike.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

impl Kind {
    /// What stands at the beginning of a text says it.
    pub(super) fn of(json: &str) -> Kind {
        match json.trim_ascii_start().as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') => Kind::Null,
            _ => Kind::Number,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
            Kind::Null => "null",
        }
    }
}

/// The member of that name, the last one of several; `None` for what is no object.
pub(super) fn member<'j>(json: &'j str, name: &str) -> Option<&'j str> {
    if Kind::of(json) != Kind::Object {
        return None;
    }
    let found = Member(name).deserialize(&mut serde_json::Deserializer::from_str(json)).ok()?;
    found.map(RawValue::get)
}

/// The element at an index, which counts from the end when it is negative; `None` for what is no array.
pub(super) fn element(json: &str, index: i64) -> Option<&str> {
    let elements = elements(json)?;
    let at = match usize::try_from(index) {
        Ok(at) => at,
        Err(_) => elements.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?,
    };
    elements.get(at).map(|element| element.get())
}

/// The elements of an array; `None` for what is none.
pub(super) fn elements(json: &str) -> Option<Vec<&RawValue>> {
    (Kind::of(json) == Kind::Array).then(|| serde_json::from_str(json).ok()).flatten()
}

/// The members of an object in their order; `None` for what is none.
pub(super) fn members(json: &str) -> Option<Vec<(String, &RawValue)>> {
    let read = |json| Members.deserialize(&mut serde_json::Deserializer::from_str(json)).ok();
    (Kind::of(json) == Kind::Object).then(|| read(json)).flatten()
}

/// The part at the end of a path of names and indexes.
pub(super) fn at_path<'j, 'p>(json: &'j str, path: impl IntoIterator<Item = Option<&'p str>>) -> Option<&'j str> {
    path.into_iter().try_fold(json.trim_ascii(), |json, step| match Kind::of(json) {
        Kind::Object => member(json, step?),
        Kind::Array => element(json, step?.trim().parse().ok()?),
        _ => None,
    })
}

/// The value as text: a string without its quotes, NULL for `null`.
pub(super) fn as_text(json: &str) -> Option<String> {
    match Kind::of(json) {
        Kind::Null => None,
        Kind::String => serde_json::from_str(json).ok(),
        _ => Some(json.trim_ascii().to_owned()),
    }
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// Whether `outer` contains `inner` as `jsonb` does: objects with at least its members, arrays with at least its elements.
pub(super) fn contains(outer: &str, inner: &str) -> bool {
    // An array contains a value beside it that is no array; only at the top.
    match (Kind::of(outer), Kind::of(inner)) {
        (Kind::Array, Kind::Object | Kind::Array) => contains_part(outer, inner),
        (Kind::Array, _) => elements(outer).is_some_and(|all| all.iter().any(|one| contains_part(one.get(), inner))),
        _ => contains_part(outer, inner),
    }
}

fn contains_part(outer: &str, inner: &str) -> bool {
    match (Kind::of(outer), Kind::of(inner)) {
        (Kind::Object, Kind::Object) => {
            let wanted = members(inner).unwrap_or_default();
            wanted
                .iter()
                .all(|(name, value)| member(outer, name).is_some_and(|found| contains_part(found, value.get())))
        }
        (Kind::Array, Kind::Array) => {
            let (found, wanted) = (elements(outer).unwrap_or_default(), elements(inner).unwrap_or_default());
            wanted.iter().all(|value| found.iter().any(|one| contains_part(one.get(), value.get())))
        }
        (Kind::Number, Kind::Number) => plain_number(outer) == plain_number(inner),
        (Kind::String, Kind::String) => as_text(outer) == as_text(inner),
        (one, other) => one == other && matches!(one, Kind::Boolean | Kind::Null) && outer.trim() == inner.trim(),
    }
}

/// A number without zeros behind its point.
pub(super) fn plain_number(number: &str) -> &str {
    let number = number.trim();
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// Whether an object has a member of that name, an array a string of that text, or a string is it.
pub(super) fn has(json: &str, name: &str) -> bool {
    match Kind::of(json) {
        Kind::Object => member(json, name).is_some(),
        Kind::Array => {
            let is =
                |one: &&RawValue| Kind::of(one.get()) == Kind::String && as_text(one.get()).as_deref() == Some(name);
            elements(json).is_some_and(|all| all.iter().any(is))
        }
        Kind::String => as_text(json).as_deref() == Some(name),
        _ => false,
    }
}

/// Reads one member and passes over the others.
struct Member<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Reads all members in their order.
struct Members;

impl<'de> DeserializeSeed<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found() {
        let json = r#" {"a": {"b": [1, "x", null]}, "a2": 1, "a": {"b": [10, "y\n", null]}} "#;
        let at = |path: &[&str]| at_path(json, path.iter().map(|step| Some(*step)));
        assert_eq!(at(&["a", "b", "0"]), Some("10"));
        assert_eq!(at(&["a", "b", "-1"]), Some("null"));
        assert_eq!(at(&["a", "b", "3"]), None);
        assert_eq!(at(&["a", "b", "x"]), None);
        assert_eq!(at(&["nosuch"]), None);
        assert_eq!(at(&["a", "b", "1"]).and_then(as_text).as_deref(), Some("y\n"));
        assert_eq!(at(&["a", "b", "2"]).and_then(as_text), None);
        assert_eq!(member("[1]", "a"), None);
        assert_eq!(element("{}", 0), None);
    }

    #[test]
    fn what_contains_what() {
        for (outer, inner, expected) in [
            (r#"{"a": 1, "b": [1, 2]}"#, r#"{"b": [2]}"#, true),
            (r#"{"a": 1}"#, r#"{"a": 1.0}"#, true),
            (r#"{"a": 1}"#, r#"{"a": 2}"#, false),
            (r#"[1, [2, 3]]"#, "[[3]]", true),
            ("[1, 2]", "1", true),
            ("[[1], 2]", "1", false),
            (r#"{"a": [1]}"#, r#"{"a": 1}"#, false),
            ("[]", "{}", false),
            (r#""x""#, r#""x""#, true),
            ("true", "false", false),
            ("[1]", "[]", true),
        ] {
            assert_eq!(contains(outer, inner), expected, "{outer} @> {inner}");
        }
        assert!(has(r#"["a", 1]"#, "a") && has(r#"{"a": null}"#, "a") && has(r#""a""#, "a"));
        assert!(!has(r#"[1]"#, "1") && !has("1", "1"));
    }
}
