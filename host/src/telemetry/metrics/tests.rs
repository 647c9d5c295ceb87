use std::collections::{BTreeMap, BTreeSet};

use pointsman_core::contract::{Dispatch, Operation};
use pointsman_core::denial::Denial;
use pointsman_core::lifecycle::Reload;
use pointsman_core::outcome::{Kind, Scope};
use pointsman_core::record::{AttemptRecord, End, Usage};
use pointsman_core::table::{Backend, Lane, Pattern, Route};

use super::*;

fn backend(id: &str) -> Backend {
    Backend {
        routes: vec![Route { asked: Pattern::parse("llama").unwrap(), sent: "llama".to_owned() }],
        ..Backend::new(id)
    }
}

fn metrics(backends: &[&str]) -> Metrics {
    let table = Table::new(backends.iter().map(|id| backend(id)).collect(), vec!["agent-1".to_owned()]);
    Metrics::new(&table, "1.2.3", Timestamp::from_millis(1_500))
}

fn exchange(backend: &str) -> ExchangeRecord {
    let id: Arc<str> = backend.into();
    ExchangeRecord {
        id: "r".to_owned(),
        started: Timestamp::from_millis(0),
        elapsed: Duration::from_millis(700),
        client: Some("agent-1".into()),
        session: None,
        operation: Operation::Chat,
        path: "/v1/chat/completions".to_owned(),
        model: "llama".to_owned(),
        streaming: true,
        status: 200,
        end: End::Delivered,
        lane: Some(Lane::Primary),
        backend: Some(Arc::clone(&id)),
        waits: 2,
        waited: Duration::from_millis(200),
        first_byte: Some(Duration::from_millis(300)),
        policy: "abc".into(),
        policy_faults: 0,
        attempts: vec![AttemptRecord {
            backend: id,
            lane: Lane::Primary,
            model_sent: "llama".to_owned(),
            started: Timestamp::from_millis(0),
            elapsed: Duration::from_millis(500),
            first_byte: None,
            first_token: Some(Duration::from_millis(90)),
            scope: Scope::Nothing,
            outcome: Kind::Answered,
            status: 200,
            retry_after: None,
            message: String::new(),
            upstream_id: None,
            usage: Usage { input_tokens: 100, output_tokens: 10, cached_input_tokens: 5, ..Usage::default() },
            cost_usd: 0.25,
        }],
        notes: Vec::new(),
        error: None,
        denied: None,
        saved_usd: None,
    }
}

/// The samples by name and labels; panics at a line that is not of the format, or a sample said twice.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut described = BTreeSet::new();
    let (body, end) = text.rsplit_once("# EOF\n").expect("ends with # EOF");
    assert_eq!(end, "");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (keyword, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(matches!(keyword, "HELP" | "TYPE"), "{line}");
            assert!(words.next().is_some_and(|rest| !rest.is_empty()), "{line}");
            assert!(keyword != "TYPE" || described.insert(name.to_owned()), "{name} is described twice");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let name = series.split('{').next().unwrap();
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{line}");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            let inner = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}')).unwrap_or_else(|| panic!("{line}"));
            assert!(inner.contains("=\"") && inner.ends_with('"') && !inner.contains('\n'), "{line}");
        }
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(samples.insert(series.to_owned(), value).is_none(), "said twice: {series}");
    }
    samples
}

