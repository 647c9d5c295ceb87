//! The lab's record of a simulation equals the server's record of the same traffic.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::attempt::PromptCount;
use pointsman_core::contract::Query;
use pointsman_core::journal::Happened;
use pointsman_core::time::Timestamp;
use pointsman_engine::{Engine, EngineLimits, Texts};
use pointsman_lab::answer::{Answer, Behavior, Response};
use pointsman_lab::chronicle::Chronicler;
use pointsman_lab::world::{Ask, Attempt, Environment, World};
use pointsman_store::{Journaled, Store, StoreLimits, StorePath, StoreReader};
use pointsman_tests::{backend, chat, proxy, status, tokens, upstream};

/// Requests and answers in order, the same that the server gets below.
struct Script {
    asks: Vec<(Timestamp, Ask)>,
    answers: [Vec<Answer>; 2],
}

impl Environment for Script {
    fn next_request(&mut self) -> Option<(Timestamp, Ask)> {
        (!self.asks.is_empty()).then(|| self.asks.remove(0))
    }

    fn answer(&mut self, attempt: &Attempt<'_>) -> Answer {
        self.answers[attempt.sending.backend as usize].remove(0)
    }
}

fn answer(behavior: Behavior, tokens: u32) -> Answer {
    // Quicker than the server's, so that the next request comes after it here too.
    let moment = Duration::from_micros(20);
    let prompt = Some(PromptCount { tokens: 11, cached: 0 });
    Answer { behavior, head: None, first_token: moment, after: moment * 2, tokens, prompt }
}

fn says(status: u16, headers: &[(&'static str, &'static str)], tokens: u32) -> Answer {
    let header = |(name, value): &(&'static str, &'static str)| {
        (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
    };
    let response = Response { status, headers: headers.iter().map(header).collect(), body: None };
    answer(Behavior::Response(Arc::new(response)), tokens)
}

fn everything(reader: &StoreReader) -> Vec<Journaled> {
    let mut all = Vec::new();
    let end = Timestamp::from_micros(i64::MAX as u64);
    let each = |journaled| {
        all.push(journaled);
        ControlFlow::Continue(())
    };
    assert_eq!(reader.journal(Timestamp::default(), end, each).expect("it can be read").trails, 0);
    all.sort_by_key(|j| j.trail.arrived);
    all
}

/// Returns the parts of a record that do not depend on timing.
fn told(journaled: &Journaled) -> Vec<String> {
    let exchange = &journaled.exchange;
    let step = |what: &Happened| match what {
        Happened::Asked(question) => {
            let q = &question.query;
            // How long the primaries still need depends on the moment.
            let notes: String = question.notes.join("; ").replace(|c: char| c.is_ascii_digit(), "");
            format!("asked after {} attempts, {} waits: {:?} {notes}", q.attempts.len(), q.waits, question.decision)
        }
        Happened::Waits { max } => format!("waits at most {max:?}"),
        other => format!("{other:?}"),
    };
    let attempt = |a: &pointsman_store::AttemptRow| {
        let (input, output) = (a.input_tokens, a.output_tokens);
        let times = (a.first_byte_ms.is_some(), a.first_token_ms.is_some(), a.retry_after_ms);
        format!(
            "{} {} {} {} {} {input} {output} {times:?} {:.6}",
            a.lane, a.backend, a.model_sent, a.outcome, a.status, a.cost_usd
        )
    };
    let whole = format!(
        "{} {} {:?} {:?} {} {} {} {} {}",
        exchange.end,
        exchange.status,
        exchange.lane,
        exchange.backend,
        exchange.policy,
        exchange.model,
        exchange.path,
        exchange.operation,
        exchange.first_byte_ms.is_some()
    );
    let steps = journaled.trail.steps.iter().map(|s| step(&s.what));
    [whole].into_iter().chain(steps).chain(exchange.attempts.iter().map(attempt)).collect()
}

/// Lives through the same requests at the same times, under the same setup.
fn chronicled(server: &[Journaled], answers: [Vec<Answer>; 2], file: &Path) -> Vec<Journaled> {
    let setup = &*server[0].setup;
    let ask = |j: &Journaled| {
        let texts = Texts { model: j.exchange.model.clone(), path: j.exchange.path.clone(), ..Texts::default() };
        let (model, facts) = (Arc::from(&*j.exchange.model), j.trail.facts.clone());
        (j.trail.arrived, Ask { model, facts, texts: Arc::new(texts), patience: None })
    };
    let policy = Engine::new(EngineLimits::default()).unwrap().compile_embedded().unwrap();
    let revision = policy.isolated(&setup.settings, Arc::new(setup.table.clone())).unwrap();
    let store =
        Store::open(StorePath::File(file.to_owned()), StoreLimits::default(), Arc::new(Timestamp::default)).unwrap();
    let decide = |query: &Query, texts: &Arc<Texts>| revision.decide(query, texts);
    let script = Script { asks: server.iter().map(ask).collect(), answers };
    let chronicler = Chronicler::new(store.handle(), setup, policy.id().clone());
    World::new(setup, server[0].trail.arrived, 1, &[], script, decide, chronicler).run();
    store.handle().flush_blocking().unwrap();
    everything(&store.reader())
}

#[tokio::test]
async fn a_chronicle_says_what_the_journal_says() {
    let p1 = upstream().reply(status(429).retry_after(60)).start().await;
    let f1 = upstream().reply(chat("paid")).then(tokens(4)).then(status(503)).start().await;
    let proxy = proxy!()
        .backend(backend("p1").primary(&p1))
        .backend(backend("f1").fallback(&f1).model("m", "m-sent").price("m-sent", 1.0, 3.0))
        .setting("primary_wait_ms", 0)
        .start()
        .await;
    // 429, then the fallback, twice; then nobody is left.
    proxy.chat().send().await;
    proxy.chat_stream().send().await;
    proxy.chat().send().await;
    proxy.wait_rows(3, "SELECT ended_us FROM trail").await;
    let server = everything(&StoreReader::open(&proxy.store_path()).unwrap());
    let answers =
        [vec![says(429, &[("retry-after", "60")], 0)], vec![says(200, &[], 7), says(200, &[], 4), says(503, &[], 0)]];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.db");
    // The lab waits for its store, which a runtime's thread must not.
    let in_lab = move || (chronicled(&server, answers, &file), server);
    let (lab, server) = tokio::task::spawn_blocking(in_lab).await.unwrap();
    let (server, lab): (Vec<_>, Vec<_>) = (server.iter().map(told).collect(), lab.iter().map(told).collect());
    assert_eq!(server, lab);
    assert!(server[0].len() > 5, "there is something to compare: {server:?}");
}
