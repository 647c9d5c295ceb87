//! Reads the tools of a request for Anthropic's messages API.
//!
//! A tool with a schema is one of the client's, and so are the few that Anthropic taught its models: those get the schema
//! that their reference describes. All others are run by Anthropic.

use std::borrow::Cow;

use crate::dialect::format::Read;
use crate::dialect::format::neutral::{Choice, Json, Tool};
use crate::dialect::format::read::Field;

/// Members of a tool that make no difference to the answer.
const HARMLESS: &[&str] = &["cache_control", "eager_input_streaming"];

/// A tool that clients run and whose schema Anthropic's models know.
struct Known {
    /// The beginning of its type; a date follows.
    prefix: &'static str,
    description: &'static str,
    schema: &'static str,
}

/// From the references of the bash, text editor and memory tools.
const KNOWN: [Known; 3] = [
    Known {
        prefix: "bash_",
        description: "Runs a command in a bash session that stays open between calls.",
        schema: r#"{"type":"object","properties":{"command":{"type":"string","description":"The command to run."},"restart":{"type":"boolean","description":"Restarts the session; no command is run."}}}"#,
    },
    Known {
        prefix: "text_editor_",
        description: "Views, creates and edits text files.",
        schema: r#"{"type":"object","properties":{"command":{"type":"string","enum":["view","create","str_replace","insert"]},"path":{"type":"string","description":"The file or directory."},"view_range":{"type":"array","items":{"type":"integer"},"description":"First and last line to view; -1 as the last: to the end."},"file_text":{"type":"string","description":"The text of the file to create."},"old_str":{"type":"string","description":"The text to replace, which must be in the file once."},"new_str":{"type":"string","description":"The text in its place."},"insert_line":{"type":"integer","description":"The line to insert after; 0: at the beginning."},"insert_text":{"type":"string","description":"The text to insert."}},"required":["command","path"]}"#,
    },
    Known {
        prefix: "memory_",
        description: "Views, creates, edits, renames and deletes files under /memories, which are kept between conversations.",
        schema: r#"{"type":"object","properties":{"command":{"type":"string","enum":["view","create","str_replace","insert","delete","rename"]},"path":{"type":"string"},"view_range":{"type":"array","items":{"type":"integer"}},"file_text":{"type":"string"},"old_str":{"type":"string"},"new_str":{"type":"string"},"insert_line":{"type":"integer"},"insert_text":{"type":"string"},"old_path":{"type":"string"},"new_path":{"type":"string"}},"required":["command"]}"#,
    },
];

/// The tools that the client runs. One that the provider runs is left out where the model can do without: it has others,
/// and this one was not chosen.
pub(super) fn read<'a>(field: Field<'a>, choice: Option<&Choice<'a>>) -> Read<Vec<Tool<'a>>> {
    let (mut tools, mut foreign) = (Vec::new(), Vec::new());
    for field in field.list()? {
        match tool(field)? {
            Ok(tool) => tools.push(tool),
            Err(server) => foreign.push(server),
        }
    }
    for (kind, name) in foreign {
        let is_chosen = matches!(choice, Some(Choice::Tool(chosen)) if Some(chosen) == name.as_ref());
        if is_chosen || tools.is_empty() {
            return Err(kind.no_counterpart());
        }
        kind.leave_out_without_counterpart()?;
    }
    Ok(tools)
}

type ServerTool<'a> = (Field<'a>, Option<Cow<'a, str>>);

/// A tool that the client runs; or the type and name of one that the provider runs.
fn tool<'a>(field: Field<'a>) -> Read<Result<Tool<'a>, ServerTool<'a>>> {
    let mut tool = field.object()?;
    tool.forget(HARMLESS);
    if let Some(kind) = tool.take("type").filter(|kind| !kind.is_one_of(&["custom"])) {
        let name = tool.take("name").map(|f| f.text()).transpose()?;
        let word = kind.text()?;
        let known = KNOWN.iter().find(|known| !kind.is_strict() && word.starts_with(known.prefix));
        return Ok(match (known, name) {
            (Some(known), Some(name)) => Ok(Tool {
                name,
                description: Some(known.description.into()),
                schema: Json::verbatim(known.schema),
                strict: None,
            }),
            (_, name) => Err((kind, name)),
        });
    }
    tool.hint("defer_loading", |f| f.bool() == Ok(false))?;
    tool.hint("allowed_callers", |f| f.json().text().split_whitespace().collect::<String>() == r#"["direct"]"#)?;
    tool.tuning("input_examples", Field::is_empty)?;
    let read = Tool {
        name: tool.need("name")?.text()?,
        description: tool.take("description").map(|f| f.text()).transpose()?,
        schema: tool.need("input_schema")?.json(),
        strict: tool.take("strict").map(|f| f.bool()).transpose()?,
    };
    tool.finish()?;
    Ok(Ok(read))
}
