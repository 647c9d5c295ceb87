//! Every way in which a scenario file can be wrong has its sentence, its place and its advice.

use std::time::Duration;

use super::*;
use crate::answer::Behavior;

const GOOD: &str = r#"
title = "t"
[[backend]]
id = "a"
models = ["m"]
[[backend]]
id = "b"
tier = "fallback"
models = { n = "maker/n", m = "m" }
[[client]]
name = "c"
[[request]]
end = "delivered"
"#;

/// Returns the error for the good scenario with one piece changed, or something added.
fn complaint(from: &str, to: &str) -> String {
    let text = if from.is_empty() { format!("{GOOD}{to}\n") } else { GOOD.replacen(from, to, 1) };
    assert_ne!(text, GOOD);
    match Scenario::parse(&text, "s.toml") {
        Ok(_) => panic!("this was taken:\n{text}"),
        Err(error) => error.diagnostics.iter().map(|d| format!("{d}\n")).collect(),
    }
}

#[test]
fn the_defaults_are_those_that_are_written_down() {
    let scenario = Scenario::parse(GOOD, "s.toml").unwrap();
    assert_eq!(scenario.start, pointsman_core::rfc3339::parse("2026-01-05").unwrap());
    assert_eq!((scenario.seed, scenario.settings().as_str(), scenario.spent_usd.as_slice()), (1, "{}", &[0.0][..]));
    let request = &scenario.requests[0];
    assert_eq!((request.at, request.times, request.every), (Duration::ZERO, 1, Duration::ZERO));
    assert_eq!((&*request.ask.model, request.ask.texts.path.as_str()), ("m", "/v1/chat/completions"));
    assert_eq!((request.ask.facts.prompt_tokens, request.ask.facts.max_tokens), (100, 0));
    let answer = &scenario.scripts[1].answers[0];
    assert!(matches!(&answer.behavior, Behavior::Response(r) if r.status == 200 && r.body.is_none()));
    assert_eq!((answer.after.as_millis(), answer.first_token.as_millis(), answer.tokens), (300, 100, 20));
    assert_eq!(scenario.config.limits.max_attempts, 16);
}

#[test]
fn everything_that_is_given_is_taken_over() {
    let text = r#"
        title = "t"
        start = "2026-03-01T12:30:00Z"
        seed = 7
        [settings]
        primary_wait_ms = 30
        emergency_rpm_fraction = 0.5
        [limits]
        max_attempts = 3
        [[backend]]
        id = "a"
        models = ["m"]
        api_key = "env:NOT_SET"
        script = [{ answer = 429, retry_after = "1.5s", headers = { x-ratelimit-remaining-requests = "0" }, body = "b" }]
        outages = [{ from = "1s", until = "2s", answer = "cut", tokens = 3, first_token = "1ms", after = "2ms" }]
        [[client]]
        name = "c"
        budget_usd_per_day = 2.5
        spent_usd = 2.4
        [[request]]
        at = "1m"
        times = 2
        every = "5ms"
        model = "m"
        path = "/v1/messages"
        stream = true
        prompt_tokens = 5
        max_tokens = 6
        priority = -7
        client = "c"
        session = "s"
        labels = { Team = "blue" }
        within = "1s"
        [expect]
        delivered = 1
    "#;
    let scenario = Scenario::parse(text, "s.toml").unwrap();
    assert_eq!(scenario.config.fleet_settings().emergency_fraction, 0.5);
    assert_eq!((scenario.config.limits.max_attempts, scenario.spent_usd[0], scenario.seed), (3, 2.4, 7));
    let Behavior::Response(response) = &scenario.scripts[0].answers[0].behavior else { panic!("a response") };
    assert_eq!(
        (response.headers["retry-after-ms"].as_bytes(), response.body.as_deref()),
        (&b"1500"[..], Some(&b"b"[..]))
    );
    let outage = &scenario.scripts[0].outages[0];
    assert!(matches!(outage.answer.behavior, Behavior::Cut) && outage.until == Duration::from_secs(2));
    let ask = &scenario.requests[0].ask;
    assert_eq!((ask.facts.client, ask.facts.priority, ask.facts.streaming), (0, -7, true));
    assert_eq!((ask.texts.label("team"), ask.texts.session.as_deref()), (Some("blue"), Some("s")));
    assert_ne!(ask.facts.session, 0);
}

#[test]
fn a_problem_is_told_with_file_line_and_column() {
    let text = complaint("end = \"delivered\"", "end = \"done\"");
    assert!(text.contains("s.toml:13:7"), "{text}");
    assert!(text.contains("\"done\" is no end") && text.contains("help: write \"delivered [by BACKEND]\""), "{text}");
}

#[test]
fn what_is_expected_in_wrong_words_is_not_said_to_be_missing() {
    let text = complaint("end = \"delivered\"", "end = \"done\"");
    assert!(text.contains("is no end") && !text.contains("expects nothing"), "{text}");
}

#[test]
fn a_known_key_is_listed_once() {
    let text = complaint("", "[server]");
    assert_eq!(text.matches("backend,").count(), 1, "{text}");
}

