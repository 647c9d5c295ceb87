//! Names and origins of a request to a listener without keys.
#![no_main]

use http::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use http::uri::{Authority, Uri};
use libfuzzer_sys::fuzz_target;
use pointsman_core::http::cors::AllowedOrigins;
use pointsman_core::http::keyless::{Exposure, refused};

fuzz_target!(|input: (&[u8], &[u8], &str)| {
    let (host, origin, public) = input;
    let mut headers = HeaderMap::new();
    for (name, value) in [(HOST, host), (ORIGIN, origin)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let (target, none) = (Uri::from_static("/"), AllowedOrigins::default());
    for exposure in [Exposure::Loopback, Exposure::Open] {
        refused(&target, &headers, exposure, &none);
        if let Some(page) = headers.get(ORIGIN) {
            let own = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
            let page = String::from_utf8_lossy(page.as_bytes()).to_ascii_lowercase();
            let is_own = |scheme: &str, port: &str| {
                page == format!("{scheme}://{own}") || page == format!("{scheme}://{}", own.trim_end_matches(port))
                    || format!("{scheme}://{own}") == page.trim_end_matches(port)
            };
            if refused(&target, &headers, exposure, &none).is_none() {
                let same = is_own("http", ":80") || is_own("https", ":443");
                let ports = page.rsplit_once(':').is_some_and(|(_, port)| port.starts_with('0'));
                assert!(same || ports || own.contains(":0"), "a page of {page:?} at {own:?}");
            }
        }
    }
    // A name below a public domain is never this machine's.
    let name = format!("{public}.example");
    if let Ok(authority) = Authority::try_from(name.as_str())
        && let Ok(value) = HeaderValue::from_str(&name)
        && authority.port().is_none()
    {
        let headers = HeaderMap::from_iter([(HOST, value)]);
        assert!(refused(&target, &headers, Exposure::Loopback, &none).is_some(), "{name}");
    }
});
