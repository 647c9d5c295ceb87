//! The engine: one per process, makes revisions of components.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pointsman_core::table::Table;
use wasmtime::component::Linker;
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::cache::Cache;
use super::census;
use super::check::{self, LoadError};
use super::compile::Compiler;
use super::guest::{Guest, MAX_TABLE_ELEMENTS, Shared};
use super::hash::Hash;
use super::lines::LineTable;
use super::name;
use super::pools::Pools;
use super::revision::Revision;
use super::settings::SettingsOffer;
use super::ticker::Ticker;
use super::wasi;
use super::wire::bindings::{Policy, PolicyPre};
use super::workshop::{Scrap, Workshop};

/// The default policy as a component, built by `policies/build` from `policies/default`.
const EMBEDDED: &[u8] = include_bytes!("../../../policies/default/default.wasm");

/// Bounds of every policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Time for one decision, in ms, at most [`EngineLimits::MAX_DECIDE_MS`].
    pub decide_ms: u32,
    /// Time to start and configure an instance, in ms.
    pub configure_ms: u32,
    /// Memory of one instance, in bytes.
    pub memory_bytes: usize,
    /// Instances at a time, of all revisions together.
    pub max_instances: u32,
    /// Size of a policy file, in bytes.
    pub max_component_bytes: usize,
    /// Time to compile a component, in ms.
    pub compile_ms: u32,
}

impl EngineLimits {
    /// The clock of deadlines may sleep when no call came for 100 ms, so no decision may take longer.
    pub const MAX_DECIDE_MS: u32 = 90;

    /// The largest policy file taken, in bytes, wherever it comes from.
    pub const MAX_COMPONENT_BYTES: usize = 64 << 20;
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            decide_ms: 5,
            configure_ms: 1_000,
            memory_bytes: 64 << 20,
            max_instances: 128,
            max_component_bytes: Self::MAX_COMPONENT_BYTES,
            compile_ms: 300_000,
        }
    }
}

/// The machine cannot run policies.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The memory for instances could not be reserved, or the processor is not supported.
    #[error("the policy engine cannot start: {0}")]
    Start(String),
    /// The thread of the deadlines could not be started.
    #[error("the policy engine's clock thread cannot start: {0}")]
    Clock(std::io::Error),
    /// The thread that judges policies could not be started.
    #[error("the thread on which policies are judged cannot start: {0}")]
    Workshop(std::io::Error),
}

/// Compiles and runs policies. Cheap to clone.
#[derive(Clone)]
pub struct Engine(pub(super) Arc<Inner>);

pub(super) struct Inner {
    wasm: wasmtime::Engine,
    linker: Linker<Guest>,
    cache: Cache,
    compiler: Compiler,
    pub(super) workshop: Workshop,
    pub(super) pools: Pools,
    pub(super) ticker: Ticker,
    pub(super) limits: EngineLimits,
    pub(super) shared: Arc<Shared>,
}

/// A compiled component and its name.
pub(super) struct Code {
    pub(super) pre: PolicyPre<Guest>,
    pub(super) id: Arc<str>,
    /// What it calls itself.
    pub(super) name: Option<String>,
    /// The lines of its sources.
    pub(super) lines: Option<Arc<LineTable>>,
}

/// A component that is a policy by its contract, and has not run yet.
pub struct Compiled {
    engine: Engine,
    code: Arc<Code>,
    imports: Vec<String>,
    from_cache: bool,
}

impl Compiled {
    /// The second half of [`Engine::load`]: configures it for a table and probes it.
    pub fn configure(&self, settings: impl Into<SettingsOffer>, table: Arc<Table>) -> Result<Revision, LoadError> {
        Revision::new(self.engine.clone(), self.code.clone(), settings.into(), table)
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn code(&self) -> &Arc<Code> {
        &self.code
    }

    /// The name its revisions have.
    pub fn id(&self) -> &Arc<str> {
        &self.code.id
    }

    /// What it calls itself, where it does: the name of its project, as `policy build` writes it.
    pub fn name(&self) -> Option<&str> {
        self.code.name.as_deref()
    }

    /// The interfaces it imports, as it names them.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Had it been compiled before?
    pub fn is_from_cache(&self) -> bool {
        self.from_cache
    }

    /// A revision with an empty `state` of its own that nobody else sees; not even the probes leave a trace in it.
    pub fn isolated(&self, settings: impl Into<SettingsOffer>, table: Arc<Table>) -> Result<Revision, LoadError> {
        Revision::isolated(self.engine.clone(), self.code.clone(), settings.into(), table)
    }

    /// An isolated revision with a time of its own for one decision, in ms, at most [`EngineLimits::MAX_DECIDE_MS`], for whose
    /// instances no other revision gives up any.
    pub fn shadow(
        &self,
        settings: impl Into<SettingsOffer>,
        table: Arc<Table>,
        decide_ms: u32,
    ) -> Result<Revision, LoadError> {
        Ok(self.isolated(settings, table)?.for_shadow(decide_ms))
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        self.engine.0.workshop.take_apart([Scrap::Code(self.code.clone())]);
    }
}

impl Engine {
    /// Starts the engine. Reserves address space, not memory.
    pub fn new(limits: EngineLimits) -> Result<Self, EngineError> {
        Self::with_cache(limits, Cache::of_user())
    }