#[test]
fn unknown_keys_name_what_is_meant() {
    for (from, to, what, help) in [
        ("title", "titel", "unknown key `titel`", "write `title`"),
        ("id = \"a\"", "id = \"a\"\nscripts = []", "unknown key `scripts`", "write `script`"),
        ("id = \"a\"", "id = \"a\"\nmodel = [\"m\"]", "unknown key `model`", "write `models`"),
        ("name = \"c\"", "name = \"c\"\nspend_usd = 1", "unknown key `spend_usd`", "write `spent_usd`"),
        ("end =", "and =", "unknown key `and`", "write `end`"),
        ("", "[expect]\nattempt = 1", "unknown key `attempt`", "write `attempts`"),
        ("", "[setings]", "unknown key `setings`", "write `settings`"),
        ("", "[limits]\nmax_atempts = 1", "unknown key `max_atempts`", "write `max_attempts`"),
        ("", "[server]", "unknown key `server`", "known here: title"),
        ("id = \"a\"", "id = \"a\"\nscript = [{ answr = 1 }]", "unknown key `answr`", "write `answer`"),
    ] {
        let text = complaint(from, to);
        assert!(text.contains(what) && text.contains(help), "{to}: {text}");
    }
}

#[test]
fn every_wrong_value_has_its_sentence() {
    let script = |answer: &str| ("id = \"a\"".to_owned(), format!("id = \"a\"\nscript = [{answer}]"));
    let request = |line: &str| ("end = \"delivered\"".to_owned(), format!("end = \"delivered\"\n{line}"));
    let add = |text: &str| (String::new(), text.to_owned());
    let cases = [
        (("title = \"t\"".to_owned(), String::new()), "the scenario has no title"),
        (("title = \"t\"".to_owned(), "title = 5".to_owned()), "`title` must be text"),
        (("title".to_owned(), "start = \"soon\"\ntitle".to_owned()), "`start` is not a point in time"),
        (("[[request]]\nend = \"delivered\"".to_owned(), String::new()), "there is no [[request]]"),
        (("end = \"delivered\"".to_owned(), String::new()), "this scenario expects nothing"),
        (("id = \"b\"".to_owned(), "id = \"a\"".to_owned()), "two backends have the id `a`"),
        (("tier = \"fallback\"".to_owned(), "tier = \"second\"".to_owned()), "`tier` cannot be \"second\""),
        (script(""), "`script` is empty"),
        (script("{}"), "this says nothing about the answer"),
        (script("{ answer = 99 }"), "99 is no status of an answer"),
        (script("{ answer = \"no\" }"), "\"no\" is no answer"),
        (script("{ answer = true }"), "`answer` must be an HTTP status, or \"connect-failed\""),
        (
            script("{ answer = \"reset\", retry_after = \"1s\" }"),
            "`retry_after` has no place in an answer that is \"reset\"",
        ),
        (script("{ answer = 200, after = \"fast\" }"), "`after` is not a duration"),
        (script("{ answer = 200, after = 5 }"), "`after` must be text"),
        (script("{ answer = 200, first_token = \"1s\" }"), "`first_token` is later than the answer's end"),
        (script("{ answer = 200, headers = { \"a b\" = \"c\" } }"), "`a b` is no header"),
        (
            (
                "id = \"a\"".to_owned(),
                "id = \"a\"\noutages = [{ from = \"2s\", until = \"1s\", answer = 500 }]".to_owned(),
            ),
            "`until` must be after `from`",
        ),
        (request("times = 0"), "`times` must be at least 1"),
        (request("times = 10001"), "10001 requests are more than 10000"),
        (request("path = \"v1\""), "`path` must begin with /"),
        (request("priority = 101"), "`priority` must be from -100 to 100"),
        (request("client = \"d\""), "there is no client `d`"),
        (request("decisions = [\"primary x\"]"), "there is no backend `x`"),
        (request("decisions = [\"primary a as x\"]"), "there is no model `x`"),
        (request("decisions = [\"go\"]"), "\"go\" is no decision"),
        (request("within = \"soon\""), "`within` is not a duration"),
        (("\"delivered\"".to_owned(), "\"delivered by x\"".to_owned()), "there is no backend `x`"),
        (add("[expect]\nattempts = { x = 1 }"), "there is no backend `x`"),
        (add("[expect]\nlanes = { second = 1 }"), "there is no lane `second`"),
        (add("[expect]\ndelivered = \"<3\""), "this is no number to expect"),
        (add("[expect]\ndelivered = -1"), "this is no number to expect"),
        (add("[expect]\ndelivered = [1]"), "`delivered` must be a number, or a text such as"),
        (add("[limits]\nmax_attempts = 0"), "`max_attempts` must be at least 1"),
        (add("= 3"), "this is not TOML"),
    ];
    for ((from, to), sentence) in cases {
        let text = complaint(&from, &to);
        assert!(text.contains(sentence), "{to}: {text}");
    }
}

#[test]
fn several_problems_are_told_at_once() {
    let text = complaint("end = \"delivered\"", "end = \"x\"\nwithin = \"y\"\nclient = \"z\"\nmodl = 1");
    for sentence in ["\"x\" is no end", "`within` is not", "there is no client `z`", "unknown key `modl`"] {
        assert!(text.contains(sentence), "{text}");
    }
}
