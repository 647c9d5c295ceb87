//! Strict reading: an object whose every member must be taken, so that nothing a client said is lost unseen.
//!
//! Values stay slices of the body until they are asked for, which keeps tool inputs and schemas byte for byte: the
//! order of a schema's properties is something a model sees.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::api::Api;
use super::neutral::{Head, Json};

/// The result of every reader.
pub type Read<T> = Result<T, Untranslatable>;

/// A field that has no counterpart: the client's, and why; or, of an answer, the upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Untranslatable {
    /// Path of the field, as in `messages[2].content[0].type`; empty for the whole body.
    pub path: String,
    why: Cow<'static, str>,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(in crate::dialect) struct Field<'a> {
    path: String,
    raw: &'a str,
    /// The API that it is read for.
    target: &'static Api,
}

/// An object whose members are taken one by one. A member that is null counts as absent.
pub(in crate::dialect) struct Object<'a> {
    path: String,
    members: Vec<(Cow<'a, str>, &'a str)>,
    target: &'static Api,
}

impl<'a> Field<'a> {
    /// A whole body, read for this API.
    pub(in crate::dialect) fn body(body: &'a [u8], target: &'static Api) -> Read<Self> {
        match serde_json::from_slice::<&RawValue>(body) {
            Ok(raw) => Ok(Self { path: String::new(), raw: raw.get(), target }),
            Err(_) => Err(Untranslatable::new("", "is not JSON")),
        }
    }

    /// Returns true if it is a text, and one of these.
    pub(in crate::dialect) fn is_one_of(&self, words: &[&str]) -> bool {
        self.text().is_ok_and(|text| words.contains(&&*text))
    }

    /// An error about this value.
    pub(in crate::dialect) fn wrong(&self, why: impl Into<Cow<'static, str>>) -> Untranslatable {
        Untranslatable::new(self.path.clone(), why)
    }

    /// An error: it has no counterpart in the API that it is read for.
    pub(in crate::dialect) fn no_counterpart(&self) -> Untranslatable {
        self.wrong(format!("has no counterpart in {}", self.target.name))
    }

    /// The API that it is read for.
    pub(in crate::dialect) const fn target(&self) -> &'static Api {
        self.target
    }

    /// The value as it stands.
    pub(in crate::dialect) fn json(&self) -> Json<'a> {
        Json::verbatim(self.raw)
    }

    pub(in crate::dialect) fn object(self) -> Read<Object<'a>> {
        let members = match serde_json::from_str::<Members<'a>>(self.raw) {
            Ok(members) => members.0,
            Err(_) => return Err(self.wrong("must be an object")),
        };
        for (i, (name, _)) in members.iter().enumerate() {
            if members[..i].iter().any(|(earlier, _)| earlier == name) {
                let twice =
                    Untranslatable::new(join(&self.path, name), "stands twice, so it is not clear which one counts");
                return Err(twice);
            }
        }
        Ok(Object { path: self.path, members, target: self.target })
    }

    pub(in crate::dialect) fn list(self) -> Read<Vec<Field<'a>>> {
        let Ok(elements) = serde_json::from_str::<Elements<'a>>(self.raw) else {
            return Err(self.wrong("must be an array"));
        };
        let field = |(i, raw)| Field { path: format!("{}[{i}]", self.path), raw, target: self.target };
        Ok(elements.0.into_iter().enumerate().map(field).collect())
    }

    /// A text, borrowed from the body unless it has escapes.
    pub(in crate::dialect) fn text(&self) -> Read<Cow<'a, str>> {
        let inner = self.raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match inner {
            Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
            Some(_) => serde_json::from_str(self.raw).map(Cow::Owned).map_err(|_| self.wrong("is no valid text")),
            None => Err(self.wrong("must be a string")),
        }
    }

    pub(in crate::dialect) fn bool(&self) -> Read<bool> {
        match self.raw {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.wrong("must be true or false")),
        }
    }

    pub(in crate::dialect) fn count(&self) -> Read<u64> {
        self.raw.parse().map_err(|_| self.wrong("must be a whole number of at least 0"))
    }

    pub(in crate::dialect) fn number(&self) -> Read<f64> {
        let number = matches!(self.raw.as_bytes().first(), Some(b'-' | b'0'..=b'9'));
        self.raw.parse().ok().filter(|_| number).ok_or_else(|| self.wrong("must be a number"))
    }

    pub(in crate::dialect) fn is_string(&self) -> bool {
        self.raw.starts_with('"')
    }

    /// Nothing is in it: `""`, `[]`, `{}`.
    pub(in crate::dialect) fn is_empty(&self) -> bool {
        match self.raw.as_bytes() {
            [b'"', rest @ ..] => rest == b"\"",
            [b'[' | b'{', rest @ ..] => matches!(rest.trim_ascii_start(), [b']' | b'}']),
            _ => false,
        }
    }
}

