//! Conversations made fit for an API that is stricter about their order: turns that were interrupted, instructions in the
//! middle, pictures in results. What cannot stand where it was is said in another place; what is missing is said to be so.

use std::borrow::Cow;

use super::neutral::{Call, Choice, Json, Part, Request, Tool, ToolResult, Turn};
use super::{Api, LeftOut, Read, Untranslatable};

/// The result of a call that has none.
const NO_RESULT: &str = "The tool call was interrupted and has no result.";

/// A message for an API that wants one where nobody said anything.
const NOTHING_SAID: &str = "(no content)";

/// The request to go on, for an API that would take the assistant's last message for the beginning of its answer.
const GO_ON: &str = "Go on.";

/// The schema of a tool of which only its calls are known.
const ANY_INPUT: &str = r#"{"type":"object"}"#;

/// Makes the conversation fit for this API. Strict reading leaves it as it is.
///
/// # Errors
/// None where `left_out` is lenient.
pub(super) fn mend(request: &mut Request<'_>, target: &Api, left_out: &LeftOut) -> Read<()> {
    if left_out.is_strict() {
        return Ok(());
    }
    let changed = |why: String| left_out.add(Untranslatable::new("messages", why));
    let mut turns = paired(std::mem::take(&mut request.turns), &changed)?;
    if !target.takes_late_instructions {
        turns = turns.into_iter().filter_map(said_by_the_user).collect();
    }
    if !target.takes_pictures_in_results {
        turns = with_pictures_outside(turns);
    }
    if turns.is_empty() && request.system.is_empty() {
        turns.push(Turn::User(vec![Part::Text(NOTHING_SAID.into())]));
    }
    if !target.takes_empty_messages && turns.is_empty() {
        let texts = std::mem::take(&mut request.system).into_iter().map(Part::Text).collect();
        turns.push(Turn::User(texts));
        changed(format!("has no message of a user, and {} needs one: the instructions are it", target.name))?;
    } else if !target.takes_empty_messages && matches!(turns.first(), Some(Turn::Assistant { .. })) {
        turns.insert(0, Turn::User(vec![Part::Text(NOTHING_SAID.into())]));
        changed(format!("begins with the assistant, and {} wants a user first", target.name))?;
    }
    if target.continues_the_assistant && matches!(turns.last(), Some(Turn::Assistant { .. })) {
        turns.push(Turn::User(vec![Part::Text(GO_ON.into())]));
    }
    request.turns = turns;
    if target.needs_tools_beside_calls && request.tools.is_empty() {
        tell_tools_that_were_called(request);
    }
    Ok(())
}

/// Adds the tools that a conversation has called and its request offers no longer, none of which may be called.
fn tell_tools_that_were_called(request: &mut Request<'_>) {
    for turn in &request.turns {
        let Turn::Assistant { calls, .. } = turn else { continue };
        for Call { name, .. } in calls {
            if !request.tools.iter().any(|tool| tool.name == *name) {
                let schema = Json::verbatim(ANY_INPUT);
                request.tools.push(Tool { name: name.clone(), description: None, schema, strict: None });
            }
        }
    }
    if !request.tools.is_empty() {
        request.choice = Some(Choice::None);
    }
}

/// The turns with the results of every turn's calls right behind it: those that came later are moved there, missing ones
/// are added, and those of no call are told by the user.
fn paired<'a>(turns: Vec<Turn<'a>>, changed: &dyn Fn(String) -> Read<()>) -> Read<Vec<Turn<'a>>> {
    let mut paired = Vec::with_capacity(turns.len());
    let mut rest = turns.into_iter().peekable();
    while let Some(turn) = rest.next() {
        match turn {
            Turn::Assistant { mut texts, mut calls } if !calls.is_empty() => {
                // Some clients split the calls of one turn.
                while let Some(Turn::Assistant { texts: more, calls: others }) =
                    rest.next_if(|next| matches!(next, Turn::Assistant { .. }))
                {
                    texts.extend(more);
                    calls.extend(others);
                }
                let mut answers = Answers::new(&calls);
                while let Some(turn) = rest.next_if(|next| !matches!(next, Turn::Assistant { .. })) {
                    answers.take(turn, changed)?;
                }
                paired.push(Turn::Assistant { texts, calls });
                paired.extend(answers.finish(changed)?);
            }
            Turn::Results(results) => {
                changed("has results of no tool call".to_owned())?;
                paired.extend(results.into_iter().map(without_call));
            }
            turn => paired.push(turn),
        }
    }
    Ok(paired)
}

