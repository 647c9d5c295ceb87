//! An exchange with one attempt, as it is recorded and counted.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::Operation;
use pointsman_core::outcome::{Kind, Scope};
use pointsman_core::record::{AttemptRecord, End, ExchangeRecord, Usage};
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;

pub(crate) fn exchange(number: u64) -> Box<ExchangeRecord> {
    let backend: Arc<str> = "nvidia-1".into();
    let started = Timestamp::from_micros(1_768_473_000_000_000 + number * 100);
    let attempt = AttemptRecord {
        backend: Arc::clone(&backend),
        lane: Lane::Primary,
        model_sent: "meta/llama-3.1-70b-instruct".to_owned(),
        started,
        elapsed: Duration::from_micros(812_000),
        first_byte: Some(Duration::from_millis(200)),
        first_token: None,
        scope: Scope::Nothing,
        outcome: Kind::Answered,
        status: 200,
        retry_after: None,
        message: String::new(),
        upstream_id: None,
        usage: Usage { input_tokens: 1_200, output_tokens: 300, ..Usage::default() },
        cost_usd: 0.000_234,
    };
    Box::new(ExchangeRecord {
        id: format!("req_{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        started,
        elapsed: Duration::from_micros(812_345),
        client: Some("agent-1".into()),
        session: None,
        operation: Operation::Chat,
        path: "/v1/chat/completions".to_owned(),
        model: "llama-70b".to_owned(),
        streaming: false,
        status: 200,
        end: End::Delivered,
        lane: Some(Lane::Primary),
        backend: Some(backend),
        waits: 0,
        waited: Duration::ZERO,
        first_byte: Some(Duration::from_millis(200)),
        policy: "a1b2c3d4e5f6".into(),
        policy_faults: 0,
        attempts: vec![attempt],
        notes: Vec::new(),
        error: None,
        denied: None,
        saved_usd: None,
    })
}
