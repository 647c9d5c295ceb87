//! The list of dialects.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use http::HeaderMap;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, Unexpected, VariantAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::format::WireFormat;
use crate::contract::Operation;
use crate::http::path;

/// A dialect: one provider's wire format.
///
/// Its equality is not structural, so no `match` outside the dialects' own folders can tell one from another: their
/// differences are methods of [`WireFormat`].
#[derive(Clone, Copy)]
pub struct Dialect(u8);

/// Lists the dialects: a number, a constant, a name and the format. The number stands in stored records and never changes.
macro_rules! dialects {
    ($($number:literal $constant:ident $name:literal $format:expr;)*) => {
        impl Dialect {
            $(
                #[doc = concat!("The dialect `", $name, "`.")]
                pub const $constant: Dialect = Dialect($number);
            )*

            /// Names of the built-in dialects, in the order of their numbers.
            pub const NAMES: &'static [&'static str] = &[$($name),*];
        }

        static BUILT_IN: &[&dyn WireFormat] = &[$(&$format),*];
    };
}

dialects! {
    0 OPENAI "openai" super::openai::Openai;
    1 ANTHROPIC "anthropic" super::anthropic::Anthropic;
    2 PLAIN "plain" super::plain::Plain;
}

static ADDED: OnceLock<&'static [&'static dyn WireFormat]> = OnceLock::new();

impl Dialect {
    /// Adds dialects that are not built in, with numbers behind those that are. To be called once, before the first
    /// configuration is read; false when it was called before.
    pub fn add(formats: &'static [&'static dyn WireFormat]) -> bool {
        ADDED.set(formats).is_ok()
    }

    /// Every dialect, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Dialect> {
        (0..BUILT_IN.len() + added().len()).map(|number| Dialect(number as u8))
    }

    /// The dialect of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().find(|dialect| dialect.as_str() == name)
    }

    /// The dialect that has this operation; the first of the list where none has.
    pub fn of_operation(operation: Operation) -> Self {
        Self::all().find(|dialect| dialect.format().owns(operation)).unwrap_or_default()
    }

    /// The dialect of a client whose headers tell it; the first of the list where they do not.
    pub fn of_headers(headers: &HeaderMap) -> Self {
        Self::all().find(|dialect| dialect.format().is_spoken_by(headers)).unwrap_or_default()
    }

    /// The dialect that the sender of a request speaks: of the operation, else of its headers.
    pub fn of_client(operation: Operation, headers: &HeaderMap) -> Self {
        match operation {
            Operation::Other | Operation::Plain => Self::of_headers(headers),
            _ => Self::of_operation(operation),
        }
    }

    /// Returns its name in configuration, logs and records.
    pub fn as_str(self) -> &'static str {
        match Self::NAMES.get(self.index()) {
            Some(name) => name,
            None => self.format().name(),
        }
    }

    /// Its number: 0 for the first of the list.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the implementation of the format.
    pub fn format(self) -> &'static dyn WireFormat {
        match BUILT_IN.get(self.index()) {
            Some(format) => *format,
            None => added()[self.index() - BUILT_IN.len()],
        }
    }

    /// Returns true if requests and answers pass unread.
    pub fn is_opaque(self) -> bool {
        self.format().is_opaque()
    }
}

/// A client's path, read: its operation, and where the path of that operation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiPath {
    /// Operation that the path names.
    pub operation: Operation,
    /// Bytes of the client's path before it: the root of the API, as the client was told it.
    pub root: usize,
}

impl ApiPath {
    /// Reads a path without its query. An operation's own path right behind the version comes first, then a collection of
    /// stored things there, then either of them behind any other root. A collection that several dialects have belongs to
    /// the one that the headers tell. What has a version and is not known is [`Operation::Other`], or the other operation of
    /// the dialect that the headers tell, unless scanners and load balancers ask for it everywhere; the rest is
    /// [`Operation::Plain`].
    pub fn read(path: &str, headers: &HeaderMap) -> Self {
        let path = path.trim_end_matches('/');
        let root = path::behind_versions(path);
        if let Some(operation) = operation_named(&path[root..]) {
            return Self { operation, root };
        }
        let root = path::behind(path, path::CLIENTS_VERSION);
        if let Some(operation) = collection(&path[root..], headers) {
            return Self { operation, root };
        }
        let ends = |(own, operation): &(&str, Operation)| path.ends_with(own).then_some((*operation, own.len()));
        let ends_with = |dialect: Dialect| dialect.format().operations().iter().find_map(ends);
        if let Some((operation, length)) = Dialect::all().find_map(ends_with) {
            return Self { operation, root: path.len() - length };
        }
        let is_versioned = path::is_versioned(path);
        if let Some(root) = path::behind_last_version(path).filter(|_| !is_versioned)
            && let Some(operation) = collection(&path[root..], headers)
        {
            return Self { operation, root };
        }
        if !is_versioned || path::has_hidden(path) || path::is_no_api(path) || path::is_sign_of_life(path) {
            return Self { operation: Operation::Plain, root: 0 };
        }
        let told = Dialect::all().find(|dialect| dialect.format().is_spoken_by(headers));
        let operation = told.and_then(|dialect| dialect.format().collections());
        Self { operation: operation.map_or(Operation::Other, |(operation, _)| operation), root }
    }

