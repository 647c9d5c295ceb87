//! Component files that commands are given.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

use pointsman_engine::plain_file::{self, FileError};
use pointsman_engine::{Compiled, Engine, EngineLimits};

/// The component in the folder of a project, where `policy build` puts it.
pub(super) const DEFAULT_OUTPUT: &str = "policy.wasm";

/// The name of the embedded policy.
pub(super) const EMBEDDED: &str = "default";

/// The policy of a file, or the embedded one.
pub(super) fn compile(file: &Path) -> Result<Compiled, String> {
    // One scenario at a time asks one instance.
    let limits = EngineLimits { max_instances: 4, ..EngineLimits::default() };
    compile_in(&Engine::new(limits).map_err(|error| error.to_string())?, file)
}

/// The same, in this engine.
pub(super) fn compile_in(engine: &Engine, file: &Path) -> Result<Compiled, String> {
    if file == Path::new(EMBEDDED) {
        return engine.compile_embedded().map_err(|error| error.to_string());
    }
    let shown = file.display();
    let bytes = read(file, engine.limits().max_component_bytes as u64).map_err(|error| {
        format!(
            "cannot read {shown}: {error}; give a component file, a project that is built, or `{EMBEDDED}` for the policy inside this binary"
        )
    })?;
    engine.compile(&bytes).map_err(|error| format!("{shown}: {error}"))
}

/// The component's file: of a project's folder, what `policy build` makes in it.
pub(super) fn file_of(given: &Path) -> Cow<'_, Path> {
    let built = given.join(DEFAULT_OUTPUT);
    if given.is_dir() && built.is_file() { Cow::Owned(built) } else { Cow::Borrowed(given) }
}

/// A component, of its file or its project; at most one byte more of it than it may have.
pub(super) fn read(file: &Path, max_bytes: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    plain_file::open(&file_of(file))?.take(max_bytes + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
