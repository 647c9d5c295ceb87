//! Query parameters that a path does not have are refused by name: a filter with a typo would answer something else than
//! was asked.

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

use super::endpoint::Endpoint;
use super::{AdminState, failure, policy};

/// Lets a request for an endpoint through, or answers it. Paths outside `/api` are asked by probes and scrapers, which may
/// add parameters of their own.
pub(super) async fn check(
    State((state, endpoint)): State<(AdminState, &'static Endpoint)>,
    request: Request,
    next: Next,
) -> Response {
    let is_checked = endpoint.path.starts_with("/api/");
    let Some(why) = unknown(endpoint, &request).filter(|_| is_checked) else {
        return next.run(request).await;
    };
    if endpoint.body.is_some() {
        // Read all the same: a client that still sends does not read the answer.
        let _ = policy::receive(request.into_body(), &state).await;
    }
    failure(StatusCode::BAD_REQUEST, why)
}

fn unknown(endpoint: &Endpoint, request: &Request) -> Option<String> {
    let Ok(Query(given)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
        return Some("the query cannot be read; write name=value, percent-encoded, joined by &".to_owned());
    };
    let names: Vec<&str> = endpoint.parameters.iter().filter(|p| !p.is_in_path).map(|p| p.name).collect();
    let (wrong, _) = given.iter().find(|(name, _)| !names.contains(&&**name))?;
    let wrong: String = wrong.chars().take(64).collect();
    let (method, path) = (endpoint.method.to_uppercase(), endpoint.path);
    let takes = if names.is_empty() { "no parameters".to_owned() } else { format!("only {}", names.join(", ")) };
    let unchanged = if endpoint.method == "get" { "" } else { "; nothing is changed" };
    Some(format!("`{wrong}` is not a parameter of {method} {path}, which takes {takes}{unchanged}"))
}
