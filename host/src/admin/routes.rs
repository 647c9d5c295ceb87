//! Every path of the admin listener, in one table: the router is made of it, and so are the OpenAPI document and the
//! reference page, so that neither can say what is not so.

use std::future::{Ready, ready};

use axum::Router;
use axum::middleware;
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::endpoint::{Content, Endpoint, Kind, Parameter};
use super::view::{BackendView, ConfigView, PolicyView, ReadyView, RollbackView, ShadowReport};
use super::{AdminState, api, console, events, openapi, parameters, policy, promote};

const fn in_query(
    name: &'static str,
    what: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    example: &'static str,
) -> Parameter {
    Parameter { name, is_in_path: false, what, kind, default, example }
}

const fn in_path(name: &'static str, what: &'static str, kind: Kind, example: &'static str) -> Parameter {
    Parameter { name, is_in_path: true, what, kind, default: None, example }
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const NOTHING_TOLD: &str = "";

const BACKEND_ID: Parameter = in_path("id", "The backend's id, percent-encoded.", Kind::Text, "nvidia-1");

const NAME: Parameter = in_query(
    "name",
    "The name by which the configuration has settings for it.",
    Kind::Text,
    Some("the name in the component"),
    "mine",
);

const SETTINGS: Parameter = in_query(
    "settings",
    "Its settings as a JSON object.",
    Kind::Text,
    Some("those of the configuration"),
    "{\"primary_wait_ms\":5000}",
);

const SET: Parameter = in_query(
    "set",
    "Single settings as a JSON object, in the place of those that it would have; the others stay.",
    Kind::Text,
    Some("none"),
    "{\"primary_wait_ms\":5000}",
);

const COMPONENT: &str = "A WebAssembly component, as `pointsman policy build` makes it; or a form (`multipart/form-data`) with it in the field `policy`, \
     and the parameters in fields of their names.";

/// Every endpoint, in the order of the reference page.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: "get",
        path: "/",
        summary: "The console",
        details: "A page that asks for the token itself.",
        parameters: &[],
        body: None,
        answer: Content::Other("text/html"),
        errors: &[],
        is_open: true,
        handler: || get(console),
    },
    Endpoint {
        method: "get",
        path: "/healthz",
        summary: "Is the process alive?",
        details: "Answers `ok` as long as it can answer at all. Use it as a liveness probe.",
        parameters: &[],
        body: None,
        answer: Content::Other("text/plain"),
        errors: &[],
        is_open: true,
        handler: || get(|| async { "ok\n" }),
    },
    Endpoint {
        method: "get",
        path: "/readyz",
        summary: "Should traffic be sent here?",
        details: "503 while the process shuts down, and while no backend can serve: none is configured, or each is drained or \
                  excluded because its key is refused or its credit is used up. A backend that cools after rate limits or errors \
                  counts as able to serve: requests wait for it. Warnings do not make it unready: a refused configuration or policy \
                  leaves the one before in force. Use it as a readiness probe.",
        parameters: &[],
        body: None,
        answer: Content::Json(schema::<ReadyView>),
        errors: &[(503, "not ready; the body is the same")],
        is_open: true,
        handler: || get(api::ready),
    },
    Endpoint {
        method: "get",
        path: "/metrics",
        summary: "Metrics",
        details: "In Prometheus' text format 0.0.4, or in OpenMetrics 1.0 where `Accept` prefers it.",
        parameters: &[],
        body: None,
        answer: Content::Other("text/plain"),
        errors: &[],
        is_open: false,
        handler: || get(api::metrics),
    },
    Endpoint {
        method: "get",
        path: "/api/openapi.json",
        summary: "This interface as an OpenAPI 3.1 document",
        details: NOTHING_TOLD,
        parameters: &[],
        body: None,
        answer: Content::Json(schema::<serde_json::Value>),
        errors: &[],
        is_open: false,
        handler: || get(document),
    },
    Endpoint {
        method: "get",
        path: "/api/backends",
        summary: "Every backend with its live numbers",
        details: "`state` and `cooldown_ms` are the backend's own; cooldowns of single models are listed beside them.",
        parameters: &[],
        body: None,
        answer: Content::Json(schema::<api::Backends>),
        errors: &[],
        is_open: false,
        handler: || get(api::backends),
    },
    Endpoint {
        method: "post",
        path: "/api/backends/{id}/{action}",
        summary: "Drain a backend, resume it, or end its cooldowns",
        details: "`drain`: nothing new is sent to it, also after a restart, until `resume`. `clear-cooldown`: its cooldowns and those of \
                  its models end, and the next attempt is a probe.",
        parameters: &[
            BACKEND_ID,
            in_path("action", "What to do.", Kind::OneOf(&["drain", "resume", "clear-cooldown"]), "drain"),
        ],
        body: None,
        answer: Content::Json(schema::<BackendView>),
        errors: &[(404, "no such backend or action")],
        is_open: false,
        handler: || post(api::control_backend),
    },
    Endpoint {
        method: "get",
        path: "/api/config",
        summary: "The configuration in force, and the last one that was refused",
        details: "Holds no settings and no secrets. `refusal` stays until a configuration file is taken or is again as it is in force.",
        parameters: &[],
        body: None,
        answer: Content::Json(schema::<ConfigView>),
        errors: &[],
        is_open: false,
        handler: || get(api::config),
    },
    Endpoint {
        method: "get",
        path: "/api/policy",
        summary: "The policy in force, its history, promotion and shadow",
        details: NOTHING_TOLD,
        parameters: &[],
        body: None,
        answer: Content::Json(schema::<PolicyView>),
        errors: &[],
        is_open: false,
        handler: || get(policy::show),
    },
    Endpoint {
        method: "put",
        path: "/api/policy",
        summary: "Put a component into force",
        details: "It is compiled, checked and probed first; a bad one changes nothing.",
        parameters: &[NAME, SETTINGS, SET],
        body: Some(COMPONENT),
        answer: Content::Json(schema::<PolicyView>),
        errors: &[
            (409, "a newer policy came into force while it was compiled"),
            (413, "larger than a component may be"),
            (422, "refused, and why; the policy in force stays"),
        ],
        is_open: false,
        handler: || put(policy::put),
    },
    Endpoint {
        method: "post",
        path: "/api/policy/rollback",
        summary: "Put an earlier policy into force",
        details: NOTHING_TOLD,
        parameters: &[in_query(
            "to",
            "The revision to go back to, as `/api/policy` lists it.",
            Kind::Text,
            Some("the one before"),
            "3791f75d87a2",
        )],
        body: None,
        answer: Content::Json(schema::<RollbackView>),
        errors: &[
            (404, "this revision is not kept"),
            (409, "it is in force, or there is no earlier one, or a newer policy came into force meanwhile"),
            (422, "it is refused under the present configuration"),
        ],
        is_open: false,
        handler: || post(policy::rollback),
    },
    Endpoint {
        method: "post",
        path: "/api/policy/promote",
        summary: "Give a component a share of the exchanges, and promote it or roll it back by what comes of them",
        details: NOTHING_TOLD,
        parameters: &[
            in_query("canary", "The candidate's share of the exchanges.", Kind::Text, Some("5%"), "5%"),
            in_query("for", "How long, in `s`, `m` or `h`.", Kind::Text, Some("10m"), "90s"),
            in_query(
                "guard",
                "A bound that the candidate must keep, as `p95<=+10%`; may be given several times.",
                Kind::Many,
                Some("those of `pointsman policy promote`"),
                "p95<=+10%",
            ),
            NAME,
            SETTINGS,
            SET,
        ],
        body: Some(COMPONENT),
        answer: Content::Json(schema::<PolicyView>),
        errors: &[
            (
                409,
                "a promotion is under way, or the component is in force, or a newer policy came into force meanwhile",
            ),
            (413, "larger than a component may be"),
            (422, "refused, and why"),
        ],
        is_open: false,
        handler: || post(promote::start),
    },
    Endpoint {
        method: "delete",
        path: "/api/policy/promote",
        summary: "End the promotion under way; the policy in force stays",
        details: NOTHING_TOLD,
        parameters: &[],
        body: None,
        answer: Content::Json(schema::<PolicyView>),
        errors: &[(409, "no promotion is under way")],
        is_open: false,
        handler: || delete(promote::abort),
    },
    Endpoint {
        method: "get",
        path: "/api/policy/events",
        summary: "Steps of promotions, the newest first",
        details: NOTHING_TOLD,
        parameters: &[],
        body: None,
        answer: Content::Json(schema::<promote::PolicyEvents>),
        errors: &[],
        is_open: false,
        handler: || get(promote::events),
    },
    Endpoint {
        method: "get",
        path: "/api/policy/shadow",
        summary: "The shadow policy, and where it would have decided otherwise",
        details: NOTHING_TOLD,
        parameters: &[],
        body: None,
        answer: Content::Json(schema::<ShadowReport>),
        errors: &[(404, "the configuration names none")],
        is_open: false,
        handler: || get(policy::shadow),
    },
    Endpoint {
        method: "get",
        path: "/api/events",
        summary: "What happens, as server-sent events",
        details: "Events: `exchange` (an exchange is over; the fields of its log line), `change` (a configuration or policy came into \
                  force or was refused), `promotion` (a step of one), `backend` (a backend or a model on it was `excluded`, is `cooling` \
                  for long, `back`, `cleared`, `drained` or `resumed`), `missed` (events that came faster than they were read). A \
                  comment every 15 s.",
        parameters: &[],
        body: None,
        answer: Content::Other("text/event-stream"),
        errors: &[(503, "as many watch as may")],
        is_open: false,
        handler: || get(events::watch),
    },
    Endpoint {
        method: "get",
        path: "/api/usage",
        summary: "What was used and spent, by group",
        details: NOTHING_TOLD,
        parameters: &[
            in_query(
                "since",
                "How long ago (`90s`, `30m`, `24h`, `7d`), a time (RFC 3339), or seconds since 1970.",
                Kind::Text,
                Some("24h"),
                "7d",
            ),
            in_query(
                "group",
                "By what.",
                Kind::OneOf(&["client", "backend", "model", "lane", "hour", "day"]),
                Some("backend"),
                "lane",
            ),
            in_query("after", "The `next` of the page before: the page that follows.", Kind::Text, None, "5000"),
        ],
        body: None,
        answer: Content::Json(schema::<api::UsageBody>),
        errors: &[],
        is_open: false,
        handler: || get(api::usage),
    },
    Endpoint {
        method: "get",
        path: "/api/exchanges",
        summary: "Recorded exchanges, the newest first",
        details: NOTHING_TOLD,
        parameters: &[
            in_query(
                "limit",
                "At most so many, and no more than make 4 MiB.",
                Kind::Number { min: 1, max: 1_000 },
                Some("50"),
                "10",
            ),
            in_query("status", "The status the client got, or a class.", Kind::Text, None, "5xx"),
            in_query("end", "How they ended: one word, or several with commas.", Kind::Text, None, "rejected,broken"),
            in_query("backend", "Those that tried this backend.", Kind::Text, None, "nvidia-1"),
            in_query("client", "Those of this client key, by its name.", Kind::Text, None, "agent-1"),
            in_query(
                "before",
                "The `next` of the page before: the page that follows.",
                Kind::Text,
                None,
                "1768473000000000",
            ),
        ],
        body: None,
        answer: Content::Json(schema::<api::Exchanges>),
        errors: &[],
        is_open: false,
        handler: || get(api::exchanges),
    },
    Endpoint {
        method: "get",
        path: "/api/exchanges/{id}",
        summary: "One exchange, and how it went",
        details: "`story` is what `pointsman explain --json` tells; null where the journal did not keep it.",
        parameters: &[in_path("id", "Its `x-request-id`.", Kind::Text, "req_27453cfc6d82a25600000001")],
        body: None,
        answer: Content::Json(schema::<api::ToldExchange>),
        errors: &[(404, "it is not recorded: it may be under way, or older than the retention")],
        is_open: false,
        handler: || get(api::exchange),
    },
];

/// A router of all of them.
pub(super) fn router(state: &AdminState) -> Router<AdminState> {
    ENDPOINTS.iter().fold(Router::new(), |router, endpoint| {
        let checked = middleware::from_fn_with_state((state.clone(), endpoint), parameters::check);
        router.route(endpoint.path, (endpoint.handler)().route_layer(checked))
    })
}

/// Not `async`: the type of its future would depend on the table, and the table on it.
fn document() -> Ready<Response> {
    ready(openapi::document(ENDPOINTS))
}
