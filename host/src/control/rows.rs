//! The history of policies as rows of the store.

use std::path::PathBuf;

use pointsman_core::lifecycle::history::{End, Ended, Entry, History, Origin, Source};
use pointsman_core::lifecycle::{Hash, UploadOptions};
use pointsman_core::time::Timestamp;
use pointsman_store::{PolicyRow, PolicyRows, PolicySourceRow};

/// The rows of a history.
pub(super) fn from_history(history: &History) -> PolicyRows {
    let source = history.source.as_ref().map(|source| PolicySourceRow {
        file: source.file.as_ref().map(|file| file.to_string_lossy().into_owned()),
        sha256: source.hash.to_string(),
    });
    PolicyRows { revisions: history.entries().iter().map(row).collect(), source }
}

fn row(entry: &Entry) -> PolicyRow {
    let ended = entry.ended.as_ref();
    let file = match &entry.origin {
        Origin::File(file) => Some(file.to_string_lossy().into_owned()),
        Origin::Embedded | Origin::Upload => None,
    };
    PolicyRow {
        sha256: entry.hash.to_string(),
        bytes: entry.bytes,
        origin: entry.origin.kind().to_owned(),
        file,
        name: entry.options.name.clone(),
        settings: entry.options.settings_json(),
        taken_ms: entry.taken.as_millis(),
        ended_ms: ended.map(|ended| ended.at.as_millis()),
        end: ended.map(|ended| ended.end.as_str().to_owned()),
        why: ended.map(|ended| ended.why.clone()),
        decisions: entry.decisions,
        faults: entry.faults,
    }
}

/// The history of these rows; a row that is not understood is left out.
pub(super) fn to_history(rows: PolicyRows) -> History {
    let source =
        rows.source.and_then(|row| Some(Source { file: row.file.map(PathBuf::from), hash: Hash::parse(&row.sha256)? }));
    History::restore(rows.revisions.into_iter().filter_map(entry).collect(), source)
}

fn entry(row: PolicyRow) -> Option<Entry> {
    let origin = match (row.origin.as_str(), row.file) {
        ("embedded", _) => Origin::Embedded,
        ("upload", _) => Origin::Upload,
        ("file", Some(file)) => Origin::File(file.into()),
        _ => return None,
    };
    let ended = match row.ended_ms {
        None => None,
        Some(at) => Some(Ended {
            at: Timestamp::from_millis(at),
            end: row.end.as_deref().and_then(End::parse)?,
            why: row.why.unwrap_or_default(),
        }),
    };
    Some(Entry {
        hash: Hash::parse(&row.sha256)?,
        bytes: row.bytes,
        origin,
        options: UploadOptions::read(row.name.as_deref(), row.settings.as_deref()).ok()?,
        taken: Timestamp::from_millis(row.taken_ms),
        ended,
        decisions: row.decisions,
        faults: row.faults,
    })
}

#[cfg(test)]
mod tests {
    use pointsman_core::lifecycle::history::Incoming;

    use super::*;

    #[test]
    fn the_store_gives_back_what_it_was_given() {
        let hash = |n: u64| Hash::of(&n.to_le_bytes());
        let mut history = History::default();
        let at = |s: u64| Timestamp::from_millis(1_700_000_000_000 + s * 1_000);
        let file = Origin::File("mine.wasm".into());
        let tuned = UploadOptions::read(Some("mine"), Some(r#"{"a":1}"#)).unwrap();
        for (n, origin, options, end) in [
            (1, file.clone(), UploadOptions::default(), End::Replaced),
            (2, Origin::Upload, tuned, End::Replaced),
            (2, Origin::Embedded, UploadOptions::default(), End::Faults),
        ] {
            history.take(at(n), Incoming { hash: hash(n), bytes: 10, origin, options }, end, "because");
        }
        history.source = Some(Source { file: Some("mine.wasm".into()), hash: hash(1) });
        assert_eq!(to_history(from_history(&history)), history);
        let mut rows = from_history(&history);
        rows.revisions[0].sha256 = "nonsense".into();
        assert_eq!(to_history(rows).entries().len(), 2);
    }
}
