//! Links of an answer that lead to the provider, on their way to the client.

use bytes::Bytes;
use http::response::Parts;
use pointsman_core::http::headers::has_content_type;
use pointsman_core::http::links::Links;

use super::in_flight::InFlight;
use super::served_by::ServedBy;

/// Changes the headers of an answer so that their links lead back through the proxy; of an answer about stored things the
/// body too, which is then returned.
pub(super) fn lead_back(in_flight: &InFlight, served_by: &ServedBy, head: &mut Parts, body: Bytes) -> Bytes {
    let request = in_flight.request();
    let has_links = request.operation.is_about_stored_things() && has_content_type(&head.headers, "application/json");
    if !has_links && !may_have_links(head) {
        return body;
    }
    let backends = &in_flight.snapshot().view.table.backends;
    let index = backends.iter().position(|backend| backend.id == served_by.backend);
    let (Some(index), Some(origin)) = (index, request.origin()) else { return body };
    let endpoint = &in_flight.snapshot().targets[index].endpoint;
    let links = Links::new(&endpoint.base, &origin, &request.target.path()[..request.root]);
    links.change_headers(&mut head.headers);
    let own = request.own_path();
    // A file's content is the client's own.
    let is_content = own.ends_with("/content") || own.ends_with("/results");
    if !has_links || is_content || endpoint.dialect.is_opaque() {
        return body;
    }
    links.changed_json(&body).map_or(body, Bytes::from)
}

fn may_have_links(head: &Parts) -> bool {
    head.headers.keys().any(|name| name.as_str().ends_with("location") || name == http::header::LINK)
}
