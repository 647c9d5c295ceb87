//! Another answer, read until it says something new, and from there on relayed as the continuation.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::Value;

use super::transcript::Transcript;
use crate::dialect::format::{Part, Unfit, Verdict, Walked, Walker, choice_of};
use crate::http::sse::Event;

/// Treatment of an event of the resuming answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Emit {
    /// It goes on as it was received.
    AsReceived,
    /// This goes on in its place.
    Instead(Bytes),
    /// It was delivered already, or means nothing now.
    Nothing,
}

/// Joins an answer to what was delivered.
#[derive(Clone, Debug)]
pub struct Joiner {
    told: Transcript,
    /// Length of each text that the resuming answer has repeated so far.
    said: Vec<usize>,
    /// Marks it has made again.
    seen: BTreeSet<String>,
    /// It was given what was delivered; the tokens of that.
    prefilled: Option<u64>,
    /// Length of the prefill that it has repeated so far, while it may be a server that repeats it.
    echoed: Option<usize>,
    /// Choices in which it has said something new.
    joined: BTreeSet<u64>,
    /// Choices that had ended before: what it says of them is not looked at.
    over: BTreeSet<u64>,
    has_joined: bool,
    /// Nothing was delivered before, so that it is simply the answer.
    is_first: bool,
}

impl Joiner {
    /// Joins an answer that begins at the beginning.
    pub fn splice(told: Transcript) -> Self {
        let said = vec![0; told.texts.len()];
        let is_first = !told.has_begun();
        let over = told.ended.clone();
        Self {
            told,
            said,
            seen: BTreeSet::new(),
            prefilled: None,
            echoed: None,
            joined: BTreeSet::new(),
            over,
            has_joined: is_first,
            is_first,
        }
    }

    /// Joins an answer that was given what was delivered, up to its last `unsent_bytes`, which are white space.
    pub fn continued(told: Transcript, unsent_bytes: usize) -> Self {
        let mut joiner = Self::splice(told);
        joiner.said = joiner.told.texts.iter().map(|(_, text)| text.len()).collect();
        if let Some(said) = joiner.said.first_mut() {
            *said = said.saturating_sub(unsent_bytes);
        }
        joiner.seen = joiner.told.marks.clone();
        joiner.prefilled = Some(joiner.told.tokens());
        joiner.echoed = (joiner.told.text_bytes() >= MIN_ECHO_BYTES).then_some(0);
        joiner
    }

    /// Returns true once the answer has new text, which the client gets.
    pub const fn has_joined(&self) -> bool {
        self.has_joined
    }

    /// Returns true if nothing was delivered before, so that there is nothing to join.
    pub const fn is_first(&self) -> bool {
        self.is_first
    }

    /// Returns the transcript, this answer's part included.
    pub const fn told(&self) -> &Transcript {
        &self.told
    }