    /// Returns true for a path by which load balancers, containers and people ask whether anybody is there.
    pub fn is_sign_of_life(path: &str) -> bool {
        path::is_sign_of_life(path)
    }

    /// The model that a path names, percent-encoded, as Azure's deployments, OpenAI's old engines and Google's APIs do.
    pub fn model_in(path: &str) -> Option<&str> {
        path::model_in(path).map(|place| &path[place])
    }

    /// The path of a known operation without blanks behind its segments; none where there are none.
    pub fn without_blanks(path: &str, headers: &HeaderMap) -> Option<String> {
        path::without_blanks(path).filter(|mended| Self::read(mended, headers).is_known())
    }

    /// Returns true if the operation is known, so that its path is that of the API reference.
    pub fn is_known(self) -> bool {
        !matches!(self.operation, Operation::Other | Operation::Plain)
    }
}

/// The operation that a path asks for, of a client whose headers tell nothing.
pub fn operation_at(path: &str) -> Operation {
    ApiPath::read(path, &HeaderMap::new()).operation
}

/// The operation whose own path this is.
fn operation_named(path: &str) -> Option<Operation> {
    let named = |dialect: Dialect| dialect.format().operations().iter().find(|(own, _)| *own == path);
    Dialect::all().find_map(named).map(|(_, operation)| *operation)
}

/// The operation of a path that begins with a collection.
fn collection(path: &str, headers: &HeaderMap) -> Option<Operation> {
    let first = path.strip_prefix('/')?.split('/').next().unwrap_or_default();
    let of = |dialect: Dialect| {
        let (operation, names) = dialect.format().collections()?;
        names.contains(&first).then_some(operation)
    };
    let told = Dialect::all().find(|dialect| dialect.format().is_spoken_by(headers));
    told.and_then(of).or_else(|| Dialect::all().find_map(of))
}

fn added() -> &'static [&'static dyn WireFormat] {
    ADDED.get().copied().unwrap_or_default()
}

/// The first of the list.
impl Default for Dialect {
    fn default() -> Self {
        Dialect(0)
    }
}

impl PartialEq for Dialect {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Dialect {}

impl Hash for Dialect {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// As an enum of unit variants: its name in text, its number in binary records.
impl Serialize for Dialect {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_unit_variant("Dialect", u32::from(self.0), self.as_str())
    }
}

impl<'de> Deserialize<'de> for Dialect {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Variant;

        impl<'de> Visitor<'de> for Variant {
            type Value = Dialect;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a dialect")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Dialect, A::Error> {
                let (dialect, variant) = data.variant_seed(Identifier)?;
                variant.unit_variant()?;
                Ok(dialect)
            }
        }

        from.deserialize_enum("Dialect", Self::NAMES, Variant)
    }
}

/// A name or a number.
struct Identifier;

