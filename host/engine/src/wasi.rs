//! WASI 0.2, linked so that any language's component loads, and inert: no files, environment, arguments or network.
//!
//! Clock and randomness come from the query. The signatures are `wasmtime-wasi`'s; its implementations are not used,
//! because their blocking calls (even closing a stream) enter a tokio runtime, which panics on a thread that serves one,
//! and because a real clock would make decisions that do not replay.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, Linker, Resource, ResourceType, Val};
use wasmtime::{Result, bail};
use wasmtime_wasi::p2::bindings::sync::io::{poll, streams};
use wasmtime_wasi::p2::bindings::{cli, clocks, io::error, random};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult};

use super::guest::Guest;
use super::wire::bindings::pointsman::policy::log::Level;

/// The stream resources there are; their numbers are all there is to them.
const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// The most a stream takes at once.
const WRITE_AT_ONCE_BYTES: u64 = 64 * 1024;

/// Interfaces that [`link`] provides, without their version.
const PROVIDED: [&str; 18] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
];

/// Gives the linker everything of WASI that a policy may call.
pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    type Own = HasSelf<Guest>;
    cli::environment::add_to_linker::<_, Own>(linker, |g| g)?;
    cli::exit::add_to_linker::<_, Own>(linker, |g| g)?;
    cli::stdin::add_to_linker::<_, Own>(linker, |g| g)?;
    cli::stdout::add_to_linker::<_, Own>(linker, |g| g)?;
    cli::stderr::add_to_linker::<_, Own>(linker, |g| g)?;
    cli::terminal_input::add_to_linker::<_, Own>(linker, |g| g)?;
    cli::terminal_output::add_to_linker::<_, Own>(linker, |g| g)?;
    cli::terminal_stdin::add_to_linker::<_, Own>(linker, |g| g)?;
    cli::terminal_stdout::add_to_linker::<_, Own>(linker, |g| g)?;
    cli::terminal_stderr::add_to_linker::<_, Own>(linker, |g| g)?;
    clocks::monotonic_clock::add_to_linker::<_, Own>(linker, |g| g)?;
    clocks::wall_clock::add_to_linker::<_, Own>(linker, |g| g)?;
    error::add_to_linker::<_, Own>(linker, |g| g)?;
    poll::add_to_linker::<_, Own>(linker, |g| g)?;
    streams::add_to_linker::<_, Own>(linker, |g| g)?;
    random::random::add_to_linker::<_, Own>(linker, |g| g)?;
    random::insecure::add_to_linker::<_, Own>(linker, |g| g)?;
    random::insecure_seed::add_to_linker::<_, Own>(linker, |g| g)?;
    Ok(())
}

/// Gives it the rest of WASI that this component imports, as functions that trap when they are called. Only
/// `get-directories` answers, with nothing, because language runtimes call it at their start.
pub(super) fn link_absent(linker: &mut Linker<Guest>, component: &Component) -> Result<()> {
    /// Stands for resources of which there is none.
    struct Absent;

    let engine = component.engine();
    let known = known_resources(component);
    for (name, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = item.ty else {
            continue;
        };
        if !name.starts_with("wasi:") || PROVIDED.contains(&without_version(name)) {
            continue;
        }
        let mut instance = linker.instance(name)?;
        for (item_name, item) in interface.exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) if item_name == "get-directories" => {
                    instance.func_new(item_name, |_, _, _, results| {
                        results[0] = Val::List(Vec::new());
                        Ok(())
                    })?;
                }
                ComponentItem::ComponentFunc(_) => {
                    let called = format!("{name}#{item_name}");
                    instance.func_new(item_name, move |_, _, _, _| {
                        bail!("the policy called {called}; policies have no files and no network")
                    })?;
                }
                ComponentItem::Resource(ty) => {
                    let known = known.iter().find(|(imported, _)| *imported == ty).map(|(_, host)| *host);
                    instance.resource(item_name, known.unwrap_or(ResourceType::host::<Absent>()), |_, _| Ok(()))?;
                }
                ComponentItem::CoreFunc(_)
                | ComponentItem::Module(_)
                | ComponentItem::Component(_)
                | ComponentItem::ComponentInstance(_)
                | ComponentItem::Type(_) => {}
            }
        }
    }
    Ok(())
}

