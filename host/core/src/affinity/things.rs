//! Ids of stored things: those that a request names, and those that an answer tells.

use std::time::Duration;

use memchr::memmem;

use super::homes::Learned;
use super::key;
use super::session::is_id;
use crate::contract::Operation;
use crate::http::json;
use crate::http::query::decoded;

const DAY: Duration = Duration::from_secs(86_400);

/// OpenAI keeps a response for 30 days.
const RESPONSE_TTL: Duration = DAY.saturating_mul(30);

/// Files and the like stay until they are deleted; this long after their last use nobody will ask for them.
const STORED_TTL: Duration = DAY.saturating_mul(180);

/// Reasoning is sent again in the next turn.
const REASONING_TTL: Duration = DAY.saturating_mul(2);

/// The name space of keys.
const SPACE: &str = "thing";

/// The name space of the keys of a response's items. A request that brings an item along may go anywhere; one that refers to it
/// by its id may not.
const ITEM_SPACE: &str = "item";

/// Ids taken from one request.
const MAX_IDS: usize = 512;

/// Ids taken from one answer; a list of files has up to so many.
const MAX_MADE: usize = 10_000;

/// The end of a piece that is looked at again with the next one, in bytes: an id and its name may be cut between them.
const OVERLAP_BYTES: usize = 256;

/// The beginning of encrypted reasoning that tells it from any other, in bytes; its first bytes are a header.
const ENCRYPTED_BYTES: usize = 512;

/// Keys of the things that a request names, the most telling first: in its path behind the collection, in its body.
pub fn things_in_request(operation: Operation, own_path: &str, body: &[u8]) -> Vec<u64> {
    let mut keys = Vec::new();
    if operation.is_about_stored_things() || operation == Operation::Other {
        let segments = own_path.split('/').filter(|segment| !segment.is_empty()).skip(1);
        keys.extend(segments.map(|segment| key(SPACE, decoded(segment).as_bytes())));
    }
    let mut add = |id: &[u8]| {
        if keys.len() < MAX_IDS {
            keys.push(key(SPACE, id));
        }
    };
    match operation {
        Operation::Chat | Operation::Completion => strings(body, b"file_id\"", is_member, &mut add),
        Operation::Message => {
            strings(body, b"file_id\"", is_member, &mut add);
            strings(body, b"container\"", is_bare, &mut add);
        }
        Operation::Embedding
        | Operation::CountTokens
        | Operation::Image
        | Operation::Audio
        | Operation::Moderation
        | Operation::Rerank
        | Operation::Plain => {}
        Operation::Response
        | Operation::InputTokens
        | Operation::Stored
        | Operation::AnthropicOther
        | Operation::Other => {
            strings(body, b"conversation\"", is_member, &mut add);
            strings(body, b"id\"", is_member, &mut add);
            strings(body, b"ids\"", is_member, &mut add);
            strings(body, b"file\"", is_member, &mut add);
            strings(body, b"container\"", is_bare, &mut add);
            strings(body, b"encrypted_content\"", is_member, &mut |text| add(encrypted(text)));
            if operation == Operation::Response && memmem::find(body, b"\"item_reference\"").is_some() {
                references(body, &mut |id| keys.push(key(ITEM_SPACE, id)));
            }
        }
    }
    keys
}

/// Hands out the ids of the input items that are references to items of earlier responses.
fn references(body: &[u8], add: &mut dyn FnMut(&[u8])) {
    let Some(input) = json::member(body, "input") else { return };
    let mut at = json::Cursor::new(input);
    if !at.enter(b'[') {
        return;
    }
    for _ in 0..MAX_IDS {
        if !at.has_element() {
            return;
        }
        let item = at.value();
        if json::member(item, "type") == Some(b"\"item_reference\"")
            && let Some(id) = json::member(item, "id").and_then(string)
        {
            add(id);
        }
    }
}

/// The key of the stored response that a path names.
pub fn response_in_path(own_path: &str) -> Option<u64> {
    let id = own_path.strip_prefix("/responses/")?.split('/').next().filter(|id| !id.is_empty())?;
    Some(key(SPACE, decoded(id).as_bytes()))
}

