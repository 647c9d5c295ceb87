//! The engine: one per process, compiles components and makes revisions of them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pointsman_core::table::Table;
use wasmtime::component::Linker;

use super::address_space::{self, InstanceCount};
use super::background::BackgroundWorker;
use super::cache::Cache;
use super::cancellation::Cancellation;
use super::check::{self, LoadError};
use super::code::Code;
use super::compile::{Compiler, Work};
use super::compile_child::CompileJob;
use super::compiled::Compiled;
use super::guest::Guest;
use super::idle::IdleInstances;
use super::limits::EngineLimits;
use super::lines::LineTable;
use super::name;
use super::revision::Revision;
use super::runtime::Runtime;
use super::settings::SettingsOffer;
use super::size_limits;
use super::ticker::Ticker;
use super::wasi;
use super::wire::bindings::{Policy, PolicyPre};
use pointsman_core::lifecycle::Hash;

/// The default policy as a component, built by `policies/build` from `policies/default`.
const EMBEDDED: &[u8] = include_bytes!("../../../policies/default/default.wasm");

/// The reason why the machine cannot run policies.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The memory for instances could not be reserved, or the processor is not supported.
    #[error("the policy engine cannot start: {0}")]
    Start(String),
    /// The thread of the deadlines could not be started.
    #[error("the policy engine's clock thread cannot start: {0}")]
    Clock(std::io::Error),
    /// The thread that loads policies could not be started.
    #[error("the policy engine's background thread cannot start: {0}")]
    Background(std::io::Error),
}

/// Compiles and runs policies. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    wasm: wasmtime::Engine,
    linker: Linker<Guest>,
    cache: Cache,
    compiler: Compiler,
    runtime: Arc<Runtime>,
}

impl Engine {
    /// Starts the engine. Reserves address space, not memory, and less of it where the process may not have as much.
    ///
    /// # Errors
    /// When the machine cannot run policies.
    pub fn new(limits: EngineLimits) -> Result<Self, EngineError> {
        Self::with_cache(limits, Cache::of_user())
    }

    /// Starts an engine that compiles every component again, to measure how long that takes.
    ///
    /// # Errors
    /// When the machine cannot run policies.
    pub fn without_cache(limits: EngineLimits) -> Result<Self, EngineError> {
        Self::with_cache(limits, Cache::none())
    }

    fn with_cache(mut limits: EngineLimits, cache: Cache) -> Result<Self, EngineError> {
        limits.decide_ms = limits.decide_ms.clamp(1, EngineLimits::MAX_DECIDE_MS);
        let start = |error: wasmtime::Error| EngineError::Start(format!("{error:#}"));
        let (wasm, reservation) = address_space::start(&mut limits).map_err(start)?;
        let compiler = Compiler::new(CompileJob::new(reservation, &limits));
        let mut linker = Linker::new(&wasm);
        Policy::add_to_linker::<_, wasmtime::component::HasSelf<Guest>>(&mut linker, |guest| guest).map_err(start)?;
        wasi::link(&mut linker).map_err(start)?;
        let clock = wasm.clone();
        let runtime = Runtime {
            instances: InstanceCount::new(limits.max_instances),
            limits,
            ticker: Ticker::start(move || clock.increment_epoch()).map_err(EngineError::Clock)?,
            background: BackgroundWorker::start().map_err(EngineError::Background)?,
            idle: IdleInstances::default(),
            shared: Arc::default(),
        };
        let runtime = Arc::new(runtime);
        Ok(Self(Arc::new(Inner { wasm, linker, cache, compiler, runtime })))
    }

    /// Queues a job for the background thread, on which policies are loaded and freed: one after another, at a low priority, so
    /// that requests are not delayed. False when the queue is full; the job is dropped then.
    pub fn run_in_background(&self, job: impl FnOnce() + Send + 'static) -> bool {
        self.0.runtime.background.submit(Box::new(job))
    }

    /// Makes a revision of a component: compiles, checks, configures, probes. Blocks for as long as compilation takes
    /// (tens of milliseconds to seconds), so it belongs on a thread of its own.
    ///
    /// # Errors
    /// Whatever is wrong with the component, its settings or its answers to the probes.
    pub fn load(
        &self,
        bytes: &[u8],
        settings: impl Into<SettingsOffer>,
        table: Arc<Table>,
    ) -> Result<Revision, LoadError> {
        self.compile(bytes)?.configure(settings, table)
    }

    /// The first half of [`Engine::load`]: all checks that need no running component.
    ///
    /// # Errors
    /// Whatever is wrong with the component.
    pub fn compile(&self, bytes: &[u8]) -> Result<Compiled, LoadError> {
        self.compile_unless(bytes, &Cancellation::default())
    }

    /// The same, until it is cancelled.
    ///
    /// # Errors
    /// The same, and [`LoadError::Cancelled`].
    pub fn compile_unless(&self, bytes: &[u8], cancellation: &Cancellation) -> Result<Compiled, LoadError> {
        let inner = &*self.0;
        let limits = &inner.runtime.limits;
        check::check_bytes(bytes, limits.max_component_bytes)?;
        size_limits::check(bytes).map_err(LoadError::TooBig)?;
        let limit = Duration::from_millis(limits.compile_ms.into());
        let compile = |wasm: &[u8]| {
            let work = Work { engine: &inner.wasm, wasm, is_own: wasm == EMBEDDED, limit };
            inner.compiler.compile(work, cancellation)
        };
        let (component, from_cache) = inner.cache.compile(&inner.wasm, bytes, compile)?;
        check::check_contract(&component)?;
        let shape = |error: wasmtime::Error| LoadError::Shape(check::sentence(&format!("{error:#}")));
        let mut linker = inner.linker.clone();
        wasi::link_absent(&mut linker, &component).map_err(shape)?;
        let pre = linker.instantiate_pre(&component).and_then(PolicyPre::new).map_err(shape)?;
        let lines = LineTable::of(bytes).map(Arc::new);
        let code = Arc::new(Code { pre, id: Hash::of(bytes).revision().into(), name: name::of(bytes), lines });
        Ok(Compiled::new(inner.runtime.clone(), code, check::imports(&component), from_cache))
    }

    /// The default policy's revision, from the component inside this binary.
    ///
    /// # Errors
    /// When it refuses the settings or the table.
    pub fn embedded(&self, settings: impl Into<SettingsOffer>, table: Arc<Table>) -> Result<Revision, LoadError> {
        self.load(EMBEDDED, settings, table)
    }

    /// Returns the component of the default policy, which is part of the binary.
    pub const fn embedded_bytes() -> &'static [u8] {
        EMBEDDED
    }

    /// The name of the default policy's revisions.
    pub fn embedded_id() -> &'static str {
        static ID: OnceLock<String> = OnceLock::new();
        ID.get_or_init(|| Hash::of(EMBEDDED).revision())
    }

    /// The default policy, compiled.
    ///
    /// # Errors
    /// When it cannot be compiled on this machine.
    pub fn compile_embedded(&self) -> Result<Compiled, LoadError> {
        self.compile(EMBEDDED)
    }

    /// Instances alive, of all revisions together.
    pub fn instances(&self) -> u64 {
        self.0.runtime.instances.alive().into()
    }

    /// Returns the bounds that every policy is held to.
    pub fn limits(&self) -> &EngineLimits {
        &self.0.runtime.limits
    }
}