/// The resources of [`link`]'s interfaces, as this component imports them and as they are here. Other interfaces speak
/// of them too: files hand out streams.
fn known_resources(component: &Component) -> Vec<(ResourceType, ResourceType)> {
    let engine = component.engine();
    let mut known = Vec::new();
    for (name, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = item.ty else {
            continue;
        };
        for (resource, item) in interface.exports(engine) {
            let host = match (without_version(name), resource) {
                ("wasi:io/error", "error") => ResourceType::host::<error::Error>(),
                ("wasi:io/poll", "pollable") => ResourceType::host::<DynPollable>(),
                ("wasi:io/streams", "input-stream") => ResourceType::host::<DynInputStream>(),
                ("wasi:io/streams", "output-stream") => ResourceType::host::<DynOutputStream>(),
                (_, _) => continue,
            };
            if let ComponentItem::Resource(imported) = item.ty {
                known.push((imported, host));
            }
        }
    }
    known
}

fn without_version(import: &str) -> &str {
    import.split_once('@').map_or(import, |(name, _)| name)
}

/// Returns true if this import is part of WASI 0.2.
pub(super) fn is_wasi(import: &str) -> bool {
    import.starts_with("wasi:") && import.rsplit_once('@').is_some_and(|(_, version)| version.starts_with("0.2."))
}

impl cli::environment::Host for Guest {
    fn get_environment(&mut self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }
    fn get_arguments(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn initial_cwd(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}

impl cli::exit::Host for Guest {
    fn exit(&mut self, _status: std::result::Result<(), ()>) -> Result<()> {
        bail!("the policy called exit")
    }
    fn exit_with_code(&mut self, code: u8) -> Result<()> {
        bail!("the policy called exit with code {code}")
    }
}

/// Gives the guest a handle.
fn lend<T: 'static>(guest: &mut Guest, rep: u32) -> Result<Resource<T>> {
    guest.lend_handle()?;
    Ok(Resource::new_own(rep))
}

impl cli::stdin::Host for Guest {
    fn get_stdin(&mut self) -> Result<Resource<DynInputStream>> {
        lend(self, STDIN)
    }
}

impl cli::stdout::Host for Guest {
    fn get_stdout(&mut self) -> Result<Resource<DynOutputStream>> {
        lend(self, STDOUT)
    }
}

impl cli::stderr::Host for Guest {
    fn get_stderr(&mut self) -> Result<Resource<DynOutputStream>> {
        lend(self, STDERR)
    }
}

impl cli::terminal_input::Host for Guest {}
impl cli::terminal_input::HostTerminalInput for Guest {
    fn drop(&mut self, _: Resource<cli::terminal_input::TerminalInput>) -> Result<()> {
        Ok(())
    }
}
impl cli::terminal_output::Host for Guest {}
impl cli::terminal_output::HostTerminalOutput for Guest {
    fn drop(&mut self, _: Resource<cli::terminal_output::TerminalOutput>) -> Result<()> {
        Ok(())
    }
}
impl cli::terminal_stdin::Host for Guest {
    fn get_terminal_stdin(&mut self) -> Result<Option<Resource<cli::terminal_input::TerminalInput>>> {
        Ok(None)
    }
}
impl cli::terminal_stdout::Host for Guest {
    fn get_terminal_stdout(&mut self) -> Result<Option<Resource<cli::terminal_output::TerminalOutput>>> {
        Ok(None)
    }
}
impl cli::terminal_stderr::Host for Guest {
    fn get_terminal_stderr(&mut self) -> Result<Option<Resource<cli::terminal_output::TerminalOutput>>> {
        Ok(None)
    }
}

impl clocks::monotonic_clock::Host for Guest {
    fn now(&mut self) -> Result<u64> {
        Ok(self.now_ms.saturating_mul(1_000_000))
    }
    fn resolution(&mut self) -> Result<u64> {
        Ok(1_000_000)
    }
    /// Time stands still during a decision, so nothing is worth waiting for: every wait is over at once.
    fn subscribe_instant(&mut self, _when: u64) -> Result<Resource<DynPollable>> {
        lend(self, 0)
    }
    fn subscribe_duration(&mut self, _duration: u64) -> Result<Resource<DynPollable>> {
        lend(self, 0)
    }
}

impl clocks::wall_clock::Host for Guest {
    fn now(&mut self) -> Result<clocks::wall_clock::Datetime> {
        let nanoseconds = (self.now_ms % 1_000) as u32 * 1_000_000;
        Ok(clocks::wall_clock::Datetime { seconds: self.now_ms / 1_000, nanoseconds })
    }
    fn resolution(&mut self) -> Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime { seconds: 0, nanoseconds: 1_000_000 })
    }
}

/// Random bytes a policy may ask for at once.
const MAX_RANDOM_BYTES: u64 = 64 * 1024;