/// The turns between an assistant's calls and its next turn.
struct Answers<'a> {
    /// Ids of calls without a result.
    waiting: Vec<Cow<'a, str>>,
    results: Vec<ToolResult<'a>>,
    others: Vec<Turn<'a>>,
}

impl<'a> Answers<'a> {
    fn new(calls: &[Call<'a>]) -> Self {
        Self { waiting: calls.iter().map(|call| call.id.clone()).collect(), results: Vec::new(), others: Vec::new() }
    }

    fn take(&mut self, turn: Turn<'a>, changed: &dyn Fn(String) -> Read<()>) -> Read<()> {
        let results = match turn {
            Turn::Results(results) => results,
            turn @ (Turn::User(_) | Turn::Assistant { .. } | Turn::System(_)) => {
                self.others.push(turn);
                return Ok(());
            }
        };
        for result in results {
            match self.waiting.iter().position(|id| *id == result.call) {
                Some(at) => {
                    self.waiting.remove(at);
                    self.results.push(result);
                }
                None => {
                    changed("has a result of no tool call".to_owned())?;
                    self.others.push(without_call(result));
                }
            }
        }
        Ok(())
    }

    fn finish(mut self, changed: &dyn Fn(String) -> Read<()>) -> Read<Vec<Turn<'a>>> {
        for call in self.waiting {
            changed(format!("has no result of the tool call {call:?}, so one that says so was added"))?;
            self.results.push(ToolResult { call, parts: vec![Part::Text(NO_RESULT.into())] });
        }
        let mut turns = vec![Turn::Results(self.results)];
        turns.append(&mut self.others);
        Ok(turns)
    }
}

/// A result as the user tells it.
fn without_call(result: ToolResult<'_>) -> Turn<'_> {
    let heading = Part::Text(format!("The result of the tool call {}:", result.call).into());
    Turn::User([heading].into_iter().chain(result.parts).collect())
}

/// An instruction in the middle, in a user's message and marked as coding agents mark theirs.
fn said_by_the_user(turn: Turn<'_>) -> Option<Turn<'_>> {
    match turn {
        Turn::System(texts) if texts.is_empty() => None,
        Turn::System(texts) => {
            let marked =
                |text: Cow<'_, str>| Part::Text(format!("<system-reminder>\n{text}\n</system-reminder>").into());
            Some(Turn::User(texts.into_iter().map(marked).collect()))
        }
        turn => Some(turn),
    }
}

/// Moves what is no text out of results, into a user's message behind them.
fn with_pictures_outside(turns: Vec<Turn<'_>>) -> Vec<Turn<'_>> {
    let mut moved = Vec::with_capacity(turns.len());
    let mut number = 0;
    for turn in turns {
        let Turn::Results(mut results) = turn else {
            moved.push(turn);
            continue;
        };
        let mut shown = Vec::new();
        for ToolResult { call, parts } in &mut results {
            for part in parts.iter_mut().filter(|part| !matches!(part, Part::Text(_))) {
                number += 1;
                let stand_in = Part::Text(format!("(attachment {number}: see the next message)").into());
                let heading = format!("Attachment {number}, from the result of the tool call {call}:");
                shown.extend([Part::Text(heading.into()), std::mem::replace(part, stand_in)]);
            }
        }
        moved.push(Turn::Results(results));
        if !shown.is_empty() {
            moved.push(Turn::User(shown));
        }
    }
    moved
}
