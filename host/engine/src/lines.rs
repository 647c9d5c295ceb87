//! Source lines of a component's code: a small table that `policy build` puts into the component, so that a fault names
//! file and line without the compiler's own debugging information, which is many times as large.

use serde::{Deserialize, Serialize};
use wasmparser::{Parser, Payload};

use super::name::prefixed;

/// The section of a component that has the table.
const SECTION: &str = "pointsman-lines";

/// A larger table is none, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// A longer name of a file is none of the table's, in bytes.
const MAX_FILE_BYTES: usize = 200;

/// Source lines by place in the code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineTable {
    /// Source files by the number that positions name them by.
    pub files: Vec<String>,
    /// Start of each line, ordered by function and offset.
    pub rows: Vec<LineRow>,
}

/// From this place on, up to the next row of the same function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineRow {
    /// The function, by its index in its module.
    pub function: u32,
    /// From its beginning, in bytes.
    pub offset: u32,
    /// The source, by its place in the list.
    pub file: u32,
    /// Its line; 0: none.
    pub line: u32,
}

impl LineTable {
    /// The component with this table.
    pub fn put_into(&self, mut component: Vec<u8>) -> Vec<u8> {
        let Ok(table) = postcard::to_allocvec(self) else { return component };
        if self.rows.is_empty() || table.len() > MAX_BYTES {
            return component;
        }
        let section = [prefixed(SECTION.as_bytes()), table].concat();
        // A custom section.
        component.push(0);
        component.extend(prefixed(&section));
        component
    }

    /// The table of a component; none: it has none, or one that cannot be read.
    pub(super) fn of(component: &[u8]) -> Option<Self> {
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(component) {
            match payload.ok()? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.checked_sub(1)?,
                Payload::CustomSection(section) if depth == 0 && section.name() == SECTION => {
                    // What it is decoded to may be far larger.
                    let data = Some(section.data()).filter(|data| data.len() <= MAX_BYTES)?;
                    let table: Self = postcard::from_bytes(data).ok()?;
                    let is_sound = table.rows.is_sorted_by_key(|row| (row.function, row.offset))
                        && table.files.iter().all(|file| file.len() <= MAX_FILE_BYTES);
                    return is_sound.then_some(table);
                }
                _ => {}
            }
        }
        None
    }

    /// `FILE:LINE` of a place in a function.
    pub(super) fn place(&self, function: u32, offset: u32) -> Option<String> {
        let after = self.rows.partition_point(|row| (row.function, row.offset) <= (function, offset));
        let row = self.rows.get(after.checked_sub(1)?)?;
        let file = self.files.get(row.file as usize).filter(|_| row.function == function && row.line > 0)?;
        Some(format!("{file}:{}", row.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Engine;

    fn row(function: u32, offset: u32, file: u32, line: u32) -> LineRow {
        LineRow { function, offset, file, line }
    }

    #[test]
    fn a_place_is_in_the_line_that_began_last_before_it_in_the_same_function() {
        let files = vec!["policy.c".to_owned(), "pointsman/pointsman.c".to_owned()];
        let table =
            LineTable { files, rows: vec![row(4, 2, 0, 10), row(4, 9, 0, 11), row(6, 0, 1, 7), row(6, 5, 1, 0)] };
        let place = |function, offset| table.place(function, offset);
        assert_eq!(place(4, 2).as_deref(), Some("policy.c:10"));
        assert_eq!(place(4, 8).as_deref(), Some("policy.c:10"));
        assert_eq!(place(4, 900).as_deref(), Some("policy.c:11"));
        assert_eq!(place(6, 4).as_deref(), Some("pointsman/pointsman.c:7"));
        for (function, offset) in [(4, 1), (5, 3), (6, 5), (0, 0)] {
            assert_eq!(place(function, offset), None, "{function} {offset}");
        }
        let component = table.put_into(Engine::embedded_bytes().to_vec());
        assert_eq!(LineTable::of(&component), Some(table));
        assert_eq!(LineTable::of(Engine::embedded_bytes()), None);
    }

    #[test]
    fn a_table_that_is_none_is_left_out() {
        let unsorted = LineTable { files: vec!["a".into()], rows: vec![row(2, 0, 0, 1), row(1, 0, 0, 1)] };
        assert_eq!(LineTable::of(&unsorted.put_into(Engine::embedded_bytes().to_vec())), None);
        let strange = LineTable { files: vec!["a".repeat(300)], rows: vec![row(1, 0, 0, 1)] };
        assert_eq!(LineTable::of(&strange.put_into(Engine::embedded_bytes().to_vec())), None);
        let nowhere = LineTable { files: Vec::new(), rows: vec![row(1, 0, 9, 1)] };
        assert_eq!(nowhere.place(1, 0), None);
    }
}
