//! The columns of a row and the words of the contract stand once, in core; the SDKs' lists of them are generated.
//!
//! After a change: `POINTSMAN_WRITE_SDK_LISTS=1 cargo test -p pointsman-core --test sdk_lists`, then `policies/build`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pointsman_core::contract::{Column, NONE, Operation, RowState};
use pointsman_core::outcome::Kind;

/// Around what is generated in a file that is written by hand otherwise.
const BEGIN: &str = "generated from host/core by its test sdk_lists";
const END: &str = "end of what is generated";

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policy-sdk").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_default()
}

/// Holds a file against what it should be, or writes it.
fn check(file: &str, expected: &str) {
    if std::env::var_os("POINTSMAN_WRITE_SDK_LISTS").is_some() {
        std::fs::write(path(file), expected).unwrap();
    }
    assert!(
        read(file) == expected,
        "policy-sdk/{file} has other columns or words than core: write it again, as sdk_lists.rs says"
    );
}

/// The same for what stands between the two marks.
fn check_block(file: &str, generated: &str) {
    let text = read(file);
    let (head, rest) = text
        .split_once(BEGIN)
        .and_then(|(head, rest)| {
            let line = rest.find('\n')? + 1;
            Some((&text[..head.len() + BEGIN.len() + line], &rest[line..]))
        })
        .unwrap_or_else(|| panic!("policy-sdk/{file} has no block"));
    let end = rest.find(END).unwrap_or_else(|| panic!("the block of policy-sdk/{file} does not end"));
    let end = rest[..end].rfind('\n').map_or(0, |newline| newline + 1);
    check(file, &format!("{head}{generated}{}", &rest[end..]));
}

fn unknown(column: Column, none: &str) -> String {
    if column.unknown() == NONE { none.to_owned() } else { column.unknown().to_string() }
}

/// Items, in lines of at most 118 characters that begin with an indent.
fn wrapped(items: impl IntoIterator<Item = String>, indent: &str) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for item in items {
        if !line.is_empty() && line.len() + item.len() + 2 > 118 {
            writeln!(text, "{}", line.trim_end()).unwrap();
            line.clear();
        }
        let before = if line.is_empty() { indent } else { " " };
        write!(line, "{before}{item},").unwrap();
    }
    text + &line + "\n"
}

fn quoted(word: &str) -> String {
    format!("{word:?}")
}

#[test]
fn rust_has_the_columns_and_states() {
    let columns: String = Column::ALL.iter().map(|column| format!("    {column:?},\n")).collect();
    let names: String =
        Column::ALL.iter().map(|column| format!("    (Column::{column:?}, {:?}),\n", column.as_str())).collect();
    let unknown = |column: &Column| format!("            Column::{column:?} => {},\n", unknown(*column, "NONE"));
    let unknown: String = Column::ALL.iter().map(unknown).collect();
    let state = |state: &RowState| format!("            {} => State::{state:?},\n", *state as u32);
    let states: String = RowState::ALL.iter().map(state).collect();
    let count = Column::ALL.len();
    check(
        "src/columns.rs",
        &format!(
            "//! The columns of a row that this SDK knows, and the numbers of the states: {BEGIN}.

use crate::NONE;
use crate::words::State;

/// A number of a backend's row that this SDK knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {{
{columns}}}

/// Every column with its name, in the order of the enum.
pub(crate) const COLUMNS: [(Column, &str); {count}] = [
{names}];

impl Column {{
    /// The number that stands for \"unknown\" where the host has no such column.
    #[inline]
    pub(crate) const fn unknown(self) -> u32 {{
        match self {{
{unknown}        }}
    }}
}}

impl State {{
    /// The state of this number.
    #[inline]
    pub(crate) const fn of(number: u32) -> Self {{
        match number {{
{states}            _ => State::Unknown,
        }}
    }}
}}
"
        ),
    );
}

/// Its documentation is written by hand, so the words are not generated.
#[test]
fn rust_has_the_vocabularies() {
    let text = read("src/words.rs");
    let words = |name: &str| -> Vec<(String, String)> {
        let (_, list) = text.split_once(&format!("    {name} {{\n")).expect("there is such a vocabulary");
        let list = list.split_once("\n    }").map_or(list, |(list, _)| list);
        let word = |line: &str| {
            let (case, word) = line.trim().trim_end_matches(',').split_once(" = ")?;
            Some((case.to_owned(), word.trim_matches('"').to_owned()))
        };
        list.lines().filter(|line| !line.trim().starts_with("//")).filter_map(word).collect()
    };
    let outcomes: Vec<_> = Kind::ALL.iter().map(|kind| (format!("{kind:?}"), kind.as_str().to_owned())).collect();
    assert_eq!(words("Outcome"), outcomes);
    let operations: Vec<_> = Operation::ALL.iter().map(|o| (format!("{o:?}"), o.as_str().to_owned())).collect();
    assert_eq!(words("Operation"), operations);
}