#[test]
fn an_exchange_is_counted_in_every_metric() {
    let metrics = metrics(&["p1"]);
    metrics.observe(&exchange("p1"));
    let samples = samples(&metrics.encode(Live::default(), TextFormat::OpenMetrics));
    for (series, value) in [
        (r#"pointsman_exchanges_total{backend="p1",lane="primary",end="delivered"}"#, 1.0),
        (r#"pointsman_attempts_total{backend="p1",lane="primary",outcome="answered"}"#, 1.0),
        (r#"pointsman_tokens_total{backend="p1",lane="primary",type="cached_input"}"#, 5.0),
        (r#"pointsman_cost_usd_total{backend="p1",lane="primary"}"#, 0.25),
        (r#"pointsman_waits_total{lane="primary"}"#, 2.0),
        (r#"pointsman_exchange_duration_seconds_sum{lane="primary"}"#, 0.7),
        (r#"pointsman_exchange_duration_seconds_bucket{le="0.5",lane="primary"}"#, 0.0),
        (r#"pointsman_exchange_duration_seconds_bucket{le="1.0",lane="primary"}"#, 1.0),
        (r#"pointsman_exchange_duration_seconds_bucket{le="+Inf",lane="primary"}"#, 1.0),
        (r#"pointsman_exchange_waited_seconds_count{lane="primary"}"#, 1.0),
        (r#"pointsman_client_exchanges_total{client="agent-1",end="delivered"}"#, 1.0),
        (r#"pointsman_client_cost_usd_total{client="agent-1"}"#, 0.25),
        (
            r#"gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="llama",gen_ai_token_type="input"}"#,
            100.0,
        ),
        (
            r#"gen_ai_server_time_to_first_token_seconds_sum{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="llama"}"#,
            0.09,
        ),
        ("process_start_time_seconds", 1.5),
        (r#"pointsman_build_info{version="1.2.3"}"#, 1.0),
    ] {
        let found = samples.get(series).unwrap_or_else(|| panic!("{series} is missing from {samples:#?}"));
        assert!((found - value).abs() < 1e-9, "{series} {found}");
    }
    assert!(samples["process_resident_memory_bytes"] > 1e6);
}

#[test]
fn an_attempt_counts_for_its_own_backend_and_a_refusal_for_none() {
    let metrics = metrics(&["p1", "f1"]);
    let mut resumed = exchange("f1");
    resumed.attempts.insert(0, AttemptRecord { outcome: Kind::Cut, ..exchange("p1").attempts.remove(0) });
    resumed.lane = Some(Lane::Fallback);
    resumed.attempts[1].lane = Lane::Fallback;
    metrics.observe(&resumed);
    let mut rejected = exchange("p1");
    (rejected.backend, rejected.lane, rejected.end, rejected.client) = (None, None, End::Rejected, None);
    rejected.attempts.clear();
    metrics.observe(&rejected);
    let samples = samples(&metrics.encode(Live::default(), TextFormat::OpenMetrics));
    assert_eq!(samples[r#"pointsman_attempts_total{backend="p1",lane="primary",outcome="cut"}"#], 1.0);
    assert_eq!(samples[r#"pointsman_attempts_total{backend="f1",lane="fallback",outcome="answered"}"#], 1.0);
    assert_eq!(samples[r#"pointsman_exchanges_total{backend="none",lane="none",end="rejected"}"#], 1.0);
    assert_eq!(samples[r#"pointsman_client_exchanges_total{client="none",end="rejected"}"#], 1.0);
    assert!(!samples.contains_key(r#"pointsman_exchanges_total{backend="p1",lane="primary",end="delivered"}"#));
}

#[test]
fn names_from_outside_cannot_grow_the_exposition() {
    let metrics = metrics(&["p1", "other"]);
    let series = |metrics: &Metrics| samples(&metrics.encode(Live::default(), TextFormat::OpenMetrics)).len();
    let mut record = exchange("gone");
    record.model = "never-heard-of".to_owned();
    record.client = Some("stranger".into());
    metrics.observe(&record);
    metrics.observe(&ExchangeRecord { backend: Some("p1".into()), ..record.clone() });
    let before = series(&metrics);
    for i in 0..1_000 {
        let name: Arc<str> = format!("x{i}").into();
        let mut record = ExchangeRecord { model: name.to_string(), client: Some(Arc::clone(&name)), ..record.clone() };
        record.attempts[0].backend = Arc::clone(&name);
        metrics.observe(&record);
        record.backend = Some("p1".into());
        metrics.observe(&record);
    }
    assert_eq!(series(&metrics), before);
    let text = metrics.encode(Live::default(), TextFormat::OpenMetrics);
    assert!(text.contains(r#"gen_ai_request_model="other""#) && !text.contains("never-heard-of"), "{text}");
}

#[test]
fn a_new_table_keeps_the_counts_of_what_stays() {
    let metrics = metrics(&["p1", "p2"]);
    metrics.observe(&exchange("p1"));
    metrics.observe(&exchange("p2"));
    metrics.set_table(&Table::new(vec![backend("p1"), backend("p3")], Vec::new()));
    metrics.observe(&exchange("p1"));
    metrics.observe(&exchange("p2"));
    let samples = samples(&metrics.encode(Live::default(), TextFormat::OpenMetrics));
    let exchanges = |backend: &str| {
        samples
            .get(&format!(r#"pointsman_exchanges_total{{backend="{backend}",lane="primary",end="delivered"}}"#))
            .copied()
    };
    assert_eq!(
        (exchanges("p1"), exchanges("p2"), exchanges("p3"), exchanges("other")),
        (Some(2.0), None, None, Some(1.0))
    );
}

#[test]
fn decisions_faults_reloads_and_live_numbers_are_shown() {
    let metrics = metrics(&["p1"]);
    metrics.decided(&Decision::Fallback(Dispatch::default()), Duration::from_nanos(700));
    metrics.policy_fault("trap");
    metrics.policy_fault("trap");
    metrics.reloaded(Reload::Policy, false);
    metrics.reloaded(Reload::Config, true);
    let live = Live {
        backends: vec![LiveBackend {
            id: "odd \"name\"\n".to_owned(),
            tier: "primary",
            state: "cooling",
            cooldown_ms: 2_500,
            models_cooling: 2,
            in_flight: 4,
        }],
        waiting: vec![("primary", 7), ("fallback", 0)],
        store_backlog: 11,
        store_dropped: 13,
        journal_written: 17,
        journal_dropped: 19,
        policy: "rev".to_owned(),
        ..Live::default()
    };
    let samples = samples(&metrics.encode(live, TextFormat::OpenMetrics));
    for (series, value) in [
        (r#"pointsman_policy_decisions_total{decision="fallback"}"#, 1.0),
        (r#"pointsman_policy_decision_seconds_bucket{le="0.000001"}"#, 1.0),
        (r#"pointsman_policy_decision_seconds_sum"#, 7e-7),
        (r#"pointsman_policy_faults_total{kind="trap"}"#, 2.0),
        (r#"pointsman_reloads_total{what="policy",result="failed"}"#, 1.0),
        (r#"pointsman_reloads_total{what="config",result="ok"}"#, 1.0),
        (r#"pointsman_policy_info{revision="rev"}"#, 1.0),
        (r#"pointsman_backend_state{backend="odd \"name\"\n",tier="primary",state="cooling"}"#, 1.0),
        (r#"pointsman_backend_state{backend="odd \"name\"\n",tier="primary",state="ready"}"#, 0.0),
        (r#"pointsman_backend_cooldown_seconds{backend="odd \"name\"\n"}"#, 2.5),
        (r#"pointsman_backend_models_cooling{backend="odd \"name\"\n"}"#, 2.0),
        (r#"pointsman_queue_length{lane="primary"}"#, 7.0),
        ("pointsman_store_backlog", 11.0),
        ("pointsman_store_dropped_total", 13.0),
        ("pointsman_journal_written_total", 17.0),
        ("pointsman_journal_dropped_total", 19.0),
    ] {
        let found = samples.get(series).unwrap_or_else(|| panic!("{series} is missing from {samples:#?}"));
        assert!((found - value).abs() < 1e-12, "{series} {found}");
    }
}

#[test]
fn refusals_at_the_door_are_counted_by_reason_and_are_nobodys_exchanges() {
    let metrics = metrics(&["p1"]);
    let denied = ExchangeRecord {
        end: End::Denied,
        denied: Some(Denial::ClientBudget),
        lane: None,
        backend: None,
        attempts: Vec::new(),
        ..exchange("p1")
    };
    metrics.observe(&denied);
    metrics.observe(&ExchangeRecord { denied: Some(Denial::WrongKey), client: None, ..denied });
    metrics.denied_unrecorded();
    let samples = samples(&metrics.encode(Live::default(), TextFormat::OpenMetrics));
    for (series, value) in [
        (r#"pointsman_denied_total{reason="client_budget"}"#, 1.0),
        (r#"pointsman_denied_total{reason="wrong_key"}"#, 1.0),
        (r#"pointsman_denied_total{reason="bad_request"}"#, 0.0),
        ("pointsman_denied_unrecorded_total", 1.0),
        (r#"pointsman_client_exchanges_total{client="agent-1",end="denied"}"#, 1.0),
        (r#"pointsman_exchange_duration_seconds_count{lane="none"}"#, 0.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
    assert!(!samples.keys().any(|name| name.starts_with("pointsman_exchanges_total")));
    assert_eq!((metrics.totals().denied, metrics.totals().answered), (2, 0));
}

#[test]
fn what_was_saved_is_counted_by_lane_apart_for_those_that_waited() {
    let metrics = metrics(&["p1"]);
    metrics.observe(&ExchangeRecord { saved_usd: Some(0.5), ..exchange("p1") });
    metrics.observe(&ExchangeRecord { saved_usd: Some(0.25), waits: 0, ..exchange("p1") });
    metrics.observe(&ExchangeRecord { saved_usd: None, ..exchange("p1") });
    let samples = samples(&metrics.encode(Live::default(), TextFormat::OpenMetrics));
    assert_eq!(samples.get(r#"pointsman_saved_by_waiting_usd_total{lane="primary"}"#), Some(&0.5));
    assert_eq!(samples.get(r#"pointsman_saved_without_waiting_usd_total{lane="primary"}"#), Some(&0.25));
    assert_eq!(samples.get(r#"pointsman_saved_by_waiting_usd_total{lane="emergency"}"#), Some(&0.0));
    let totals = metrics.totals();
    assert_eq!((totals.answered, totals.saved_by_waiting_usd, totals.saved_without_waiting_usd), (3, Some(0.5), 0.25));

    let metrics = super::tests::metrics(&["p1"]);
    assert_eq!(metrics.totals().saved_by_waiting_usd, Some(0.0), "nobody waited");
    metrics.observe(&ExchangeRecord { saved_usd: None, ..exchange("p1") });
    assert_eq!(metrics.totals().saved_by_waiting_usd, None, "no fallback has a price");
}

#[test]
fn kinds_of_fault_are_bounded() {
    let metrics = metrics(&["p1"]);
    for kind in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s"] {
        metrics.policy_fault(kind);
    }
    let samples = samples(&metrics.encode(Live::default(), TextFormat::OpenMetrics));
    let faults: Vec<f64> =
        samples.iter().filter(|(name, _)| name.starts_with("pointsman_policy_faults_total")).map(|(_, n)| *n).collect();
    assert_eq!((faults.len(), faults.iter().sum::<f64>()), (FAULT_KINDS_MAX, 19.0));
}
