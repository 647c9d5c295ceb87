//! The compiler's debugging information (DWARF) of a core module, made into the small table that goes into the component.

use std::collections::BTreeMap;
use std::path::Path;

use gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};
use pointsman_engine::{LineRow, LineTable};
use wasmparser::{Parser, Payload, TypeRef};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Places of the parts of a module that line information refers to.
#[derive(Default)]
struct Layout<'a> {
    /// The debugging information, by the names of its sections.
    debug: BTreeMap<&'a str, &'a [u8]>,
    /// The code's beginning in the module: addresses count from here.
    code: usize,
    imported_functions: u32,
    /// Beginning and end of each function's body in the module.
    bodies: Vec<(usize, usize)>,
}

/// The lines of a module; its sources are named as they are called from `folder`. Without debugging information there are none.
pub(super) fn table(module: &[u8], folder: &Path) -> LineTable {
    let Some(layout) = layout(module) else { return LineTable::default() };
    // What a compiler writes wrongly costs the lines, and not the policy.
    let mut table = read(&layout, folder).unwrap_or_default();
    table.rows.sort_by_key(|row| (row.function, row.offset));
    table.rows.dedup_by_key(|row| (row.function, row.offset));
    table.rows.dedup_by_key(|row| (row.function, row.file, row.line));
    table
}

/// The module without its debugging information.
pub(super) fn stripped(module: &[u8]) -> Vec<u8> {
    let (mut kept, mut end) = (Vec::with_capacity(module.len()), 0);
    for payload in Parser::new(0).parse_all(module) {
        let Ok(payload) = payload else { return module.to_vec() };
        match &payload {
            Payload::Version { range, .. } => {
                kept.extend_from_slice(&module[..range.end]);
                end = range.end;
                continue;
            }
            Payload::CustomSection(section) => {
                // What is before a section's content: its kind and its size.
                if !section.name().starts_with(".debug_") {
                    kept.extend_from_slice(&module[end..section.range().end]);
                }
                end = section.range().end;
                continue;
            }
            _ => {}
        }
        if let Some((_, range)) = payload.as_section() {
            kept.extend_from_slice(&module[end..range.end]);
            end = range.end;
        }
    }
    kept
}

fn layout(module: &[u8]) -> Option<Layout<'_>> {
    let mut layout = Layout::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload.ok()? {
            Payload::ImportSection(imports) => {
                let is_function = |import: &wasmparser::Import<'_>| matches!(import.ty, TypeRef::Func(_));
                let functions = imports.into_imports().filter_map(Result::ok).filter(is_function).count();
                layout.imported_functions = u32::try_from(functions).ok()?;
            }
            Payload::CodeSectionStart { range, .. } => layout.code = range.start,
            Payload::CodeSectionEntry(body) => layout.bodies.push((body.range().start, body.range().end)),
            Payload::CustomSection(section) if section.name().starts_with(".debug_") => {
                layout.debug.insert(section.name(), section.data());
            }
            _ => {}
        }
    }
    Some(layout)
}

impl Layout<'_> {
    /// The function that an address is in, and how far.
    fn function(&self, address: u64) -> Option<(u32, u32)> {
        let place = self.code + usize::try_from(address).ok()?;
        let after = self.bodies.partition_point(|(begin, _)| *begin <= place);
        let number = after.checked_sub(1)?;
        let (begin, end) = self.bodies[number];
        let function = self.imported_functions + u32::try_from(number).ok()?;
        (place < end).then_some((function, u32::try_from(place - begin).ok()?))
    }
}

fn read(layout: &Layout<'_>, folder: &Path) -> gimli::Result<LineTable> {
    let section = |id: SectionId| -> gimli::Result<Bytes<'_>> {
        Ok(EndianSlice::new(layout.debug.get(id.name()).copied().unwrap_or_default(), LittleEndian))
    };
    let dwarf = Dwarf::load(section)?;
    let (mut files, mut rows): (Vec<String>, Vec<LineRow>) = (Vec::new(), Vec::new());
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        let Some(program) = unit.line_program.clone() else { continue };
        let mut named = BTreeMap::new();
        let mut lines = program.rows();
        while let Some((header, row)) = lines.next_row()? {
            if row.end_sequence() {
                continue;
            }
            let Some((function, offset)) = layout.function(row.address()) else { continue };
            let file = match named.get(&row.file_index()) {
                Some(file) => *file,
                None => {
                    let name = name(&dwarf, &unit, header, row, folder)?;
                    let at = files.iter().position(|known| *known == name).unwrap_or_else(|| {
                        files.push(name);
                        files.len() - 1
                    });
                    named.insert(row.file_index(), at as u32);
                    at as u32
                }
            };
            let line = row.line().map_or(0, |line| u32::try_from(line.get()).unwrap_or(0));
            rows.push(LineRow { function, offset, file, line });
        }
    }
    Ok(LineTable { files, rows })
}

/// A source as it is called from the project's folder, or else by its last name.
fn name<'a>(
    dwarf: &Dwarf<Bytes<'a>>,
    unit: &gimli::Unit<Bytes<'a>>,
    header: &gimli::LineProgramHeader<Bytes<'a>>,
    row: &gimli::LineRow,
    folder: &Path,
) -> gimli::Result<String> {
    let text = |value| dwarf.attr_string(unit, value).map(|text| text.to_string_lossy().into_owned());
    let Some(file) = row.file(header) else { return Ok(String::new()) };
    let (name, within) = (text(file.path_name())?, file.directory(header).map(text).transpose()?);
    let whole = within.map_or_else(|| name.clone().into(), |within| Path::new(&within).join(&name));
    let last = || Path::new(&name).file_name().map_or_else(|| name.clone(), |last| last.to_string_lossy().into_owned());
    Ok(whole.strip_prefix(folder).map_or_else(|_| last(), |inside| inside.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debugging_information_goes_and_everything_else_stays() {
        let module = wat::parse_str(
            r#"(module (import "a" "b" (func)) (func (export "f")) (@custom ".debug_line" "x") (@custom "name" (after func) "y"))"#,
        )
        .unwrap();
        let without = stripped(&module);
        assert!(without.len() < module.len());
        let names = |module: &[u8]| -> Vec<String> {
            let custom = |payload| match payload {
                Ok(Payload::CustomSection(section)) => Some(section.name().to_owned()),
                _ => None,
            };
            Parser::new(0).parse_all(module).filter_map(custom).collect()
        };
        assert!(names(&module).contains(&".debug_line".to_owned()));
        assert!(!names(&without).contains(&".debug_line".to_owned()) && !names(&without).is_empty());
        let (before, after) = (layout(&module).unwrap(), layout(&without).unwrap());
        assert_eq!((before.imported_functions, before.bodies.len()), (after.imported_functions, after.bodies.len()));
        assert_eq!(stripped(&without), without);
    }

    #[test]
    fn a_module_without_debugging_information_has_no_lines() {
        let module = wat::parse_str("(module (func))").unwrap();
        assert_eq!(table(&module, Path::new("/")), LineTable::default());
        assert_eq!(table(b"nonsense", Path::new("/")), LineTable::default());
    }
}