fn random_bytes(guest: &mut Guest, len: u64) -> Result<Vec<u8>> {
    if len > MAX_RANDOM_BYTES {
        bail!("the policy asked for {len} random bytes at once; at most {MAX_RANDOM_BYTES} can be had");
    }
    let words = len.div_ceil(8);
    let mut bytes: Vec<u8> = (0..words).flat_map(|_| guest.random().to_le_bytes()).collect();
    bytes.truncate(len as usize);
    Ok(bytes)
}

impl random::random::Host for Guest {
    fn get_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        random_bytes(self, len)
    }
    fn get_random_u64(&mut self) -> Result<u64> {
        Ok(self.random())
    }
}

impl random::insecure::Host for Guest {
    fn get_insecure_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        random_bytes(self, len)
    }
    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        Ok(self.random())
    }
}

impl random::insecure_seed::Host for Guest {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        Ok((self.random(), self.random()))
    }
}

impl error::Host for Guest {}
impl error::HostError for Guest {
    fn to_debug_string(&mut self, _: Resource<error::Error>) -> Result<String> {
        Ok("the stream is closed".to_owned())
    }
    fn drop(&mut self, _: Resource<error::Error>) -> Result<()> {
        Ok(())
    }
}

impl poll::Host for Guest {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        Ok((0..pollables.len() as u32).collect())
    }
}
impl poll::HostPollable for Guest {
    fn ready(&mut self, _: Resource<DynPollable>) -> Result<bool> {
        Ok(true)
    }
    fn block(&mut self, _: Resource<DynPollable>) -> Result<()> {
        Ok(())
    }
    fn drop(&mut self, _: Resource<DynPollable>) -> Result<()> {
        self.take_handle_back();
        Ok(())
    }
}

impl streams::Host for Guest {
    fn convert_stream_error(&mut self, error: StreamError) -> Result<streams::StreamError> {
        match error {
            StreamError::Closed => Ok(streams::StreamError::Closed),
            StreamError::LastOperationFailed(error) | StreamError::Trap(error) => Err(error),
        }
    }
}

impl streams::HostInputStream for Guest {
    fn read(&mut self, _: Resource<DynInputStream>, _len: u64) -> StreamResult<Vec<u8>> {
        Err(StreamError::Closed)
    }
    fn blocking_read(&mut self, _: Resource<DynInputStream>, _len: u64) -> StreamResult<Vec<u8>> {
        Err(StreamError::Closed)
    }
    fn skip(&mut self, _: Resource<DynInputStream>, _len: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }
    fn blocking_skip(&mut self, _: Resource<DynInputStream>, _len: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }
    fn subscribe(&mut self, _: Resource<DynInputStream>) -> Result<Resource<DynPollable>> {
        lend(self, 0)
    }
    fn drop(&mut self, _: Resource<DynInputStream>) -> Result<()> {
        self.take_handle_back();
        Ok(())
    }
}

impl streams::HostOutputStream for Guest {
    fn check_write(&mut self, _: Resource<DynOutputStream>) -> StreamResult<u64> {
        Ok(WRITE_AT_ONCE_BYTES)
    }
    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        if stream.rep() == STDERR {
            self.write_stderr(&bytes);
            self.print(Level::Warn, &bytes);
        } else {
            self.print(Level::Info, &bytes);
        }
        Ok(())
    }
    fn blocking_write_and_flush(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        self.write(stream, bytes)
    }
    fn flush(&mut self, _: Resource<DynOutputStream>) -> StreamResult<()> {
        Ok(())
    }
    fn blocking_flush(&mut self, _: Resource<DynOutputStream>) -> StreamResult<()> {
        Ok(())
    }
    fn write_zeroes(&mut self, _: Resource<DynOutputStream>, _len: u64) -> StreamResult<()> {
        Ok(())
    }
    fn blocking_write_zeroes_and_flush(&mut self, _: Resource<DynOutputStream>, _len: u64) -> StreamResult<()> {
        Ok(())
    }
    fn splice(&mut self, _: Resource<DynOutputStream>, _: Resource<DynInputStream>, _len: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }
    fn blocking_splice(
        &mut self,
        _: Resource<DynOutputStream>,
        _: Resource<DynInputStream>,
        _len: u64,
    ) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }
    fn subscribe(&mut self, _: Resource<DynOutputStream>) -> Result<Resource<DynPollable>> {
        lend(self, 0)
    }
    fn drop(&mut self, _: Resource<DynOutputStream>) -> Result<()> {
        self.take_handle_back();
        Ok(())
    }
}
