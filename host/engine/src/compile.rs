//! Compilation: on a thread of its own, at low priority, and not awaited for ever.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use wasmtime::Engine;
use wasmtime::component::Component;

use super::check::{self, LoadError};
use super::priority::Priority;

/// Compilations at a time. One that nobody waits for any more goes on, as the compiler cannot be interrupted.
const MAX_RUNNING: usize = 4;

/// Compiles one component after another, each on its own thread, whose memory (tens of MiB) goes back with it.
#[derive(Default)]
pub(super) struct Compiler {
    /// Held by every compilation under way.
    running: Arc<()>,
}

impl Compiler {
    /// Compiles, but does not wait for longer than this.
    pub(super) fn compile(&self, engine: &Engine, wasm: &[u8], limit: Duration) -> Result<Component, LoadError> {
        if Arc::strong_count(&self.running) > MAX_RUNNING {
            return Err(LoadError::CompilerBusy);
        }
        let (sender, compiled) = mpsc::sync_channel(1);
        let (engine, wasm, running) = (engine.clone(), wasm.to_vec(), self.running.clone());
        let work = move || {
            Priority::Low.take();
            // Nobody may be waiting any more.
            let _ = sender.send(Component::from_binary(&engine, &wasm));
            drop(running);
        };
        let spawned = thread::Builder::new().name("policy-compiler".to_owned()).spawn(work);
        spawned.map_err(|error| LoadError::Broken(format!("the compiler's thread cannot start: {error}")))?;
        match compiled.recv_timeout(limit) {
            Ok(component) => component.map_err(|error| check::compile_error(&error)),
            Err(RecvTimeoutError::Timeout) => Err(LoadError::CompileTime { limit }),
            Err(RecvTimeoutError::Disconnected) => {
                Err(LoadError::Broken("the compiler panicked on this component".to_owned()))
            }
        }
    }
}
