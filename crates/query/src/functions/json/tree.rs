//! A JSON value that can be changed, and the ways in which it is written.

use super::value::{Kind, elements, members, quoted};

/// Blanks of a level in lines.
const INDENT: usize = 4;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tree {
    /// Members in their order.
    Object(Vec<(String, Tree)>),
    Array(Vec<Tree>),
    /// Text that is neither, as it is written.
    Scalar(String),
}

impl Tree {
    /// Of JSON text.
    pub(super) fn of(json: &str) -> Tree {
        match Kind::of(json) {
            Kind::Object => {
                let members = members(json).unwrap_or_default();
                Tree::Object(members.into_iter().map(|(name, value)| (name, Tree::of(value.get()))).collect())
            }
            Kind::Array => {
                Tree::Array(elements(json).unwrap_or_default().iter().map(|value| Tree::of(value.get())).collect())
            }
            _ => Tree::Scalar(json.trim_ascii().to_owned()),
        }
    }

    /// As a jsonb is printed; what was one text of a jsonb is so again.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        self.put(&mut out, ", ", ": ");
        out
    }

    /// Without blanks.
    pub(super) fn compact(&self) -> String {
        let mut out = String::new();
        self.put(&mut out, ",", ":");
        out
    }

    fn put(&self, out: &mut String, comma: &str, colon: &str) {
        match self {
            Tree::Object(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { comma } else { "" });
                    out.push_str(&quoted(name));
                    out.push_str(colon);
                    value.put(out, comma, colon);
                }
                out.push('}');
            }
            Tree::Array(values) => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    out.push_str(if at > 0 { comma } else { "" });
                    value.put(out, comma, colon);
                }
                out.push(']');
            }
            Tree::Scalar(text) => out.push_str(text),
        }
    }

    /// In lines, a level further in than what holds it.
    pub(super) fn lines(&self) -> String {
        let mut out = String::new();
        self.put_lines(&mut out, 0);
        out
    }

    fn put_lines(&self, out: &mut String, level: usize) {
        let new_line = |out: &mut String, level: usize| {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', INDENT * level));
        };
        match self {
            Tree::Object(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    new_line(out, level + 1);
                    out.push_str(&quoted(name));
                    out.push_str(": ");
                    value.put_lines(out, level + 1);
                }
                new_line(out, level);
                out.push('}');
            }
            Tree::Array(values) => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    new_line(out, level + 1);
                    value.put_lines(out, level + 1);
                }
                new_line(out, level);
                out.push(']');
            }
            Tree::Scalar(text) => out.push_str(text),
        }
    }

    /// Without the members that are `null`, at whatever depth; elements stay.
    pub(super) fn without_nulls(self) -> Tree {
        match self {
            Tree::Object(members) => {
                let kept = members.into_iter().filter(|(_, value)| !value.is_null());
                Tree::Object(kept.map(|(name, value)| (name, value.without_nulls())).collect())
            }
            Tree::Array(values) => Tree::Array(values.into_iter().map(Tree::without_nulls).collect()),
            scalar => scalar,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Tree::Scalar(text) if text == "null")
    }

    /// Whether it is the string `text`.
    pub(super) fn is_string(&self, text: &str) -> bool {
        matches!(self, Tree::Scalar(own) if Kind::of(own) == Kind::String && *own == quoted(text))
    }
}

/// Puts a member where a jsonb has it: by the length of its name, then its bytes; in the place of one of that name.
pub(super) fn put_member(members: &mut Vec<(String, Tree)>, name: String, value: Tree) {
    match members.binary_search_by(|(known, _)| (known.len(), known.as_str()).cmp(&(name.len(), name.as_str()))) {
        Ok(at) => members[at].1 = value,
        Err(at) => members.insert(at, (name, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_written_as_it_was() {
        for json in [r#"{"a": [1, "x", null, {}], "bb": {"c": true}}"#, "[]", r#""te\"xt\n""#, "3.50"] {
            assert_eq!(Tree::of(json).text(), json);
        }
        assert_eq!(Tree::of(r#"{"a" : [1,  2], "a":null}"#).compact(), r#"{"a":[1,2],"a":null}"#);
        assert!(Tree::of(r#""a""#).is_string("a") && !Tree::of("1").is_string("1"));
    }

    #[test]
    fn lines_are_postgresqls() {
        let lines = Tree::of(r#"{"a": [1, {"b": null}], "c": {}}"#).lines();
        assert_eq!(
            lines,
            "{\n    \"a\": [\n        1,\n        {\n            \"b\": null\n        }\n    ],\n    \"c\": {\n    }\n}"
        );
    }

    #[test]
    fn members_stay_in_their_order() {
        let Tree::Object(mut members) = Tree::of(r#"{"b": 1, "aa": 2}"#) else { panic!("an object") };
        for name in ["c", "a", "aa", "ab"] {
            put_member(&mut members, name.to_owned(), Tree::Scalar("9".to_owned()));
        }
        assert_eq!(Tree::Object(members).text(), r#"{"a": 9, "b": 1, "c": 9, "aa": 9, "ab": 9}"#);
    }
}
