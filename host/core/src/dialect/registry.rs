//! The list of dialects.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, Unexpected, VariantAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::format::WireFormat;
use crate::contract::Operation;

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
        let has = |dialect: &Dialect| dialect.format().operations().iter().any(|(_, own)| *own == operation);
        Self::all().find(has).unwrap_or_default()
    }

    /// The dialect of a client whose headers tell it; the first of the list where they do not.
    pub fn of_headers(headers: &http::HeaderMap) -> Self {
        Self::all().find(|dialect| dialect.format().is_spoken_by(headers)).unwrap_or_default()
    }

    /// The dialect that the sender of a request speaks: of the operation, else of its headers.
    pub fn of_client(operation: Operation, headers: &http::HeaderMap) -> Self {
        match operation {
            Operation::Other => Self::of_headers(headers),
            Operation::Chat
            | Operation::Completion
            | Operation::Response
            | Operation::Message
            | Operation::Embedding => Self::of_operation(operation),
        }
    }

    /// Its name.
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

/// The operation that a path asks for, whatever stands before its last segments.
pub fn operation_at(path: &str) -> Operation {
    let path = path.trim_end_matches('/');
    let at = |dialect: Dialect| dialect.format().operations().iter().find(|(end, _)| path.ends_with(end));
    Dialect::all().find_map(at).map_or(Operation::Other, |(_, operation)| *operation)
}

/// Whether a request to this path asks a model and changes nothing at the provider, though it is none of the operations.
pub fn is_idempotent_path(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let asks = |end: &&str| path.ends_with(end);
    Dialect::all().any(|dialect| dialect.format().idempotent_paths().iter().any(asks))
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

    #[test]
    fn the_last_segments_of_a_path_tell_the_operation() {
        for (path, operation) in [
            ("/v1/chat/completions", Operation::Chat),
            ("/v1/completions/", Operation::Completion),
            ("/openai/v1/responses", Operation::Response),
            ("/v1/messages", Operation::Message),
            ("/v1/embeddings", Operation::Embedding),
            ("/v1/files", Operation::Other),
        ] {
            assert_eq!(operation_at(path), operation, "{path}");
        }
    }

    #[test]
    fn questions_change_nothing() {
        for path in ["/v1/messages/count_tokens", "/v1/rerank/", "/v1/images/edits"] {
            assert!(is_idempotent_path(path), "{path}");
        }
        assert!(!is_idempotent_path("/v1/files") && !is_idempotent_path("/v1/messages/batches"));
    }

    #[test]
    fn every_operation_but_the_other_has_one_dialect() {
        for operation in Operation::ALL {
            let owners = Dialect::all().filter(|d| d.format().operations().iter().any(|(_, own)| *own == operation));
            assert_eq!(owners.count(), usize::from(operation != Operation::Other), "{operation:?}");
        }
    }
}