/// Learns from the pieces of one answer which things its backend has made.
#[derive(Debug)]
pub struct Learner {
    operation: Operation,
    /// The key of the response that it is, once it was seen.
    response: Option<u64>,
    left: usize,
    /// The end of the last piece, behind the last id that was learned.
    end: Vec<u8>,
}

impl Learner {
    /// A learner for answers of this operation; none where they make nothing that lasts. `own_path`: without the API's root.
    pub fn new(operation: Operation, own_path: &str) -> Option<Self> {
        let is_content = own_path.ends_with("/content") || own_path.ends_with("/results");
        let makes = operation.is_about_stored_things() || operation == Operation::Other;
        let learns = matches!(operation, Operation::Response | Operation::Message) || makes && !is_content;
        learns.then_some(Self { operation, response: None, left: MAX_MADE, end: Vec::new() })
    }

    /// Returns the key of the response that the answer is, once its id was read.
    pub const fn response(&self) -> Option<u64> {
        self.response
    }

    /// Reads a piece of a good answer: of a stream whole events, of a long list what has just come.
    pub fn read(&mut self, piece: &[u8], mut learn: impl FnMut(Learned)) {
        if self.operation != Operation::Response && self.operation != Operation::Message {
            return self.read_list(piece, learn);
        }
        let left = &mut self.left;
        let mut add_in = |space: &str, ttl: Duration, id: &[u8]| {
            if *left > 0 && !id.is_empty() {
                *left -= 1;
                learn(Learned { key: key(space, id), ttl });
            }
        };
        if self.operation == Operation::Message {
            // Where code ran, and what it has left there.
            strings(piece, b"\"container\"", |_| true, &mut |id| add_in(SPACE, STORED_TTL, id));
            return;
        }
        let mut add = |ttl: Duration, id: &[u8]| add_in(SPACE, ttl, id);
        if self.response.is_none() {
            let response = match piece.trim_ascii_start().first() {
                Some(b'{') => Some(piece),
                Some(_) | None => memmem::find(piece, b"\"response\":").map(|at| &piece[at + b"\"response\":".len()..]),
            };
            if let Some(id) = response.and_then(|response| json::member(response, "id")).and_then(string) {
                self.response = Some(key(SPACE, id));
                add(RESPONSE_TTL, id);
            }
            strings(piece, b"conversation\"", is_member, &mut |id| add(STORED_TTL, id));
        }
        let is_of_items = is_of_items(piece);
        if is_of_items || memmem::find(piece, b"encrypted_content\"").is_some() {
            strings(piece, b"encrypted_content\"", is_member, &mut |text| add(REASONING_TTL, encrypted(text)));
        }
        if is_of_items {
            strings(piece, b"id\"", is_of_container, &mut |id| add(STORED_TTL, id));
            strings(piece, b"id\"", is_bare, &mut |id| {
                if id.starts_with(b"rs_") {
                    add_in(SPACE, REASONING_TTL, id);
                }
                if !id.starts_with(b"resp_") {
                    add_in(ITEM_SPACE, RESPONSE_TTL, id);
                }
            });
        }
    }
}

impl Learner {
    /// The overlap of two pieces is looked at twice, but for an id that was learned.
    fn read_list(&mut self, piece: &[u8], mut learn: impl FnMut(Learned)) {
        let joined;
        let list = match self.end.is_empty() {
            true => piece,
            false => {
                joined = [&self.end, piece].concat();
                &joined
            }
        };
        let mut learned_to = 0;
        strings(list, b"id\"", is_made, &mut |id| {
            learned_to = id.as_ptr() as usize - list.as_ptr() as usize + id.len();
            if self.left > 0 && !id.is_empty() {
                self.left -= 1;
                learn(Learned { key: key(SPACE, id), ttl: STORED_TTL });
            }
        });
        let from = learned_to.max(list.len().saturating_sub(OVERLAP_BYTES));
        self.end = list[from..].to_vec();
    }
}