    /// Looks at an event of the answer.
    ///
    /// # Errors
    /// [`Unfit`] before it has joined: nothing of it was delivered, and nothing may be.
    pub fn take(&mut self, event: &Event<'_>) -> Result<Emit, Unfit> {
        if self.is_first {
            self.told.see(event);
            return Ok(Emit::AsReceived);
        }
        let Some(data) = event.data else { return Ok(self.meta()) };
        if data.trim_ascii() == b"[DONE]" {
            return if self.has_joined && self.has_said_all() { Ok(Emit::AsReceived) } else { Err(Unfit::Shorter) };
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(data) else { return Err(Unfit::Unreadable) };
        let before = self.has_joined;
        let walked = {
            let original = before.then(|| value.clone());
            match self.walk(&mut value) {
                Ok(walked) => walked,
                Err(Unfit::NotText) if before && self.has_said_all() => {
                    // What cannot be compared can still be relayed; only resumed again it cannot be.
                    value = original.unwrap_or_default();
                    return Ok(self.emit(event.name, value));
                }
                Err(unfit) => return Err(unfit),
            }
        };
        match walked {
            w if w.kept > 0 => Ok(self.emit(event.name, value)),
            w if w.parts == 0 && self.has_joined => Ok(self.emit(event.name, value)),
            _ => Ok(Emit::Nothing),
        }
    }

    fn walk(&mut self, event: &mut Value) -> Result<Walked, Unfit> {
        let format = self.told.format.ok_or(Unfit::Unknown)?;
        let mut judge = |part: Part<'_>| self.judge(part);
        let mut walker = Walker::new(&mut judge);
        format.walk(&mut walker, event)?;
        Ok(walker.walked())
    }

    /// Comments and the like.
    const fn meta(&self) -> Emit {
        if self.has_joined { Emit::AsReceived } else { Emit::Nothing }
    }

    /// All that was delivered of each choice has been said again.
    fn has_said_all(&self) -> bool {
        self.told.open_choices().all(|choice| self.is_at_the_end(choice))
    }

    fn judge(&mut self, part: Part<'_>) -> Result<Verdict, Unfit> {
        let choice = part.choice();
        match part {
            _ if self.over.contains(&choice) => Ok(Verdict::Drop),
            // The client did without it, or has it.
            Part::Note(note) if self.told.notes.contains(note) || !self.is_at_the_end(choice) => Ok(Verdict::Drop),
            Part::Mark(mark) if self.told.marks.contains(mark) => {
                self.seen.insert(mark.to_owned());
                Ok(Verdict::Drop)
            }
            Part::Text { channel, text } if !self.joined.contains(&choice) => self.compare(channel, text),
            Part::Text { .. } | Part::Note(_) => Ok(Verdict::Keep),
            // The text that was given as a prefill stands open; nothing else can open in its place.
            Part::Mark(mark) if self.opens_instead_of_prefill(mark) => Err(Unfit::Differs),
            // Half an echo and then something else: what it means cannot be known.
            Part::Mark(_) | Part::End(_) if self.echoed.is_some_and(|echoed| echoed > 0) => Err(Unfit::Shorter),
            Part::Mark(_) => self.join(choice, Unfit::Differs),
            Part::End(_) => self.join(choice, Unfit::Shorter),
        }
    }

    fn opens_instead_of_prefill(&self, mark: &str) -> bool {
        let Some(format) = self.told.format else { return false };
        let is_open = || format.prefill_mark().is_some_and(|mark| self.told.marks.contains(mark));
        format.opens_instead_of_prefill(mark) && is_open()
    }

    fn compare(&mut self, channel: &str, text: &str) -> Result<Verdict, Unfit> {
        let Some(at) = self.told.texts.iter().position(|(name, _)| name == channel) else {
            // Who was given a text goes on with it, or calls a tool; thoughts do not come after it.
            let may_begin = self.prefilled.is_none() || channel.starts_with("tool/");
            return if may_begin { self.join(choice_of(channel), Unfit::Differs) } else { Err(Unfit::Differs) };
        };
        if let Some(echoed) = self.echoed {
            return self.hear_echo(at, echoed, text);
        }
        let rest = &self.told.texts[at].1.as_bytes()[self.said[at]..];
        let agrees = common(rest, text);
        self.said[at] += agrees;
        if agrees == text.len() {
            return Ok(Verdict::Drop);
        }
        if agrees < rest.len() && self.prefilled.is_none() {
            return Err(Unfit::Differs);
        }
        // White space that ended the delivered text was not sent, and need not be said again.
        self.said[at] += rest.len() - agrees;
        self.join(choice_of(channel), Unfit::Differs)?;
        Ok(if agrees > 0 { Verdict::From(agrees) } else { Verdict::Keep })
    }

    /// Some servers begin their answer with what they were given. While it looks like that, nothing goes on; all of it
    /// is what was delivered, part of it was no echo.
    fn hear_echo(&mut self, at: usize, echoed: usize, text: &str) -> Result<Verdict, Unfit> {
        let told = &self.told.texts[at].1;
        let agrees = common(&told.as_bytes()[echoed..], text);
        let is_whole = echoed + agrees == told.len();
        self.echoed = (agrees == text.len()).then_some(echoed + agrees);
        if is_whole {
            (self.echoed, self.said[at]) = (None, told.len());
            return if agrees == text.len() {
                Ok(Verdict::Drop)
            } else {
                let choice = choice_of(&self.told.texts[at].0);
                self.join(choice, Unfit::Differs).map(|_| Verdict::From(agrees))
            };
        }
        if self.echoed.is_some() {
            return Ok(Verdict::Drop);
        }
        let whole = format!("{}{text}", &told[..echoed]);
        Ok(match self.compare(&self.told.texts[at].0.clone(), &whole)? {
            Verdict::Keep => Verdict::Instead(whole),
            Verdict::From(from) => Verdict::Instead(whole[from..].to_owned()),
            other @ (Verdict::Instead(_) | Verdict::Drop) => other,
        })
    }

    /// Something new of a choice: only once all that was delivered of it has been said again.
    fn join(&mut self, choice: u64, otherwise: Unfit) -> Result<Verdict, Unfit> {
        if !self.is_at_the_end(choice) {
            return Err(otherwise);
        }
        self.has_joined = true;
        self.joined.insert(choice);
        Ok(Verdict::Keep)
    }

    fn is_at_the_end(&self, choice: u64) -> bool {
        let is_of = |name: &str| choice_of(name) == choice;
        let marks_seen = || self.told.marks.iter().all(|mark| !is_of(mark) || self.seen.contains(mark));
        let all_said = || {
            let texts = self.told.texts.iter().zip(&self.said);
            texts.into_iter().all(|((name, text), said)| !is_of(name) || *said == text.len())
        };
        self.joined.contains(&choice) || self.prefilled.is_some() || marks_seen() && all_said()
    }

    /// Writes the event in the names the client knows, and remembers it as delivered.
    fn emit(&mut self, name: Option<&[u8]>, mut value: Value) -> Emit {
        if let Some(format) = self.told.format {
            format.restore_names(&self.told.names, &mut value);
            if let Some((answer, prompt)) = format.usage_names() {
                self.recount(value.get_mut("usage"), answer, prompt);
            }
        }
        let data = value.to_string();
        self.told.see_value(&mut value);
        let name = name.map_or_else(String::new, |name| format!("event: {}\n", String::from_utf8_lossy(name)));
        Emit::Instead(format!("{name}data: {data}\n\n").into())
    }

    /// A prefill was counted as the backend's prompt, and is part of the client's answer.
    fn recount(&self, usage: Option<&mut Value>, answer: &str, prompt: &str) {
        let (Some(told), Some(Value::Object(usage))) = (self.prefilled, usage) else { return };
        let number = |usage: &serde_json::Map<String, Value>, name: &str| usage.get(name).and_then(Value::as_u64);
        if let Some(tokens) = number(usage, answer) {
            usage.insert(answer.to_owned(), (tokens + told).into());
            if let Some(tokens) = number(usage, prompt) {
                usage.insert(prompt.to_owned(), tokens.saturating_sub(told).into());
            }
        }
    }
}

/// A continuation that begins with the same few words is nothing unusual; one that says so much again is an echo.
const MIN_ECHO_BYTES: usize = 32;

fn common(told: &[u8], text: &str) -> usize {
    // Two characters may begin with the same byte and differ in the next.
    text.floor_char_boundary(told.iter().zip(text.as_bytes()).take_while(|(a, b)| a == b).count())
}
