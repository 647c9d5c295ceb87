//! The counted as text: every metric's name, help and labels.

use std::fmt;
use std::sync::{Arc, PoisonError};

use pointsman_core::denial::Denial;
use pointsman_core::outcome::Kind;
use pointsman_core::record::End;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::histogram::Histogram;

use super::cells::{ClientCells, DenialCounts, GEN_AI_OPERATIONS, GenAiCells, LANES, LaneCells, LaneTotals, Spent};
use super::counted::{Counted, DECISIONS, REPAIRS};
use super::directory::Directory;
use super::instruments::{Count, Usd};
use super::live::{BACKEND_STATES, Live, LiveBackend};
use super::page::Page;
use pointsman_core::lifecycle::promotion::PromotionStep;
use pointsman_core::lifecycle::{Reload, Rollback};

/// One answer to a scrape.
#[derive(Debug)]
pub(super) struct Exposition {
    pub(super) counted: Arc<Counted>,
    pub(super) live: Live,
}

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let directory = self.counted.directory.load();
        exchanges(&mut page, &directory, &self.counted.totals, &self.counted.denials)?;
        savings(&mut page, &self.counted.totals)?;
        attempts(&mut page, &directory)?;
        clients(&mut page, &directory)?;
        gen_ai(&mut page, &directory)?;
        policy(&mut page, &self.counted, &self.live)?;
        promotion(&mut page, &self.counted, &self.live)?;
        self.counted.shadow.write(&mut page)?;
        backends(&mut page, &self.live)?;
        store(&mut page, &self.live)?;
        process(&mut page, &self.counted)
    }
}

/// Chooses one of a lane's histograms.
type OfLane = fn(&LaneTotals) -> &Histogram;

fn exchanges(
    page: &mut Page<'_>,
    directory: &Directory,
    totals: &[LaneTotals; LANES.len()],
    denied: &DenialCounts,
) -> fmt::Result {
    let lanes = lanes(directory);
    page.counters("pointsman_exchanges", "Exchanges, by the backend that was relayed and how they ended", |series| {
        for (backend, lane, cells) in &lanes {
            for (end, count) in End::ALL.iter().zip(&cells.ends).filter(|(_, count)| count.get() > 0) {
                series.counter(&[("backend", backend), ("lane", lane), ("end", end.as_str())], count.get())?;
            }
        }
        Ok(())
    })?;
    denials(page, denied)?;
    page.counters("pointsman_waits", "Waits for capacity, by the lane that then served", |series| {
        by_lane(totals, |lane, totals| series.counter(&[("lane", lane)], totals.waits.get()))
    })?;
    let histograms: [(&str, &str, OfLane); 3] = [
        ("pointsman_exchange_duration_seconds", "Arrival to last byte", |totals| &totals.exchange_seconds),
        ("pointsman_exchange_first_byte_seconds", "Arrival to first byte downstream", |totals| {
            &totals.first_byte_seconds
        }),
        ("pointsman_exchange_waited_seconds", "Time spent waiting, of exchanges that waited", |totals| {
            &totals.waited_seconds
        }),
    ];
    for (name, help, histogram) in histograms {
        page.histograms(name, help, |series| {
            by_lane(totals, |lane, totals| series.histogram(&[("lane", lane)], histogram(totals)))
        })?;
    }
    Ok(())
}

fn denials(page: &mut Page<'_>, denied: &DenialCounts) -> fmt::Result {
    page.counters("pointsman_denied", "Requests refused at the door, by reason", |series| {
        let mut all = Denial::ALL.iter().zip(&denied.by_reason);
        all.try_for_each(|(denial, count)| series.counter(&[("reason", denial.as_str())], count.get()))
    })?;
    page.counters(
        "pointsman_denied_unrecorded",
        "Requests refused at the door that were only counted, because there were too many to record",
        |series| series.counter(&[], denied.unrecorded.get()),
    )
}

