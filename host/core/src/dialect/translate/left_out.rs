//! Names of the fields that a translation left out: for the client's header and for the record.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use http::HeaderValue;

use super::Untranslatable;

/// The longest list of paths in a header, in bytes.
const MAX_HEADER_BYTES: usize = 600;

/// The longest note in a record, in bytes.
const MAX_NOTE_BYTES: usize = 2_000;

/// The paths of these fields as a header's value, each once, separated by `, `; what does not fit is counted. None where
/// nothing was left out.
pub fn header(fields: &[Untranslatable]) -> Option<HeaderValue> {
    let mut seen = BTreeSet::new();
    let paths = fields.iter().map(|field| &*field.path).filter(|path| seen.insert(*path));
    let list = joined(paths.map(printable), ", ", MAX_HEADER_BYTES)?;
    HeaderValue::from_str(&list).ok()
}

/// A note for the record: these fields and why each was left out on the way to this backend. None where none was.
pub fn note(fields: &[Untranslatable], backend: &str) -> Option<String> {
    let list = joined(fields.iter().map(Untranslatable::to_string), "; ", MAX_NOTE_BYTES)?;
    Some(format!("left out or said otherwise for {backend}: {list}"))
}

fn joined(items: impl Iterator<Item = String>, separator: &str, max_bytes: usize) -> Option<String> {
    let mut list = String::new();
    let mut further = 0;
    for item in items {
        if further > 0 || list.len() + separator.len() + item.len() > max_bytes {
            further += 1;
            continue;
        }
        if !list.is_empty() {
            list.push_str(separator);
        }
        list.push_str(&item);
    }
    if further > 0 {
        let before = if list.is_empty() { "" } else { separator };
        write!(list, "{before}and {further} more").expect("a string takes all that is written");
    }
    Some(list).filter(|list| !list.is_empty())
}

/// A path in the signs that may stand in a header and are no separators of the list.
fn printable(path: &str) -> String {
    path.chars().map(|c| if c.is_ascii_graphic() && !matches!(c, ',' | '"' | '\\') { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_stand_once_in_the_header_and_with_their_reasons_in_the_note() {
        let field = |path: &str| Untranslatable::new(path, "has no counterpart in X");
        let fields = [field("seed"), field("messages"), field("messages"), field("odd, \u{e9}")];
        assert_eq!(header(&fields).unwrap(), "seed, messages, odd???");
        let note = note(&fields[..2], "b1").unwrap();
        let said =
            "left out or said otherwise for b1: `seed` has no counterpart in X; `messages` has no counterpart in X";
        assert_eq!(note, said);
        assert_eq!((header(&[]), super::note(&[], "b1")), (None, None));
    }

    proptest! {
        #[test]
        fn a_header_is_bounded_whatever_the_client_calls_its_fields(paths in prop::collection::vec("\\PC{0,400}", 1..40)) {
            let fields: Vec<_> = paths.iter().map(|path| Untranslatable::new(path.as_str(), "w")).collect();
            let value = header(&fields);
            prop_assert!(value.is_none_or(|value| value.len() <= MAX_HEADER_BYTES + 30));
            prop_assert!(note(&fields, "b").unwrap().len() <= MAX_NOTE_BYTES + 100);
        }
    }
}