/// Returns true for a piece of a response that has items in it: a whole one, or an event about an item.
fn is_of_items(piece: &[u8]) -> bool {
    piece.trim_ascii_start().first() == Some(&b'{') || memmem::find(piece, b"\"item\":").is_some()
}

/// Encrypted reasoning, or as much of its end as tells it from any other.
fn encrypted(text: &[u8]) -> &[u8] {
    &text[text.len().saturating_sub(ENCRYPTED_BYTES)..]
}

/// The text before a member's name that ends as searched: is it the name's beginning?
type IsName = fn(&[u8]) -> bool;

/// Returns true if the name ends a member of any name.
fn is_member(before: &[u8]) -> bool {
    matches!(before.last(), Some(b'"' | b'_'))
}

/// Returns true if the name is the whole name of the member.
fn is_bare(before: &[u8]) -> bool {
    before.last() == Some(&b'"')
}

/// Names of ids of containers, and of files in them.
fn is_of_container(before: &[u8]) -> bool {
    before.ends_with(b"file_") || before.ends_with(b"container_")
}

/// Names of ids that an answer makes known: its own, and those of files and containers.
fn is_made(before: &[u8]) -> bool {
    is_bare(before) || before.ends_with(b"file_") || before.ends_with(b"container_")
}

/// Hands out the string values, and those in arrays of strings and in objects with an `id`, of all members whose names end
/// with `end`, its closing quote included.
fn strings(json: &[u8], end: &[u8], is_name: IsName, add: &mut dyn FnMut(&[u8])) {
    let mut from = 0;
    for at in memmem::find_iter(json, end) {
        if at < from || !is_name(&json[..at]) {
            continue;
        }
        let rest = json[at + end.len()..].trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start) else { continue };
        from = at + end.len();
        match rest.first() {
            Some(b'"') => {
                if let Some(text) = string(rest) {
                    add(text);
                }
            }
            Some(b'[') => {
                let mut rest = &rest[1..];
                while let Some(text) = string(rest.trim_ascii_start()) {
                    add(text);
                    let behind = rest.trim_ascii_start()[text.len() + 2..].trim_ascii_start();
                    let Some(next) = behind.strip_prefix(b",") else { break };
                    rest = next;
                }
            }
            Some(b'{') => {
                let inner = rest[1..].trim_ascii_start();
                let value = inner.strip_prefix(b"\"id\"").map(<[u8]>::trim_ascii_start);
                let value = value.and_then(|value| value.strip_prefix(b":")).map(<[u8]>::trim_ascii_start);
                if let Some(text) = value.and_then(string) {
                    add(text);
                }
            }
            Some(_) | None => {}
        }
    }
}