impl<'a> Object<'a> {
    /// Takes a member; none when it is absent or null.
    pub(in crate::dialect) fn take(&mut self, name: &str) -> Option<Field<'a>> {
        let at = self.members.iter().position(|(member, _)| member == name)?;
        let (_, raw) = self.members.swap_remove(at);
        (raw != "null").then(|| Field { path: join(&self.path, name), raw, target: self.target })
    }

    /// Takes a member that must be there.
    pub(in crate::dialect) fn need(&mut self, name: &str) -> Read<Field<'a>> {
        let missing = Untranslatable::new(join(&self.path, name), "is missing");
        self.take(name).ok_or(missing)
    }

    /// Takes the members that make no difference to the answer.
    pub(in crate::dialect) fn forget(&mut self, names: &[&str]) {
        self.members.retain(|(member, _)| !names.contains(&&**member));
    }

    /// Takes a member that may only say what is the rule in the other API anyhow.
    pub(in crate::dialect) fn only(&mut self, name: &str, as_usual: impl FnOnce(&Field<'a>) -> bool) -> Read<()> {
        match self.take(name) {
            Some(field) if !as_usual(&field) => Err(field.no_counterpart()),
            Some(_) | None => Ok(()),
        }
    }

    /// Nothing may be left: what is, has not been understood.
    pub(in crate::dialect) fn finish(self) -> Read<()> {
        match self.members.iter().find(|(_, raw)| *raw != "null") {
            Some((name, _)) => {
                Err(Untranslatable::new(join(&self.path, name), format!("has no counterpart in {}", self.target.name)))
            }
            None => Ok(()),
        }
    }
}

/// The `id` and `model` of an answer, as far as it has them.
pub(in crate::dialect) fn head<'a>(from: &mut Object<'a>) -> Head<'a> {
    let mut text = |name| from.take(name).and_then(|f| f.text().ok()).unwrap_or_default();
    Head { id: text("id"), model: text("model") }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl Untranslatable {
    /// The value at this path, and why it has no counterpart, as the rest of a sentence that begins with the path.
    pub fn new(path: impl Into<String>, why: impl Into<Cow<'static, str>>) -> Self {
        Self { path: path.into(), why: why.into() }
    }
}

impl fmt::Display for Untranslatable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.path {
            "" => write!(f, "the body {}", self.why),
            path => write!(f, "`{path}` {}", self.why),
        }
    }
}

struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value::<&RawValue>()?.get()));
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Object)
    }
}

/// A member's name, its escapes resolved.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        from.deserialize_str(Text)
    }
}

struct Elements<'a>(Vec<&'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Elements<'de>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element::<&RawValue>()? {
                    elements.push(element.get());
                }
                Ok(Elements(elements))
            }
        }
        from.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static OTHER: Api = Api {
        name: "the other API",
        max_stop_sequences: 4,
        takes_blank_stop_sequences: true,
        max_temperature: 2.0,
        takes_late_instructions: true,
        continues_the_assistant: false,
        pictures: None,
    };

    fn object(body: &str) -> Object<'_> {
        Field::body(body.as_bytes(), &OTHER).unwrap().object().unwrap()
    }

    #[test]
    fn what_is_not_taken_is_named() {
        let mut body = object(r#"{"a":{"b":[0,{"c":1}]},"n":null}"#);
        let list = body.take("a").unwrap().object().unwrap().take("b").unwrap().list().unwrap();
        let inner = list[1].clone().object().unwrap();
        assert_eq!(inner.finish().unwrap_err().to_string(), "`a.b[1].c` has no counterpart in the other API");
        assert!(body.finish().is_ok());
    }

    #[test]
    fn null_is_absent_and_twice_is_refused() {
        let mut body = object(r#"{"a":null}"#);
        assert!(body.take("a").is_none());
        assert_eq!(body.need("b").unwrap_err().to_string(), "`b` is missing");
        let twice = Field::body(br#"{"a":1,"\u0061":2}"#, &OTHER).unwrap().object();
        assert_eq!(twice.err().unwrap().path, "a");
    }

    #[test]
    fn values_are_what_they_say() {
        let mut body = object(r#"{"t":"a\"b","n":1.50,"c":7,"e":[ ],"f":{"z":1,"a":2}}"#);
        assert_eq!(body.take("t").unwrap().text().unwrap(), "a\"b");
        let number = body.take("n").unwrap();
        assert_eq!((number.number().unwrap(), number.json().text()), (1.5, "1.50"));
        assert!(number.count().is_err() && number.text().is_err());
        assert_eq!(body.take("c").unwrap().count().unwrap(), 7);
        assert!(body.take("e").unwrap().is_empty());
        assert_eq!(body.take("f").unwrap().json().text(), r#"{"z":1,"a":2}"#);
    }

    #[test]
    fn deep_nesting_does_not_use_the_stack() {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(500_000), "]".repeat(500_000));
        assert!(object(&deep).take("x").is_some());
    }
}