impl<'de> DeserializeSeed<'de> for Identifier {
    type Value = Dialect;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Dialect, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Identifier {
    type Value = Dialect;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a dialect")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Dialect, E> {
        let at = |dialect: &Dialect| u64::from(dialect.0) == number;
        Dialect::all().find(at).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Dialect, E> {
        Dialect::parse(name).ok_or_else(|| E::unknown_variant(name, Dialect::NAMES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_found_by_its_name_and_stored_by_it_or_its_number() {
        for (number, dialect) in (0u8..).zip(Dialect::all()) {
            assert_eq!(dialect.format().name(), dialect.as_str());
            assert_eq!(Dialect::parse(dialect.as_str()), Some(dialect));
            let text = serde_json::to_string(&dialect).unwrap();
            assert_eq!(text, format!("\"{}\"", dialect.as_str()));
            assert_eq!(serde_json::from_str::<Dialect>(&text).unwrap(), dialect);
            let bytes = postcard::to_stdvec(&dialect).unwrap();
            assert_eq!(bytes, [number], "the number that old records hold");
            assert_eq!(postcard::from_bytes::<Dialect>(&bytes).unwrap(), dialect);
        }
        let unknown = serde_json::from_str::<Dialect>("\"gemini\"").unwrap_err().to_string();
        assert!(unknown.contains("expected one of `openai`, `anthropic`, `plain`"), "{unknown}");
        assert!(postcard::from_bytes::<Dialect>(&[99]).is_err());
    }

    fn read(path: &str) -> (Operation, &str) {
        let ApiPath { operation, root } = ApiPath::read(path, &HeaderMap::new());
        (operation, &path[root..])
    }

    #[test]
    fn an_operation_is_found_behind_any_root_of_an_api() {
        for (path, operation, own) in [
            ("/v1/chat/completions", Operation::Chat, "/chat/completions"),
            ("/chat/completions", Operation::Chat, "/chat/completions"),
            ("//v1/chat/completions", Operation::Chat, "/chat/completions"),
            ("/v1/v1//chat/completions", Operation::Chat, "/chat/completions"),
            ("/v4/chat/completions", Operation::Chat, "/chat/completions"),
            ("/v1/completions/", Operation::Completion, "/completions/"),
            ("/openai/v1/responses", Operation::Response, "/responses"),
            ("/openai/deployments/gpt/chat/completions", Operation::Chat, "/chat/completions"),
            ("/v1/messages", Operation::Message, "/messages"),
            ("/v1/messages/count_tokens", Operation::CountTokens, "/messages/count_tokens"),
            ("/anthropic/v1/messages/count_tokens", Operation::CountTokens, "/messages/count_tokens"),
            ("/v1/responses/input_tokens", Operation::InputTokens, "/responses/input_tokens"),
            ("/v1/embeddings", Operation::Embedding, "/embeddings"),
            ("/v1/images/generations", Operation::Image, "/images/generations"),
            ("/v1/audio/transcriptions", Operation::Audio, "/audio/transcriptions"),
            ("/moderations", Operation::Moderation, "/moderations"),
            ("/v1/rerank", Operation::Rerank, "/rerank"),
        ] {
            assert_eq!(read(path), (operation, own), "{path}");
        }
    }

    #[test]
    fn stored_things_are_no_operations_that_their_path_ends_with() {
        for (path, operation, own) in [
            ("/v1/files", Operation::Stored, "/files"),
            ("/files/f-1/content", Operation::Stored, "/files/f-1/content"),
            ("/v1/threads/t/messages", Operation::Stored, "/threads/t/messages"),
            ("/v1/organization/usage/completions", Operation::Stored, "/organization/usage/completions"),
            ("/v1/responses/resp_1/input_items", Operation::Stored, "/responses/resp_1/input_items"),
            ("/v1/chat/completions/c1/messages", Operation::Stored, "/chat/completions/c1/messages"),
            ("/openai/v1/batches/b", Operation::Stored, "/batches/b"),
            ("/v1/vector_stores/v/files", Operation::Stored, "/vector_stores/v/files"),
            ("/v1/messages/batches/b/results", Operation::AnthropicOther, "/messages/batches/b/results"),
            (
                "/v1/organizations/usage_report/messages",
                Operation::AnthropicOther,
                "/organizations/usage_report/messages",
            ),
        ] {
            assert_eq!(read(path), (operation, own), "{path}");
        }
    }

    #[test]
    fn a_collection_of_two_dialects_and_what_is_not_known_belong_to_the_one_that_the_headers_tell() {
        let anthropic = HeaderMap::from_iter([(
            http::HeaderName::from_static("anthropic-version"),
            http::HeaderValue::from_static("2023-06-01"),
        )]);
        for path in ["/v1/files", "/v1/skills/s", "/v1/something-new"] {
            assert_eq!(ApiPath::read(path, &anthropic).operation, Operation::AnthropicOther, "{path}");
        }
        assert_eq!(ApiPath::read("/v1/batches", &anthropic).operation, Operation::Stored);
        assert_eq!(ApiPath::read("/v1/chat/completions", &anthropic).operation, Operation::Chat);
        assert_eq!(ApiPath::read("/health", &anthropic).operation, Operation::Plain);
    }

    #[test]
    fn what_has_no_version_and_is_no_operation_is_of_no_dialect() {
        for path in [
            "/",
            "",
            "/health",
            "/favicon.ico",
            "/.env",
            "/v1/.env",
            "/v1/wp-login.php",
            "/v1/health",
            "/v2/_catalog",
            "/wp-login.php",
            "/admin/v",
            "/api/v1/pods",
            "/version/1",
        ] {
            assert_eq!(read(path).0, Operation::Plain, "{path}");
        }
        for (path, own) in
            [("/v1/something-new", "/something-new"), ("/v10/files", "/v10/files"), ("/v1beta/x", "/v1beta/x")]
        {
            assert_eq!(read(path), (Operation::Other, own));
        }
    }

    #[test]
    fn every_operation_has_one_dialect_but_those_of_none() {
        for operation in Operation::ALL {
            let owners = Dialect::all().filter(|dialect| dialect.format().owns(operation)).count();
            assert_eq!(owners, usize::from(!matches!(operation, Operation::Other | Operation::Plain)), "{operation:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_root_ends_where_a_segment_begins(path in "(/(v1|v4|files|messages|chat|completions|\\.x|)){0,6}") {
            let (operation, own) = read(&path);
            proptest::prop_assert!(own.is_empty() || own.starts_with('/'), "{} {}", path, own);
            let again = read(own);
            if ApiPath::read(&path, &HeaderMap::new()).is_known() {
                proptest::prop_assert_eq!(again.0, operation, "{} {}", path, own);
            }
        }
    }
}