    /// One that compiles everything again, to find out how long that takes.
    pub fn without_cache(limits: EngineLimits) -> Result<Self, EngineError> {
        Self::with_cache(limits, Cache::none())
    }

    fn with_cache(mut limits: EngineLimits, cache: Cache) -> Result<Self, EngineError> {
        limits.decide_ms = limits.decide_ms.clamp(1, EngineLimits::MAX_DECIDE_MS);
        let start = |error: wasmtime::Error| EngineError::Start(format!("{error:#}"));
        let wasm = wasmtime::Engine::new(&config(&limits)).map_err(start)?;
        let mut linker = Linker::new(&wasm);
        Policy::add_to_linker::<_, wasmtime::component::HasSelf<Guest>>(&mut linker, |guest| guest).map_err(start)?;
        wasi::link(&mut linker).map_err(start)?;
        let clock = wasm.clone();
        let ticker = Ticker::start(move || clock.increment_epoch()).map_err(EngineError::Clock)?;
        Ok(Self(Arc::new(Inner {
            wasm,
            linker,
            cache,
            compiler: Compiler::default(),
            workshop: Workshop::start().map_err(EngineError::Workshop)?,
            pools: Pools::default(),
            ticker,
            limits,
            shared: Arc::default(),
        })))
    }

    /// Does this on the thread where policies are judged and taken apart: one thing after another, at a priority that
    /// leaves the processor to those who are served. False when too much waits there already; then it is not done.
    pub fn in_workshop(&self, job: impl FnOnce() + Send + 'static) -> bool {
        self.0.workshop.take_on(Box::new(job))
    }

    /// Makes a revision of a component: compiles, checks, configures, probes. Blocks for as long as compilation takes
    /// (tens of milliseconds to seconds), so it belongs on a thread of its own.
    pub fn load(
        &self,
        bytes: &[u8],
        settings: impl Into<SettingsOffer>,
        table: Arc<Table>,
    ) -> Result<Revision, LoadError> {
        self.compile(bytes)?.configure(settings, table)
    }

    /// The first half of [`Engine::load`]: everything that can be said of a component before it runs.
    pub fn compile(&self, bytes: &[u8]) -> Result<Compiled, LoadError> {
        let inner = &*self.0;
        check::check_bytes(bytes, inner.limits.max_component_bytes)?;
        census::check(bytes).map_err(LoadError::TooBig)?;
        let limit = Duration::from_millis(inner.limits.compile_ms.into());
        let compile = |bytes: &[u8]| inner.compiler.compile(&inner.wasm, bytes, limit);
        let (component, from_cache) = inner.cache.compile(&inner.wasm, bytes, compile)?;
        check::check_contract(&component)?;
        let shape = |error: wasmtime::Error| LoadError::Shape(check::sentence(&format!("{error:#}")));
        let mut linker = inner.linker.clone();
        wasi::link_absent(&mut linker, &component).map_err(shape)?;
        let pre = linker.instantiate_pre(&component).and_then(PolicyPre::new).map_err(shape)?;
        let lines = LineTable::of(bytes).map(Arc::new);
        let code = Arc::new(Code { pre, id: Hash::of(bytes).revision().into(), name: name::of(bytes), lines });
        Ok(Compiled { engine: self.clone(), code, imports: check::imports(&component), from_cache })
    }

    /// The default policy's revision, from the component inside this binary.
    pub fn embedded(&self, settings: impl Into<SettingsOffer>, table: Arc<Table>) -> Result<Revision, LoadError> {
        self.load(EMBEDDED, settings, table)
    }

    /// The default policy's component.
    pub const fn embedded_bytes() -> &'static [u8] {
        EMBEDDED
    }

    /// The name of its revisions.
    pub fn embedded_id() -> &'static str {
        static ID: OnceLock<String> = OnceLock::new();
        ID.get_or_init(|| Hash::of(EMBEDDED).revision())
    }

    /// The default policy, compiled.
    pub fn compile_embedded(&self) -> Result<Compiled, LoadError> {
        self.compile(EMBEDDED)
    }

    /// Instances alive, of all revisions together.
    pub fn instances(&self) -> u64 {
        self.0.wasm.pooling_allocator_metrics().map_or(0, |metrics| metrics.component_instances())
    }

    /// The bounds in force.
    pub fn limits(&self) -> &EngineLimits {
        &self.0.limits
    }
}

fn config(limits: &EngineLimits) -> Config {
    /// Memories a component may have; JavaScript's have 2. Each reserves address space, not memory.
    const MEMORIES_PER_COMPONENT: u32 = 2;

    let instances = limits.max_instances;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(census::MAX_MODULES))
        .total_memories(instances.saturating_mul(MEMORIES_PER_COMPONENT))
        .total_tables(instances.saturating_mul(4))
        .max_core_instances_per_component(census::MAX_MODULES)
        .max_tables_per_component(8)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_memory_size(limits.memory_bytes)
        .table_elements(MAX_TABLE_ELEMENTS)
        .linear_memory_keep_resident(0)
        .table_keep_resident(0);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        // The default doubles or triples the cost of a call.
        .concurrency_support(false)
        .epoch_interruption(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}