fn savings(page: &mut Page<'_>, totals: &[LaneTotals; LANES.len()]) -> fmt::Result {
    /// Chooses one of a lane's amounts.
    type Amount = fn(&LaneTotals) -> &Usd;
    let amounts: [(&str, &str, Amount); 2] = [
        (
            "pointsman_saved_by_waiting_usd",
            "What the cheapest fallback would have cost, less what was paid, of exchanges that waited",
            |totals| &totals.saved_by_waiting,
        ),
        (
            "pointsman_saved_without_waiting_usd",
            "What the cheapest fallback would have cost, less what was paid, of exchanges that did not wait",
            |totals| &totals.saved_without_waiting,
        ),
    ];
    for (name, help, amount) in amounts {
        page.counters(name, help, |series| {
            let saving = LANES.into_iter().zip(totals).filter(|(lane, _)| matches!(*lane, "primary" | "emergency"));
            saving.into_iter().try_for_each(|(lane, totals)| series.counter(&[("lane", lane)], amount(totals).get()))
        })?;
    }
    Ok(())
}

fn attempts(page: &mut Page<'_>, directory: &Directory) -> fmt::Result {
    let lanes = lanes(directory);
    page.counters("pointsman_attempts", "Attempts, by what they came to", |series| {
        for (backend, lane, cells) in &lanes {
            for (kind, count) in Kind::ALL.iter().zip(&cells.outcomes).filter(|(_, count)| count.get() > 0) {
                series.counter(&[("backend", backend), ("lane", lane), ("outcome", kind.as_str())], count.get())?;
            }
        }
        Ok(())
    })?;
    page.histograms("pointsman_attempt_duration_seconds", "Sending to last byte", |series| {
        for (backend, lane, cells) in &lanes {
            series.histogram(&[("backend", backend), ("lane", lane)], &cells.attempt_seconds)?;
        }
        Ok(())
    })?;
    page.counters("pointsman_tokens", "Tokens, by the backend that counted them", |series| {
        for (backend, lane, cells) in &lanes {
            for (kind, count) in token_kinds(&cells.spent) {
                series.counter(&[("backend", backend), ("lane", lane), ("type", kind)], count.get())?;
            }
        }
        Ok(())
    })?;
    page.counters("pointsman_cost_usd", "Cost in USD, by the backend that is paid", |series| {
        for (backend, lane, cells) in &lanes {
            series.counter(&[("backend", backend), ("lane", lane)], cells.spent.usd())?;
        }
        Ok(())
    })
}

fn clients(page: &mut Page<'_>, directory: &Directory) -> fmt::Result {
    let clients: Vec<(&str, &ClientCells)> = directory.clients.all();
    page.counters("pointsman_client_exchanges", "Exchanges, by client key and how they ended", |series| {
        for (client, cells) in &clients {
            for (end, count) in End::ALL.iter().zip(&cells.ends).filter(|(_, count)| count.get() > 0) {
                series.counter(&[("client", client), ("end", end.as_str())], count.get())?;
            }
        }
        Ok(())
    })?;
    page.counters("pointsman_client_tokens", "Tokens, by client key", |series| {
        for (client, cells) in &clients {
            for (kind, count) in token_kinds(&cells.spent) {
                series.counter(&[("client", client), ("type", kind)], count.get())?;
            }
        }
        Ok(())
    })?;
    page.counters("pointsman_client_cost_usd", "Cost in USD, by client key", |series| {
        clients.iter().try_for_each(|(client, cells)| series.counter(&[("client", client)], cells.spent.usd()))
    })
}

/// Names and labels as OpenTelemetry's GenAI conventions have them, in Prometheus' spelling.
fn gen_ai(page: &mut Page<'_>, directory: &Directory) -> fmt::Result {
    let mut all: Vec<([(&str, &str); 3], &GenAiCells)> = Vec::new();
    for (model, cells) in directory.models.all() {
        for (provider, operations) in &cells.by {
            for (operation, cells) in GEN_AI_OPERATIONS.into_iter().zip(operations) {
                if let Some(cells) = cells.get() {
                    let labels = [
                        ("gen_ai_operation_name", operation),
                        ("gen_ai_provider_name", provider.as_str()),
                        ("gen_ai_request_model", model),
                    ];
                    all.push((labels, cells));
                }
            }
        }
    }
    page.histograms("gen_ai_client_token_usage", "Tokens of an exchange", |series| {
        for ([operation, provider, model], cells) in &all {
            for (kind, histogram) in [("input", &cells.input_tokens), ("output", &cells.output_tokens)] {
                series.histogram(&[*operation, *provider, *model, ("gen_ai_token_type", kind)], histogram)?;
            }
        }
        Ok(())
    })?;
    page.histograms("gen_ai_client_operation_duration_seconds", "Arrival to last byte", |series| {
        all.iter().try_for_each(|(labels, cells)| series.histogram(labels, &cells.duration))
    })?;
    page.histograms("gen_ai_server_time_to_first_token_seconds", "Sending to first content", |series| {
        all.iter().try_for_each(|(labels, cells)| series.histogram(labels, &cells.first_token))
    })
}

