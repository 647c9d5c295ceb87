//! Optional health checks: a backend whose cooldown is over is asked for one token by Pointsman itself, so that no
//! client's request has to find out whether it is well.
//!
//! A check is an exchange like any other: it takes a permit, is the cooldown's one probe, is settled, recorded and
//! paid. A backend that is well, cooling, or being tried already is never checked, so that checks cost nothing in good
//! times.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http_body_util::BodyExt as _;
use pointsman_config::{BackendConfig, HealthCheck, Privileges};
use pointsman_core::clients::Spending;
use pointsman_core::contract::NONE;
use pointsman_core::dialect::ApiPath;
use pointsman_core::dialect::translate::{Strictness, ping};
use pointsman_core::exchange::Only;
use pointsman_core::time::Timestamp;
use tokio::task::JoinSet;

use crate::proxy::{ClientPermit, IncomingRequest, PinnedBackend, Proxy, ProxyRequest, Snapshot, drive};

/// Interval of looking for backends with a probe due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A check ends by its own time limit; this much later at the latest.
const GRACE: Duration = Duration::from_secs(10);

/// Client name of the checks in records and logs.
const CLIENT: &str = "(health check)";

/// Checks for as long as it runs; dropped, it takes the checks under way with it.
pub(super) async fn run(proxy: Arc<Proxy>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut checked: HashMap<Arc<str>, Timestamp> = HashMap::new();
    let mut under_way = JoinSet::new();
    loop {
        look.tick().await;
        while under_way.try_join_next().is_some() {}
        let snapshot = proxy.snapshot();
        let now = proxy.clock.now();
        for (index, backend, check) in checks(&snapshot) {
            let id = &backend.backend.id;
            let rested = checked.get(id).is_none_or(|last| now.since(*last) >= check.interval);
            if rested && proxy.fleet.with(|fleet, now| fleet.is_probe_due(now, &snapshot.view, index, &check.model)) {
                checked.insert(id.clone(), now);
                let pinned = PinnedBackend { backend: index, within: check.timeout };
                let Some(request) = request(backend, check, now) else { continue };
                under_way.spawn(one(proxy.clone(), snapshot.clone(), pinned, request));
            }
        }
    }
}

fn checks(snapshot: &Snapshot) -> impl Iterator<Item = (u32, &BackendConfig, &HealthCheck)> {
    (0..).zip(&snapshot.config.backends).filter_map(|(i, b)| Some((i, b, b.health_check.as_ref()?)))
}

async fn one(proxy: Arc<Proxy>, snapshot: Arc<Snapshot>, pinned: PinnedBackend, arrival: IncomingRequest) {
    let Ok(request) = ProxyRequest::read(arrival) else { return };
    let request = Arc::new(ProxyRequest { pinned: Some(pinned), ..request });
    let whole = async {
        let reply = drive(proxy, snapshot, request, ClientPermit::without_client(Only::default())).await;
        // What it says is of no interest; that it is whole is.
        let _ = reply.into_body().collect().await;
    };
    let _ = tokio::time::timeout(pinned.within + GRACE, whole).await;
}

fn request(backend: &BackendConfig, check: &HealthCheck, now: Timestamp) -> Option<IncomingRequest> {
    let (path, body) = ping(backend.backend.dialect, &check.model)?;
    let target: PathAndQuery = path.parse().ok()?;
    let request = http::Request::post(&*path).header(CONTENT_TYPE, "application/json").body(()).ok()?;
    Some(IncomingRequest {
        id: format!("check_{}_{}", backend.backend.id, now.as_millis()),
        client: Some((NONE, CLIENT.into())),
        spending: Spending::default(),
        path: ApiPath::read(target.path(), request.headers()),
        target,
        head: request.into_parts().0,
        max_body_bytes: body.len() as u64,
        body,
        memory: None,
        translation: Strictness::default(),
        privileges: Privileges::default(),
    })
}
