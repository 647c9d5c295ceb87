//! Lists of models as providers write them, read leniently: an entry that is none is passed over, not the list.

use serde_json::Value;

use crate::rfc3339;

/// A model in a provider's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedModel {
    /// Name by which the model is asked for.
    pub id: String,
    /// Time of its creation, in seconds since 1970; none where the provider does not say.
    pub created: Option<u64>,
    /// Its owner; none where the provider does not say.
    pub owner: Option<String>,
    /// Its name for people; none where the provider does not say.
    pub display_name: Option<String>,
}

/// One page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelPage {
    /// Models of the page, in the provider's order.
    pub models: Vec<ListedModel>,
    /// The last id of it, where more follow (Anthropic's `has_more` and `last_id`).
    pub last_id: Option<String>,
}

impl ListedModel {
    /// A model of which nothing is known but its name.
    pub fn named(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    fn read(entry: &Value) -> Option<Self> {
        if let Value::String(id) = entry {
            return Some(Self::named(id.trim())).filter(|model| !model.id.is_empty());
        }
        let text = |names: &[&str]| {
            let found = names.iter().find_map(|name| entry.get(name)?.as_str());
            found.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        Some(Self {
            id: text(&["id", "model", "name", "model_name", "model_id", "slug"])?,
            created: ["created", "created_at", "createdAt"].iter().find_map(|name| seconds(entry.get(name)?)),
            owner: text(&["owned_by", "owner", "organization", "publisher", "provider"]),
            display_name: text(&["display_name", "displayName"]),
        })
    }
}

/// Seconds since 1970 of a number, a number as text, or a date; 0 stands for unknown.
fn seconds(value: &Value) -> Option<u64> {
    const LATEST: f64 = 1e11;
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let of_text = || rfc3339::parse(value.as_str()?.trim()).map(|at| at.as_millis() / 1_000);
    number.filter(|n| (1.0..LATEST).contains(n)).map(|n| n as u64).or_else(of_text).filter(|n| *n > 0)
}

/// Reads a list: an array of entries or names, at the top or in a member such as `data` or `models`; none where there is no
/// such array.
pub(super) fn read_models(body: &[u8]) -> Option<ModelPage> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let list: Value = serde_json::from_slice(body).ok()?;
    let models: Vec<ListedModel> = entries(&list, 2)?.iter().filter_map(ListedModel::read).collect();
    let has_more = list.get("has_more").and_then(Value::as_bool).unwrap_or(false);
    let told = list.get("last_id").and_then(Value::as_str).map(str::to_owned);
    let last_id = told.or_else(|| models.last().map(|model| model.id.clone())).filter(|_| has_more);
    Some(ModelPage { models, last_id })
}

/// The array of a list, at most so many members deep.
fn entries(list: &Value, depth: u8) -> Option<&Vec<Value>> {
    const MEMBERS: [&str; 6] = ["data", "models", "model_list", "items", "results", "result"];
    match list {
        Value::Array(entries) => Some(entries),
        Value::Object(members) if depth > 0 => {
            MEMBERS.iter().filter_map(|name| members.get(*name)).find_map(|inner| entries(inner, depth - 1))
        }
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(body: &str) -> Option<Vec<String>> {
        read_models(body.as_bytes()).map(|page| page.models.into_iter().map(|model| model.id).collect())
    }

    #[test]
    fn a_list_is_found_in_every_shape_that_providers_give_it() {
        for body in [
            r#"{"object":"list","data":[{"id":"a"},{"id":"b"}]}"#,
            r#"{"data":[{"id":"a"},{"id":7},{"object":"x"},null,{"id":"b"}]}"#,
            r#"[{"id":"a"},{"id":"b"}]"#,
            r#"["a","b"]"#,
            r#"{"models":[{"name":"a","size":1},{"model":"b"}]}"#,
            r#"{"data":{"models":["a","b"]}}"#,
            r#"{"success":true,"result":[{"id":"a"},{"name":"b"}]}"#,
            "\u{feff}{\"data\":[{\"id\":\" a \"},{\"id\":\"b\"}]}",
        ] {
            assert_eq!(names(body), Some(vec!["a".to_owned(), "b".to_owned()]), "{body}");
        }
        assert_eq!(names(r#"{"data":[]}"#), Some(vec![]));
        for none in ["", "{}", "null", r#"{"error":{"message":"no"}}"#, r#"{"choices":[{"id":"a"}]}"#] {
            assert_eq!(names(none), None, "{none}");
        }
    }

    #[test]
    fn what_the_provider_says_of_a_model_is_kept() {
        let of = |entry: &str| read_models(format!("[{entry}]").as_bytes()).unwrap().models.remove(0);
        let model = of(r#"{"id":"a","created":1700000000,"owned_by":"acme"}"#);
        assert_eq!((model.created, model.owner.as_deref()), (Some(1_700_000_000), Some("acme")));
        let model = of(r#"{"id":"a","created_at":"2024-01-02T00:00:00Z","display_name":"A"}"#);
        assert_eq!((model.created, model.display_name.as_deref()), (Some(1_704_153_600), Some("A")));
        assert_eq!(of(r#"{"id":"a","created":"1700000000","organization":"x"}"#).created, Some(1_700_000_000));
        assert_eq!(of(r#"{"id":"a","created":0,"owned_by":null}"#), ListedModel::named("a"));
    }

    #[test]
    fn a_page_says_whether_more_follow() {
        let page = |body: &str| read_models(body.as_bytes()).unwrap().last_id;
        assert_eq!(page(r#"{"data":[{"id":"a"}],"has_more":true,"last_id":"z"}"#).as_deref(), Some("z"));
        assert_eq!(page(r#"{"data":[{"id":"a"}],"has_more":true}"#).as_deref(), Some("a"));
        assert_eq!(page(r#"{"data":[{"id":"a"}],"has_more":false,"last_id":"a"}"#), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(body in prop::collection::vec(any::<u8>(), 0..64), text in r#"[\[\]{}":,a-z0-9]{0,40}"#) {
            read_models(&body);
            read_models(text.as_bytes());
        }
    }
}