fn policy(page: &mut Page<'_>, counted: &Counted, live: &Live) -> fmt::Result {
    page.counters("pointsman_policy_decisions", "Decisions of the policy", |series| {
        DECISIONS
            .iter()
            .zip(&counted.decisions)
            .try_for_each(|(word, count)| series.counter(&[("decision", word)], count.get()))
    })?;
    page.histogram("pointsman_policy_decision_seconds", "Time of a decision", &counted.decision_seconds)?;
    page.counters("pointsman_policy_faults", "Decisions the policy failed to give, by kind of fault", |series| {
        let faults = counted.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter().try_for_each(|(kind, count)| series.counter(&[("kind", kind)], *count))
    })?;
    page.counters("pointsman_reloads", "Tries to replace the configuration, the policy or its shadow", |series| {
        for (what, results) in Reload::ALL.iter().zip(&counted.reloads) {
            for (result, count) in ["failed", "ok"].iter().zip(results) {
                series.counter(&[("what", what.as_str()), ("result", result)], count.get())?;
            }
        }
        Ok(())
    })?;
    page.counters("pointsman_stream_repairs", "Events of upstreams that were not strict JSON", |series| {
        REPAIRS
            .iter()
            .zip(&counted.repairs)
            .try_for_each(|(what, count)| series.counter(&[("what", what)], count.get()))
    })?;
    page.counters("pointsman_policy_rollbacks", "Policies that gave way to an earlier one, by reason", |series| {
        Rollback::ALL
            .iter()
            .zip(&counted.rollbacks)
            .try_for_each(|(why, count)| series.counter(&[("why", why.as_str())], count.get()))
    })?;
    page.gauges("pointsman_policy_info", "1 for the revision in force", |series| {
        series.gauge(&[("revision", &live.policy)], 1i64)
    })?;
    page.gauges("pointsman_policy_refused", "1 when the policy last offered is not in force", |series| {
        series.gauge(&[], i64::from(live.policy_refused))
    })?;
    page.gauges("pointsman_config_refused", "1 when the configuration last offered is not in force", |series| {
        series.gauge(&[], i64::from(live.config_refused))
    })?;
    page.gauges("pointsman_policy_revisions", "Revisions in force or in use", |series| {
        series.gauge(&[], live.policy_revisions as i64)
    })?;
    page.gauges("pointsman_policy_instances", "Instances of policies", |series| {
        series.gauge(&[], live.policy_instances as i64)
    })
}

fn promotion(page: &mut Page<'_>, counted: &Counted, live: &Live) -> fmt::Result {
    page.counters("pointsman_policy_promotions", "Steps of guarded promotions", |series| {
        let mut all = PromotionStep::ALL.iter().zip(&counted.promotions);
        all.try_for_each(|(step, count)| series.counter(&[("step", step.as_str())], count.get()))
    })?;
    page.gauges(
        "pointsman_policy_canary_share",
        "The candidate's share of the exchanges; 0: no promotion",
        |series| series.gauge(&[], live.promotion_share),
    )?;
    page.gauges("pointsman_policy_canary_exchanges", "Exchanges of the promotion under way, by side", |series| {
        for side in &live.promotion {
            let answered = side.exchanges.saturating_sub(side.failed);
            for (end, count) in [("answered", answered), ("failed", side.failed)] {
                series.gauge(&[("side", side.side), ("revision", &side.revision), ("end", end)], signed(count))?;
            }
        }
        Ok(())
    })?;
    page.gauges("pointsman_policy_shadow_refused", "1 when the shadow last offered is not asked", |series| {
        series.gauge(&[], i64::from(live.shadow_refused))
    })
}

