//! Rows of the proxy's store.

use std::path::Path;

use serde_json::{Value as Json, json};

pub(super) fn rows(path: &Path, sql: &str) -> rusqlite::Result<Vec<Json>> {
    let store = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = store.prepare(sql)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let read = statement.query_map([], |row| {
        let fields = names.iter().enumerate().map(|(i, n)| Ok((n.clone(), cell(row.get_ref(i)?))));
        fields.collect::<rusqlite::Result<serde_json::Map<_, _>>>().map(Json::Object)
    })?;
    read.collect()
}

/// Takes the hourly sums of usage away, so that the store is as an earlier version has written it.
pub fn forget_sums(store: &rusqlite::Connection) {
    let sql = "BEGIN IMMEDIATE;
        DELETE FROM usage_hour;
        UPDATE usage_filled SET from_us = (SELECT max(ended_us) + 1 FROM exchange);
        COMMIT;";
    store.execute_batch(sql).unwrap();
}

fn cell(value: rusqlite::types::ValueRef<'_>) -> Json {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(i) => json!(i),
        ValueRef::Real(f) => json!(f),
        ValueRef::Text(t) | ValueRef::Blob(t) => json!(String::from_utf8_lossy(t)),
    }
}