#[test]
fn javascript_has_the_columns_and_states() {
    let states = wrapped(RowState::ALL.map(|state| quoted(state.as_str())), "  ");
    let columns = Column::ALL.map(|column| format!("  {}: {},\n", column.as_str(), unknown(column, "NONE"))).concat();
    check_block(
        "js/pointsman.js",
        &format!(
            "
/// The words behind a row's `state`, by number.
const STATES = [
{states}];

/// The columns of a row that this file knows, each with what stands for \"unknown\" where the host does not have it.
const COLUMNS = {{
{columns}}};

"
        ),
    );
}

#[test]
fn python_has_the_columns_and_states() {
    let states = wrapped(RowState::ALL.map(|state| quoted(state.as_str())), "    ");
    let column = |column: Column| format!("    {:?}: {},\n", column.as_str(), unknown(column, "NONE"));
    let columns = Column::ALL.map(column).concat();
    check_block(
        "python/pointsman.py",
        &format!(
            "
#: The words behind a row's `state`, by number.
_STATES = (
{states})

#: The columns of a row that this file knows, each with what stands for \"unknown\" where the host does not have it.
_COLUMNS = {{
{columns}}}

"
        ),
    );
}

#[test]
fn c_has_the_columns_states_and_words() {
    let cases = |prefix: &str, words: &[&str], last: &[&str]| {
        let case = |word: &str| format!("{prefix}{}", word.to_uppercase());
        let all = words.iter().map(|word| case(word)).chain(last.iter().map(|&last| last.to_owned()));
        wrapped(all, "  ")
    };
    let (states, columns) = (RowState::ALL.map(RowState::as_str), Column::ALL.map(Column::as_str));
    let (outcomes, operations) = (Kind::ALL.map(Kind::as_str), Operation::ALL.map(Operation::as_str));
    let define = |column: Column| {
        format!("#define PM_COL_{}_UNKNOWN {}\n", column.as_str().to_uppercase(), unknown(column, "PM_NONE"))
    };
    check_block(
        "c/pointsman.h",
        &format!(
            "
/* What `pm_state` answers; a larger number is newer than this file. */
enum {{
{}}};

typedef enum {{
{}}} pm_outcome;

typedef enum {{
{}}} pm_operation;

/* The columns of a row that this file knows. */
typedef enum {{
{}}} pm_column;

/* What stands for \"unknown\" where the host has no such column. */
{}
",
            cases("PM_", &states, &[]),
            cases("PM_", &outcomes, &["PM_OUTCOME_UNKNOWN"]),
            cases("PM_", &operations, &["PM_OPERATION_UNKNOWN"]),
            cases("PM_COL_", &columns, &["PM_COLUMNS"]),
            Column::ALL.map(define).concat(),
        ),
    );
}

#[test]
fn c_has_their_names() {
    let list = |words: &[&str]| wrapped(words.iter().map(|word| quoted(word)), "  ");
    check_block(
        "c/pointsman.c",
        &format!(
            "
static const char *const COLUMNS[PM_COLUMNS] = {{
{}}};
static const char *const OUTCOMES[PM_OUTCOME_UNKNOWN] = {{
{}}};
static const char *const OPERATIONS[PM_OPERATION_UNKNOWN] = {{
{}}};

",
            list(&Column::ALL.map(Column::as_str)),
            list(&Kind::ALL.map(Kind::as_str)),
            list(&Operation::ALL.map(Operation::as_str)),
        ),
    );
}

/// The page for authors tells of every column.
#[test]
fn the_guide_has_the_columns() {
    let page = read("../policies/README.md");
    let (_, rows) = page.split_once("\n## A row\n").expect("it tells of rows");
    let rows = rows.split_once("\n## ").map_or(rows, |(rows, _)| rows);
    for column in Column::ALL {
        assert!(
            rows.contains(&format!("`{}`", column.as_str())),
            "policies/README.md does not tell of {}",
            column.as_str()
        );
    }
}