fn backends(page: &mut Page<'_>, live: &Live) -> fmt::Result {
    page.gauges("pointsman_backend_state", "1 for the state a backend is in", |series| {
        for backend in &live.backends {
            for state in BACKEND_STATES {
                let labels = [("backend", backend.id.as_str()), ("tier", backend.tier), ("state", state)];
                series.gauge(&labels, i64::from(backend.state == state))?;
            }
        }
        Ok(())
    })?;
    page.gauges("pointsman_backend_cooldown_seconds", "What is left of the backend's own cooldown", |series| {
        each(live, |labels, backend| series.gauge(labels, backend.cooldown_ms as f64 / 1e3))
    })?;
    page.gauges("pointsman_backend_models_cooling", "Models in cooldown on the backend", |series| {
        each(live, |labels, backend| series.gauge(labels, signed(backend.models_cooling)))
    })?;
    page.gauges("pointsman_backend_in_flight", "Attempts under way", |series| {
        each(live, |labels, backend| series.gauge(labels, signed(backend.in_flight)))
    })?;
    page.gauges("pointsman_queue_length", "Exchanges waiting for capacity, by the lane they wait for", |series| {
        live.waiting.iter().try_for_each(|(lane, waiting)| series.gauge(&[("lane", lane)], signed(*waiting)))
    })?;
    for (name, help, bytes) in [
        ("pointsman_memory_used_bytes", "Memory that requests and held answers take", live.memory_used),
        ("pointsman_spill_used_bytes", "Disk that large requests take which wait for memory", live.spill_used),
        ("pointsman_memory_limit_bytes", "Memory that they may take (server.memory_budget_mb)", live.memory_limit),
    ] {
        page.gauges(name, help, |series| series.gauge(&[], signed(bytes)))?;
    }
    page.counters("pointsman_memory_refused", "Requests, uploads and answers for which there was no memory", |series| {
        series.counter(&[], live.memory_refused)
    })
}

fn store(page: &mut Page<'_>, live: &Live) -> fmt::Result {
    page.gauges("pointsman_store_backlog", "Exchanges waiting to be written", |series| {
        series.gauge(&[], signed(live.store_backlog))
    })?;
    for (name, help, count) in [
        ("pointsman_store_written", "Exchanges written", live.store_written),
        ("pointsman_store_dropped", "Exchanges that were not recorded", live.store_dropped),
        (
            "pointsman_store_failed_batches",
            "Batches that could not be written, retries included",
            live.store_failed_batches,
        ),
        ("pointsman_journal_written", "Exchanges whose course was kept in the journal", live.journal_written),
        ("pointsman_journal_dropped", "Exchanges whose course was lost", live.journal_dropped),
    ] {
        page.counters(name, help, |series| series.counter(&[], count))?;
    }
    Ok(())
}

fn process(page: &mut Page<'_>, counted: &Counted) -> fmt::Result {
    page.gauges("pointsman_build_info", "1; the label says the version", |series| {
        series.gauge(&[("version", counted.version)], 1i64)
    })?;
    page.gauges("process_start_time_seconds", "When the process began, since 1970", |series| {
        series.gauge(&[], counted.started.as_micros() as f64 / 1e6)
    })?;
    let Some(bytes) = resident_bytes() else {
        return Ok(());
    };
    page.gauges("process_resident_memory_bytes", "Memory in use", |series| series.gauge(&[], signed(bytes)))
}

/// Reads the resident memory from the system (Linux only), bytes.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// The lanes that were used, with their backend's name.
fn lanes(directory: &Directory) -> Vec<(&str, &'static str, &LaneCells)> {
    let backends = directory.backends.all().into_iter();
    backends
        .flat_map(|(backend, cells)| {
            LANES.into_iter().zip(&cells.lanes).filter_map(move |(lane, cells)| Some((backend, lane, &**cells.get()?)))
        })
        .collect()
}

fn by_lane(totals: &[LaneTotals; LANES.len()], mut one: impl FnMut(&str, &LaneTotals) -> fmt::Result) -> fmt::Result {
    LANES.into_iter().zip(totals).try_for_each(|(lane, totals)| one(lane, totals))
}

fn each(live: &Live, mut one: impl FnMut(&[(&str, &str)], &LiveBackend) -> fmt::Result) -> fmt::Result {
    live.backends.iter().try_for_each(|backend| one(&[("backend", &backend.id)], backend))
}

fn token_kinds(spent: &Spent) -> [(&'static str, &Count); 3] {
    [("input", &spent.input), ("output", &spent.output), ("cached_input", &spent.cached_input)]
}

/// The format's integers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
