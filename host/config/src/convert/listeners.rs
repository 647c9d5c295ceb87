//! `[server]` and `[admin]`: addresses, limits, and who may come.

use std::net::SocketAddr;

use pointsman_core::dialect::translate::Strictness;
use pointsman_core::exchange::ExhaustedStatus;
use pointsman_core::http::cors::AllowedOrigins;

use super::Check;
use crate::checked::{Admin, Privileges, Server, Spill};
use crate::defaults;
use crate::raw::{RawAdmin, RawExhaustedStatus, RawServer, RawTranslation};
use crate::tree::Path;

/// The smallest memory budget, MiB.
const MIN_MEMORY_BUDGET_MB: u32 = 8;

impl Check<'_, '_> {
    /// Disk for large requests that wait for memory.
    fn spill(&mut self, at: &Path, raw: &RawServer) -> Option<Spill> {
        let mb = self.at_least(&at.key("spill_mb"), raw.spill_mb, defaults::SPILL_MB, 1);
        match raw.spill_dir.as_deref() {
            None => {
                if raw.spill_mb.is_some() {
                    self.error(&at.key("spill_mb"), "there is no folder for these bytes")
                        .help("write spill_dir = \"/var/tmp\" as well");
                }
                None
            }
            Some("") => {
                self.error(&at.key("spill_dir"), "large requests need a folder").help("write a path, or leave it out");
                None
            }
            Some(dir) => Some(Spill { dir: self.folder.join(dir), bytes: u64::from(mb) << 20 }),
        }
    }

    pub(super) fn server(&mut self, raw: &RawServer) -> Server {
        let at = Path::of("server");
        Server {
            listen: self.listen(&at, raw.listen.as_deref(), defaults::LISTEN),
            max_body_bytes: self.at_least(&at.key("max_body_bytes"), raw.max_body_bytes, defaults::MAX_BODY_BYTES, 1),
            memory_budget: raw.memory_budget_mb.map(|mb| {
                u64::from(self.at_least(&at.key("memory_budget_mb"), Some(mb), mb, MIN_MEMORY_BUDGET_MB)) << 20
            }),
            spill: self.spill(&at, raw),
            max_header_bytes: self.at_least(
                &at.key("max_header_bytes"),
                raw.max_header_bytes,
                defaults::MAX_HEADER_BYTES,
                8 << 10,
            ),
            max_connections: raw
                .max_connections
                .map(|max| self.at_least(&at.key("max_connections"), Some(max), max, 1)),
            drain_timeout: self.millis(
                &at.key("drain_timeout_ms"),
                raw.drain_timeout_ms,
                defaults::DRAIN_TIMEOUT_MS,
                0,
            ),
            header_read_timeout: self.millis(
                &at.key("header_read_timeout_ms"),
                raw.header_read_timeout_ms,
                defaults::HEADER_READ_TIMEOUT_MS,
                1,
            ),
            unread_timeout: self.millis(
                &at.key("unread_timeout_ms"),
                raw.unread_timeout_ms,
                defaults::UNREAD_TIMEOUT_MS,
                1,
            ),
            translation: match raw.translation {
                None => Strictness::default(),
                Some(RawTranslation::Lenient) => Strictness::Lenient,
                Some(RawTranslation::Strict) => Strictness::Strict,
            },
            exhausted_status: raw.exhausted_status.map_or(ExhaustedStatus::Unavailable, exhausted_status),
            keep_alive: self.millis(&at.key("keep_alive_ms"), raw.keep_alive_ms, defaults::KEEP_ALIVE_MS, 1),
            allowed_origins: self.allowed_origins(&at.key("allowed_origins"), &raw.allowed_origins),
            privileges: Privileges { priority_max: self.priority_max(&at, raw.priority_max), labels: None },
        }
    }

    fn allowed_origins(&mut self, at: &Path, raw: &[String]) -> AllowedOrigins {
        AllowedOrigins::parse(raw.iter().map(String::as_str)).unwrap_or_else(|(index, text)| {
            let problem = self.error(&at.index(index), format!("`{text}` is not an origin"));
            problem.help("write \"https://app.example\", without a path, or \"*\" for all");
            AllowedOrigins::default()
        })
    }

    pub(super) fn admin(&mut self, raw: &RawAdmin) -> Admin {
        let at = Path::of("admin");
        let listen = self.listen(&at, raw.listen.as_deref(), defaults::ADMIN_LISTEN);
        let owner = "the admin listener";
        let token = raw.token.as_deref().and_then(|text| self.secret(&at.key("token"), text, owner));
        if raw.token.is_none() && !self.tree.refused(&at.key("token")) && !listen.ip().is_loopback() {
            let problem = self.error(&at.key("listen"), "the admin listener would be open to everyone");
            problem
                .label("not a loopback address")
                .help("set [admin] token = \"env:POINTSMAN_ADMIN_TOKEN\", or listen on 127.0.0.1");
        }
        let max_connections =
            self.at_least(&at.key("max_connections"), raw.max_connections, defaults::ADMIN_MAX_CONNECTIONS, 4);
        Admin { listen, token, max_connections }
    }

    /// Without client keys, anyone who reaches the listener spends the operator's money.
    pub(super) fn open_to_everyone(&mut self) {
        let listen = Path::of("server").key("listen");
        let problem = self.error(&listen, "everyone who reaches this address could spend your keys");
        problem
            .label("not a loopback address, and there is no [[client]]")
            .help("add a [[client]] with a name and a key, or say [server] allow_open = true");
    }

    /// The second listener would not start.
    pub(super) fn one_address_for_two(&mut self, listen: SocketAddr) {
        let [server, admin] = ["server", "admin"].map(|section| Path::of(section).key("listen"));
        let is_written = self.tree.find(&admin).is_some();
        let at = if is_written { &admin } else { &server };
        let problem = self.error(at, "clients and the operator would be served at the same address");
        problem.label(format!("[server] and [admin] would both listen on port {}", listen.port())).help(format!(
            "give [admin] listen a port of its own, such as \"127.0.0.1:{}\"",
            other_port(listen.port())
        ));
    }

    fn listen(&mut self, section: &Path, text: Option<&str>, default: &str) -> SocketAddr {
        let default: SocketAddr = default.parse().expect("a default address is valid");
        let port = default.port();
        let Some(text) = text else { return default };
        let text = text.replace("localhost", "127.0.0.1");
        text.parse().unwrap_or_else(|_| {
            let help = match text.strip_prefix(':').unwrap_or(&text).parse::<u16>() {
                Ok(port) => format!("write \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for every interface"),
                Err(_) => format!("write an IP address and a port, such as \"127.0.0.1:{port}\" or \"[::1]:{port}\""),
            };
            self.error(&section.key("listen"), "this is not an address to listen on").help(help);
            default
        })
    }
}

pub(super) const fn exhausted_status(raw: RawExhaustedStatus) -> ExhaustedStatus {
    match raw {
        RawExhaustedStatus::Unavailable => ExhaustedStatus::Unavailable,
        RawExhaustedStatus::Common => ExhaustedStatus::Common,
    }
}

/// Returns true if only one of two listeners can bind: port 0 takes any free one, and an unspecified address takes
/// every address.
pub(super) fn is_same_socket(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && overlap
}

/// A port for the admin listener beside this one.
fn other_port(taken: u16) -> u16 {
    const ADMIN: u16 = 9901;
    if taken == ADMIN { ADMIN + 1 } else { ADMIN }
}
