//! Reading in which nothing that a client said is lost unseen: every member of an object must be taken. One that is not is
//! refused, or, where a reader is given [`LeftOut`], left out and named there.
//!
//! Values stay slices of the body until they are asked for, which keeps tool inputs and schemas byte for byte: the
//! order of a schema's properties is something a model sees.

mod left_out;
mod members;

use std::borrow::Cow;

use serde_json::value::RawValue;

pub use left_out::{LeftOut, Read, Untranslatable};

use members::{Elements, Members};

use super::api::Api;
use super::finish::Finish;
use super::neutral::{Head, Json};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(in crate::dialect) struct Field<'a> {
    path: String,
    raw: &'a str,
    /// The API that it is read for.
    target: &'static Api,
    left_out: LeftOut,
}

/// An object whose members are taken one by one. A member that is null counts as absent.
pub(in crate::dialect) struct Object<'a> {
    path: String,
    members: Vec<(Cow<'a, str>, &'a str)>,
    target: &'static Api,
    left_out: LeftOut,
}

impl<'a> Field<'a> {
    /// A whole body, read for this API, strictly.
    pub(in crate::dialect) fn body(body: &'a [u8], target: &'static Api) -> Read<Self> {
        Self::request(body, target, &LeftOut::strict())
    }

    /// A whole request, read for this API; what is left out goes to `left_out`.
    pub(in crate::dialect) fn request(body: &'a [u8], target: &'static Api, left_out: &LeftOut) -> Read<Self> {
        match serde_json::from_slice::<&RawValue>(body) {
            Ok(raw) => Ok(Self { path: String::new(), raw: raw.get(), target, left_out: left_out.clone() }),
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

    /// Leaves this value out, for this reason.
    ///
    /// # Errors
    /// Strict reading refuses it for the same reason.
    pub(in crate::dialect) fn leave_out(&self, why: impl Into<Cow<'static, str>>) -> Read<()> {
        self.left_out.add(self.wrong(why))
    }

    /// Leaves this value out, because it has no counterpart.
    ///
    /// # Errors
    /// Strict reading refuses it.
    pub(in crate::dialect) fn leave_out_without_counterpart(&self) -> Read<()> {
        self.left_out.add(self.no_counterpart())
    }

    /// Returns true if nothing may be left out.
    pub(in crate::dialect) const fn is_strict(&self) -> bool {
        self.left_out.is_strict()
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
        Ok(Object { path: self.path, members, target: self.target, left_out: self.left_out })
    }

    pub(in crate::dialect) fn list(self) -> Read<Vec<Field<'a>>> {
        let Ok(elements) = serde_json::from_str::<Elements<'a>>(self.raw) else {
            return Err(self.wrong("must be an array"));
        };
        let (target, left_out) = (self.target, &self.left_out);
        let field = |(i, raw)| Field { path: format!("{}[{i}]", self.path), raw, target, left_out: left_out.clone() };
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

    /// Returns true for a finish reason that is one, and no word for none.
    pub(in crate::dialect) fn is_reason(&self) -> bool {
        Finish::read(self.raw.as_bytes()) != Finish::None
    }

    pub(in crate::dialect) fn is_string(&self) -> bool {
        self.raw.starts_with('"')
    }

    pub(in crate::dialect) fn is_object(&self) -> bool {
        self.raw.starts_with('{')
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
        let (target, left_out) = (self.target, &self.left_out);
        (raw != "null").then(|| Field { path: join(&self.path, name), raw, target, left_out: left_out.clone() })
    }

    /// Looks at a member; none when it is absent or null.
    pub(in crate::dialect) fn get(&self, name: &str) -> Option<Field<'a>> {
        let (_, raw) = self.members.iter().find(|(member, raw)| member == name && *raw != "null")?;
        let (target, left_out) = (self.target, self.left_out.clone());
        Some(Field { path: join(&self.path, name), raw, target, left_out })
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

    /// Takes a member that tunes the answer without changing what it is about: it is left out unless it says what is the
    /// rule in the other API anyhow.
    ///
    /// # Errors
    /// Strict reading refuses it.
    pub(in crate::dialect) fn tuning(&mut self, name: &str, as_usual: impl FnOnce(&Field<'a>) -> bool) -> Read<()> {
        match self.take(name) {
            Some(field) if !as_usual(&field) => field.leave_out_without_counterpart(),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes a member that is about price, speed or books: it is left out without a word.
    ///
    /// # Errors
    /// Strict reading refuses it unless it says what is the rule in the other API anyhow.
    pub(in crate::dialect) fn hint(&mut self, name: &str, as_usual: impl FnOnce(&Field<'a>) -> bool) -> Read<()> {
        if self.left_out.is_strict() {
            return self.only(name, as_usual);
        }
        self.take(name);
        Ok(())
    }

    /// Leaves out the members that were not taken.
    ///
    /// # Errors
    /// Strict reading refuses the first: it has not been understood.
    pub(in crate::dialect) fn finish(self) -> Read<()> {
        for (name, _) in self.members.iter().filter(|(_, raw)| *raw != "null") {
            let why = format!("has no counterpart in {}", self.target.name);
            self.left_out.add(Untranslatable::new(join(&self.path, name), why))?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::left_out::MAX_LEFT_OUT;
    use super::*;

    static OTHER: Api = Api {
        name: "the other API",
        max_stop_sequences: 4,
        takes_blank_stop_sequences: true,
        max_temperature: 2.0,
        takes_late_instructions: true,
        continues_the_assistant: false,
        takes_empty_messages: true,
        takes_pictures_in_results: true,
        has_json_mode: true,
        takes_top_p_beside_temperature: true,
        needs_tools_beside_calls: false,
        max_tool_name_chars: 64,
        max_user_chars: usize::MAX,
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
    fn lenient_reading_names_what_it_leaves_out_and_still_refuses_what_changes_the_meaning() {
        let left_out = LeftOut::lenient();
        let body = br#"{"new":1,"seed":7,"same":0,"n":2,"in":{"x":[]}}"#;
        let mut body = Field::request(body, &OTHER, &left_out).unwrap().object().unwrap();
        body.tuning("seed", |_| false).unwrap();
        body.tuning("same", |f| f.count() == Ok(0)).unwrap();
        assert_eq!(body.only("n", |f| f.count() == Ok(1)).unwrap_err().path, "n");
        body.take("in").unwrap().object().unwrap().finish().unwrap();
        body.finish().unwrap();
        let paths: Vec<String> = left_out.take().into_iter().map(|field| field.path).collect();
        assert_eq!(paths, ["seed", "in.x", "new"]);
    }

    #[test]
    fn what_is_named_as_left_out_is_bounded() {
        let left_out = LeftOut::lenient();
        for i in 0..MAX_LEFT_OUT + 5 {
            left_out.add(Untranslatable::new(i.to_string(), "is one")).unwrap();
        }
        assert_eq!(left_out.take().len(), MAX_LEFT_OUT);
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