/// A string without escapes that begins here, without its quotes. An id has no escapes.
fn string(json: &[u8]) -> Option<&[u8]> {
    let text = json.strip_prefix(b"\"")?;
    let text = &text[..memchr::memchr2(b'"', b'\\', text)?];
    let is_closed = json.get(text.len() + 1) == Some(&b'"');
    let is_plausible = text.len() > 512 || std::str::from_utf8(text).is_ok_and(is_id);
    (is_closed && is_plausible).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn learned(operation: Operation, path: &str, pieces: &[&str]) -> Vec<u64> {
        let mut keys = Vec::new();
        let mut learner = Learner::new(operation, path).unwrap();
        for piece in pieces {
            learner.read(piece.as_bytes(), |thing| keys.push(thing.key));
        }
        keys
    }

    fn named(operation: Operation, path: &str, body: &str) -> Vec<u64> {
        things_in_request(operation, path, body.as_bytes())
    }

    fn id(text: &str) -> u64 {
        key(SPACE, text.as_bytes())
    }

    fn item(text: &str) -> u64 {
        key(ITEM_SPACE, text.as_bytes())
    }

    #[test]
    fn a_response_is_found_again_by_the_request_that_goes_on_from_it() {
        let whole = r#"{"id":"resp_1","object":"response","conversation":{"id":"conv_1"},"output":[
            {"id":"rs_1","type":"reasoning","encrypted_content":"gAAA"},{"id":"msg_1","type":"message"}]}"#;
        let events = [
            "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"conversation\":{\"id\":\"conv_1\"}}}\n\n",
            "event: x\ndata: {\"type\":\"response.output_item.done\",\"item\":{\"id\":\"rs_1\",\"type\":\"reasoning\",\"encrypted_content\":\"gAAA\"}}\n\n",
            "event: x\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\",\"delta\":\"id\"}\n\n",
        ];
        for pieces in [&[whole][..], &events] {
            let known = learned(Operation::Response, "/responses", pieces);
            for wanted in ["resp_1", "conv_1", "rs_1", "gAAA"].map(id).into_iter().chain([item("rs_1")]) {
                assert!(known.contains(&wanted), "{pieces:?}");
            }
            assert!(!known.contains(&id("msg_1")), "a message may be brought along anywhere");
        }
        for (body, wanted) in [
            (r#"{"previous_response_id":"resp_1","input":"x"}"#, "resp_1"),
            (r#"{"conversation":"conv_1"}"#, "conv_1"),
            (r#"{"conversation": { "id" : "conv_1"}}"#, "conv_1"),
            (r#"{"input":[{"type":"item_reference","id":"rs_1"}]}"#, "rs_1"),
            (r#"{"input":[{"type":"reasoning","encrypted_content":"gAAA"}]}"#, "gAAA"),
        ] {
            assert!(named(Operation::Response, "/responses", body).contains(&id(wanted)), "{body}");
        }
        assert!(named(Operation::Stored, "/responses/resp_1/input_items", "").contains(&id("resp_1")));
    }

    #[test]
    fn an_item_binds_who_refers_to_it_and_not_who_brings_it_along() {
        let done = r#"data: {"type":"response.output_item.done","item":{"id":"msg_1","type":"message","content":[{"type":"output_text","text":"x","annotations":[{"type":"container_file_citation","file_id":"cfile_1","container_id":"cntr_1"}]}]}}"#;
        let known = learned(Operation::Response, "/responses", &[done]);
        assert!([item("msg_1"), id("cfile_1"), id("cntr_1")].iter().all(|key| known.contains(key)), "{known:?}");
        for (body, is_found) in [
            (r#"{"input":[{"role":"user","content":"x"},{"type":"item_reference","id":"msg_1"}]}"#, true),
            (r#"{"input":[{"id":"msg_1","type":"item_reference"}]}"#, true),
            (r#"{"input":[{"type":"message","id":"msg_1","content":[]}]}"#, false),
            (r#"{"input":"an \"item_reference\" with \"id\":\"msg_1\""}"#, false),
            (r#"{"input":[{"type":"item_reference"}]}"#, false),
        ] {
            assert_eq!(named(Operation::Response, "/responses", body).contains(&item("msg_1")), is_found, "{body}");
        }
        let tool = r#"{"tools":[{"type":"code_interpreter","container":"cntr_1"}]}"#;
        assert!(named(Operation::Response, "/responses", tool).contains(&id("cntr_1")));
    }

    #[test]
    fn where_anthropics_code_ran_the_next_message_goes_too() {
        for piece in [
            r#"{"id":"msg_1","container":{"id":"container_1","expires_at":"x"}}"#,
            r#"data: {"type":"message_delta","delta":{"container":{"id":"container_1"}}}"#,
        ] {
            assert_eq!(learned(Operation::Message, "/messages", &[piece]), [id("container_1")], "{piece}");
        }
        assert_eq!(learned(Operation::Message, "/messages", &[r#"{"id":"msg_1","container":null}"#]), [] as [u64; 0]);
        for body in [r#"{"container":"container_1"}"#, r#"{"container":{"id":"container_1","skills":[]}}"#] {
            assert_eq!(named(Operation::Message, "/messages", body), [id("container_1")], "{body}");
        }
    }

    #[test]
    fn files_and_what_is_made_of_them_are_found_by_path_and_body() {
        let made = learned(Operation::Stored, "/files", &[r#"{"object":"file","id":"file-1","bytes":3}"#]);
        assert_eq!(made, [id("file-1")]);
        let batch = r#"{"id":"batch_1","input_file_id":"file-1","output_file_id":"file-2","error_file_id":null}"#;
        assert_eq!(learned(Operation::Stored, "/batches", &[batch]), ["batch_1", "file-1", "file-2"].map(id));
        let list = r#"{"data":[{"id":"vs_1"},{"id":"vs_2"}],"first_id":"vs_1"}"#;
        assert_eq!(learned(Operation::Stored, "/vector_stores", &[list]), ["vs_1", "vs_2"].map(id));
        for (operation, path, body, wanted) in [
            (Operation::Stored, "/files/file-1/content", "", "file-1"),
            (Operation::Stored, "/files/file%2D1", "", "file-1"),
            (Operation::Stored, "/batches", r#"{"input_file_id":"file-1"}"#, "file-1"),
            (Operation::Stored, "/fine_tuning/jobs", r#"{"training_file":"file-1"}"#, "file-1"),
            (Operation::Stored, "/vector_stores", r#"{"file_ids":[ "x", "file-1" ]}"#, "file-1"),
            (Operation::Stored, "/threads/t/runs", r#"{"assistant_id":"asst_1"}"#, "asst_1"),
            (Operation::Response, "/responses", r#"{"tools":[{"vector_store_ids":["vs_1"]}]}"#, "vs_1"),
            (Operation::Chat, "/chat/completions", r#"{"messages":[{"file":{"file_id":"file-1"}}]}"#, "file-1"),
            (Operation::Message, "/messages", r#"{"source":{"type":"file","file_id":"file-1"}}"#, "file-1"),
        ] {
            assert!(named(operation, path, body).contains(&id(wanted)), "{path} {body}");
        }
    }

    #[test]
    fn text_that_only_looks_like_a_member_is_none() {
        for body in [
            r#"{"input":"say \"previous_response_id\":\"resp_1\""}"#,
            r#"{"input":"valid","user_id_x":"resp_1"}"#,
            r#"{"x":"id","y":"resp_1"}"#,
            r#"{"id":7,"previous_response_id":null}"#,
            r#"{"id":"resp_1"#,
        ] {
            assert_eq!(named(Operation::Response, "/responses", body), [] as [u64; 0], "{body}");
        }
        assert_eq!(named(Operation::Image, "/images/edits", r#"{"file_id":"file-1"}"#), [] as [u64; 0]);
        assert!(Learner::new(Operation::Chat, "/chat/completions").is_none());
        assert!(Learner::new(Operation::Stored, "/files/file-1/content").is_none());
    }

    #[test]
    fn ids_of_one_answer_are_bounded() {
        let list: String = (0..6_000).map(|n| format!(r#"{{"id":"f{n}"}},"#)).collect();
        assert_eq!(learned(Operation::Stored, "/files", &[&list, &list]).len(), MAX_MADE);
    }

    #[test]
    fn a_list_is_read_the_same_however_it_is_cut() {
        let list: String =
            (0..50).map(|n| format!(r#"{{"object":"file", "id" : "file-{n}","input_file_id":"in-{n}"}},"#)).collect();
        let whole = learned(Operation::Stored, "/files", &[&list]);
        assert_eq!(whole.len(), 100);
        for length in [1, 2, 7, 19, 64, 500] {
            let pieces: Vec<&str> =
                list.as_bytes().chunks(length).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
            assert_eq!(learned(Operation::Stored, "/files", &pieces), whole, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_searched_to_their_end(body in prop::collection::vec(any::<u8>(), 0..200), path in "/[a-z/%0-9]{0,20}") {
            for operation in Operation::ALL {
                things_in_request(operation, &path, &body);
                if let Some(mut learner) = Learner::new(operation, &path) {
                    learner.read(&body, |_| {});
                }
            }
        }

        #[test]
        fn any_id_is_found_by_its_member(id_text in "[a-zA-Z0-9_.-]{1,60}", space in "[ \n]{0,2}") {
            let body = format!(r#"{{"x":1,"previous_response_id"{space}:{space}"{id_text}"}}"#);
            prop_assert_eq!(named(Operation::Response, "/responses", &body), [id(&id_text)]);
        }
    }
}
