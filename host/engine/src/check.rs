//! Checks that bytes are a policy, with errors in one sentence.

use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::instance::one_line;
use super::{Fault, wasi};

/// The contract this host speaks.
pub(super) const CONTRACT: (u64, u64, u64) = (1, 0, 0);

/// The reason why a component did not become a revision. The running one stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file has no bytes.
    #[error("the policy file is empty; was it still being written?")]
    Empty,
    /// More than [`super::EngineLimits::max_component_bytes`].
    #[error("the policy file has more than {max_bytes} bytes, the most that is accepted; is it the right file?")]
    TooLarge {
        /// Largest component that is taken, bytes.
        max_bytes: usize,
    },
    /// Not WebAssembly at all.
    #[error(
        "the policy file is not WebAssembly{0}; build the policy for the target wasm32-wasip2 and give the .wasm file"
    )]
    NotWasm(&'static str),
    /// A core module.
    #[error(
        "the policy file is a core WebAssembly module, not a component; build it for wasm32-wasip2, or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    /// The end is missing.
    #[error(
        "the policy file is cut off: {0}; copy it again, and rename it into place so that it is never seen half written"
    )]
    Truncated(String),
    /// WebAssembly that is not valid, or needs what this host does not have.
    #[error("the policy file is not a valid component: {0}")]
    Broken(String),
    /// Made for another contract.
    #[error(
        "the policy is made for the contract {found}; this host speaks pointsman:policy@{}: rebuild it with the matching SDK",
        contract()
    )]
    Version {
        /// The import that says so.
        found: String,
    },
    /// Needs what policies do not get.
    #[error("the policy imports {}, which policies do not get; only pointsman:policy and WASI 0.2 are there", list(.0))]
    Imports(Vec<String>),
    /// Lacks a function of the contract.
    #[error("the policy does not export `{0}`; it is no component of the world `policy` of pointsman:policy@{v}", v = contract())]
    MissingExport(&'static str),
    /// Its functions have other types than the contract's.
    #[error("the policy's functions are not those of pointsman:policy@{v}: {0}", v = contract())]
    Shape(String),
    /// The policy refused its settings or table.
    #[error("the policy refused its configuration: {0}")]
    Refused(String),
    /// More of something than any policy needs.
    #[error("the policy is too big to be compiled: it has {0}")]
    TooBig(String),
    /// The compiler did not come to an end.
    #[error("the policy could not be compiled within {limit:?}; the engine goes on with the next file")]
    CompileTime {
        /// Time limit of the start.
        limit: Duration,
    },
    /// The compiler wanted more memory than it may have.
    #[error(
        "the policy takes more than {mib} MiB to be compiled, the most that is allowed; split its largest functions"
    )]
    CompileMemory {
        /// Memory limit of the compilation, MiB.
        mib: u64,
    },
    /// The system ended the compiler.
    #[error(
        "the policy was not judged: the system killed its compiler, as it does where the machine or the container runs out of \
         memory before the compiler has the {mib} MiB that it may take; give it more, or lower policy.compile_memory_mb, and \
         send the policy again, or SIGHUP for a file"
    )]
    CompilerKilled {
        /// The limit, in MiB.
        mib: u64,
    },
    /// It is not wanted any more.
    #[error("the policy is no longer wanted: its compilation was cancelled")]
    Cancelled,
    /// Newer ones took its place in the compiler.
    #[error(
        "the policy's compilation gave way to newer ones; send it again, or SIGHUP for a file, if it is still wanted"
    )]
    Displaced,
    /// Others are still being compiled.
    #[error("the compiler is still busy with earlier policy files; try again in a minute")]
    CompilerBusy,
    /// It failed before it was asked anything.
    #[error("the policy failed at its start: {0}")]
    Start(Fault),
    /// It failed while it was configured.
    #[error("the policy failed in `configure`: {0}")]
    Configure(Fault),
    /// It failed at a canned question.
    #[error("the policy failed at a probe question ({question}): {fault}")]
    Probe {
        /// Name of the probe question.
        question: &'static str,
        /// Fault at the canned question.
        fault: Fault,
    },
}

impl LoadError {
    /// Returns true if it says nothing of the component, which may be taken when it is judged again.
    pub const fn is_no_verdict(&self) -> bool {
        matches!(
            self,
            LoadError::Cancelled | LoadError::Displaced | LoadError::CompilerBusy | LoadError::CompilerKilled { .. }
        )
    }
}

/// Largest part of a component's own message that is quoted.
const MAX_QUOTED_BYTES: usize = 2_000;

/// Names shown of a long list.
const MAX_NAMES: usize = 5;

/// A guest's words as part of a sentence.
pub(super) fn sentence(words: &str) -> String {
    one_line(words, MAX_QUOTED_BYTES)
}

