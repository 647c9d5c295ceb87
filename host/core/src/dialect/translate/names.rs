//! Names of tools that are longer than the other API takes, as those of MCP servers are.
//!
//! Beginning and end of a name and a hash between them stand for it in the request; in the answer it is the client's again.

use std::borrow::Cow;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::dialect::format::neutral::{Answer, Choice, News, Request, Turn};

/// Characters of the end of a name that are kept: the tool's own name stands there, behind its server's.
const END_CHARS: usize = 24;

/// Names that were shortened: what is sent, and what the client said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LongNames(Arc<[(Box<str>, Box<str>)]>);

impl LongNames {
    /// Shortens the names of tools in a request to so many characters, wherever they stand.
    pub(super) fn shorten(request: &mut Request<'_>, max_chars: usize) -> Self {
        let mut shortened: Vec<(Box<str>, Box<str>)> = Vec::new();
        let mut shorten = |name: &mut Cow<'_, str>| {
            if name.len() <= max_chars || name.chars().count() <= max_chars {
                return;
            }
            let sent = short(name, max_chars);
            if !shortened.iter().any(|(known, _)| **known == *sent) {
                shortened.push((sent.as_str().into(), (**name).into()));
            }
            *name = Cow::Owned(sent);
        };
        request.tools.iter_mut().for_each(|tool| shorten(&mut tool.name));
        if let Some(Choice::Tool(name)) = &mut request.choice {
            shorten(name);
        }
        for turn in &mut request.turns {
            if let Turn::Assistant { calls, .. } = turn {
                calls.iter_mut().for_each(|call| shorten(&mut call.name));
            }
        }
        Self(shortened.into())
    }

    /// Gives the calls of an answer the names that the client knows.
    pub(super) fn restore(&self, answer: &mut Answer<'_>) {
        for call in &mut answer.calls {
            if let Some(long) = self.long(&call.name) {
                call.name = Cow::Owned(long.to_owned());
            }
        }
    }

    /// The same for a piece of a stream.
    pub(super) fn restored<'a>(&self, mut news: News<'a>) -> News<'a> {
        if let News::Call { name, .. } = &mut news
            && let Some(long) = self.long(name)
        {
            *name = Cow::Owned(long.to_owned());
        }
        news
    }

    fn long(&self, sent: &str) -> Option<&str> {
        self.0.iter().find(|(short, _)| **short == *sent).map(|(_, long)| &**long)
    }
}

fn short(name: &str, max_chars: usize) -> String {
    let hash: String = Sha256::digest(name).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let end_chars = END_CHARS.min(max_chars / 2);
    let count = name.chars().count();
    let beginning: String = name.chars().take(max_chars.saturating_sub(end_chars + hash.len() + 2)).collect();
    let end: String = name.chars().skip(count - end_chars).collect();
    format!("{beginning}_{hash}_{end}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialect::format::neutral::{Call, Json, Tool};

    fn request(names: &[&str]) -> Request<'static> {
        let name = |name: &&str| Cow::Owned((*name).to_owned());
        let tool = |n: &&str| Tool { name: name(n), description: None, schema: Json::verbatim("{}"), strict: None };
        let call = |n: &&str| Call { id: "c".into(), name: name(n), input: Json::verbatim("{}") };
        Request {
            tools: names.iter().map(tool).collect(),
            choice: names.first().map(|first| Choice::Tool(name(first))),
            turns: vec![Turn::Assistant { texts: Vec::new(), calls: names.iter().map(call).collect() }],
            ..Request::default()
        }
    }

    #[test]
    fn a_long_name_is_shortened_wherever_it_stands_and_comes_back() {
        let long = format!("mcp__a_server_with_a_long_name__{}__create_issue", "x".repeat(40));
        let mut request = request(&[&long, "short"]);
        let names = LongNames::shorten(&mut request, 64);
        let sent = request.tools[0].name.clone();
        assert!(sent.len() == 64 && sent.starts_with("mcp__a_server") && sent.ends_with("__create_issue"), "{sent}");
        assert_eq!(request.choice, Some(Choice::Tool(sent.clone())));
        let Turn::Assistant { calls, .. } = &request.turns[0] else { panic!("the turn of the calls") };
        assert_eq!((&calls[0].name, &*calls[1].name), (&sent, "short"));
        let begun = |name: &str| News::Call { number: 0, id: "c".into(), name: name.to_owned().into() };
        assert_eq!(names.restored(begun(&sent)), begun(&long));
        assert_eq!(names.restored(begun("short")), begun("short"));
    }

    proptest! {
        #[test]
        fn names_stay_different_and_within_the_limit(a in "[a-z_\u{e4}]{0,120}", b in "[a-z_\u{e4}]{0,120}") {
            let mut both = request(&[&a, &b]);
            LongNames::shorten(&mut both, 64);
            let [first, second] = [&both.tools[0].name, &both.tools[1].name];
            prop_assert!(first.chars().count() <= 64 && second.chars().count() <= 64);
            prop_assert_eq!(first == second, a == b);
        }
    }
}