fn list(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(MAX_NAMES).map(|name| one_line(name, 200)).collect();
    let more = names.len().saturating_sub(MAX_NAMES);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

/// The contract's version as text.
pub fn contract() -> String {
    let (major, minor, patch) = CONTRACT;
    format!("{major}.{minor}.{patch}")
}

/// Looks at the first bytes only, to name the usual mistakes.
pub(super) fn check_bytes(bytes: &[u8], max_bytes: usize) -> Result<(), LoadError> {
    const MAGIC: &[u8] = b"\0asm";
    const MODULE: &[u8] = &[1, 0, 0, 0];
    const COMPONENT_LAYER: &[u8] = &[1, 0];
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if bytes.len() > max_bytes {
        return Err(LoadError::TooLarge { max_bytes });
    }
    if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
        let start = bytes.trim_ascii_start();
        let is_wat = start.starts_with(b"(component") || start.starts_with(b"(module");
        return Err(LoadError::NotWasm(if is_wat { " but its text form" } else { "" }));
    }
    match (bytes.get(4..8), bytes.get(6..8)) {
        (None, _) | (_, None) => Err(LoadError::Truncated("it ends within its header".to_owned())),
        (Some(MODULE), _) => Err(LoadError::CoreModule),
        (Some(_), Some(COMPONENT_LAYER)) => Ok(()),
        (Some(_), Some(_)) => Err(LoadError::Broken("its header is that of no known version".to_owned())),
    }
}

/// A compiler's refusal in words.
pub(super) fn words(error: &wasmtime::Error) -> String {
    error.chain().map(|cause| cause.to_string()).collect::<Vec<_>>().join(": ")
}

/// Says what a compiler's refusal, in its words, means.
pub(super) fn compile_error(words: &str) -> LoadError {
    let text = sentence(words);
    if text.contains("unexpected end") || text.contains("is out of bounds (bound") {
        LoadError::Truncated(text)
    } else {
        LoadError::Broken(text)
    }
}

/// Looks at what the component imports and exports by name; the types are checked when it is linked.
pub(super) fn check_contract(component: &Component) -> Result<(), LoadError> {
    let ty = component.component_type();
    let engine = component.engine();
    let mut foreign = Vec::new();
    for (name, _) in ty.imports(engine) {
        if name.starts_with("pointsman:policy/") {
            check_version(name)?;
        } else if !wasi::is_wasi(name) {
            foreign.push(name.to_owned());
        }
    }
    if !foreign.is_empty() {
        return Err(LoadError::Imports(foreign));
    }
    for wanted in ["configure", "decide"] {
        let is_there =
            ty.exports(engine).any(|(name, item)| name == wanted && matches!(item.ty, ComponentItem::ComponentFunc(_)));
        if !is_there {
            return Err(LoadError::MissingExport(wanted));
        }
    }
    Ok(())
}

/// The interfaces a component imports, by name.
pub(super) fn imports(component: &Component) -> Vec<String> {
    component.component_type().imports(component.engine()).map(|(name, _)| name.to_owned()).collect()
}

/// The same major version, and no newer minor one: what is newer may need what is not here.
fn check_version(import: &str) -> Result<(), LoadError> {
    let other = || LoadError::Version { found: sentence(import) };
    let version = import.rsplit_once('@').ok_or_else(other)?.1;
    let mut numbers = version.split('.').map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if major == CONTRACT.0 && minor <= CONTRACT.1 => Ok(()),
        (Some(_), _) | (None, _) => Err(other()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_wrong_files_are_named() {
        let check = |bytes: &[u8]| check_bytes(bytes, 100).unwrap_err();
        assert_eq!(check(b""), LoadError::Empty);
        assert_eq!(check(&[0; 101]), LoadError::TooLarge { max_bytes: 100 });
        assert_eq!(check(b"hello"), LoadError::NotWasm(""));
        assert_eq!(check(b"  (component)"), LoadError::NotWasm(" but its text form"));
        assert_eq!(check(b"\0asm\x01\0\0\0"), LoadError::CoreModule);
        assert!(matches!(check(b"\0as"), LoadError::Truncated(_)));
        assert!(matches!(check(b"\0asm\x0d\0"), LoadError::Truncated(_)));
        assert!(matches!(check(b"\0asm\x0d\0\x07\0"), LoadError::Broken(_)));
        assert_eq!(check_bytes(b"\0asm\x0d\0\x01\0", 100), Ok(()));
    }

    #[test]
    fn older_minors_are_taken_newer_and_other_majors_are_not() {
        assert!(check_version("pointsman:policy/types@1.0.0").is_ok());
        assert!(check_version("pointsman:policy/types@1.0.7").is_ok());
        for other in ["types@1.1.0", "types@2.0.0", "types@0.9.0", "types", "types@x"] {
            assert!(check_version(&format!("pointsman:policy/{other}")).is_err(), "{other}");
        }
    }
}
