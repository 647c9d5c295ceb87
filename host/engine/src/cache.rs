//! Compiled code, kept on disk: a JavaScript or Python component takes seconds to compile and milliseconds to load.
//!
//! An entry is named by the component's hash and by the engine's version and settings, lies in a folder that only this
//! user can write to, and begins with the hash of its code: a damaged, foreign or outdated one is compiled again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::LOG_TARGET;
use super::check::{self, LoadError};

/// Overrides the folder; empty: nothing is kept.
pub(super) const FOLDER_VARIABLE: &str = "POINTSMAN_CACHE_DIR";

/// A larger entry is not read.
const MAX_ENTRY_BYTES: u64 = 512 << 20;

/// Entries kept; beyond that the oldest go.
const MAX_ENTRIES: usize = 64;

const HASH_BYTES: usize = 32;

/// The folder of compiled code; none where there is no place for it.
#[derive(Clone, Debug)]
pub(super) struct Cache(Option<PathBuf>);

impl Cache {
    /// `$POINTSMAN_CACHE_DIR`, else `pointsman` in the user's cache folder.
    pub(super) fn of_user() -> Self {
        if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
            return Self((!folder.is_empty()).then(|| folder.into()));
        }
        let xdg = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        Self(xdg.or_else(home).map(|folder| folder.join("pointsman")))
    }

    /// A cache that keeps nothing.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// A cache in this folder.
    #[cfg(test)]
    pub(super) fn at(folder: impl Into<PathBuf>) -> Self {
        Self(Some(folder.into()))
    }

    /// The compiled component, and whether it came from the cache; else it was compiled now and is kept for the next time.
    ///
    /// # Errors
    /// The compiler's. The cache itself never fails, it only does not help.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        wasm: &[u8],
        compile: impl FnOnce(&[u8]) -> Result<Vec<u8>, LoadError>,
    ) -> Result<(Component, bool), LoadError> {
        let loaded = |code: &[u8]| load(engine, code).map_err(|error| check::compile_error(&check::words(&error)));
        let Some(entry) = self.0.as_ref().map(|folder| folder.join(entry_name(engine, wasm))) else {
            return Ok((loaded(&compile(wasm)?)?, false));
        };
        if let Some(component) = read_private(&entry).and_then(|code| load(engine, &code).ok()) {
            return Ok((component, true));
        }
        let code = compile(wasm)?;
        let component = loaded(&code)?;
        if let Err(error) = keep(&code, &entry) {
            tracing::debug!(target: LOG_TARGET, entry = %entry.display(), %error, "the compiled policy could not be cached; the next start compiles it again");
        }
        Ok((component, false))
    }
}

fn entry_name(engine: &Engine, wasm: &[u8]) -> String {
    let mut settings = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut settings);
    format!("{}-{:016x}.cwasm", super::Hash::of(wasm), settings.finish())
}

#[expect(unsafe_code, reason = "the one place that loads compiled code; see the safety comment")]
fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the code is this engine's own compiler's. It comes from this process; or over a pipe from a child that this
    // process started from its own binary (`compile_child`); or from a file that `keep` wrote: it and its folder belong to
    // this user and nobody else can write to them, and its hash says that it is whole. wasmtime checks version and settings.
    unsafe { Component::deserialize(engine, code) }
}

/// The code of an entry, if it is whole and nobody else can have written it.
fn read_private(entry: &Path) -> Option<Vec<u8>> {
    let folder = fs::symlink_metadata(entry.parent()?).ok()?;
    let meta = fs::symlink_metadata(entry).ok().filter(fs::Metadata::is_file)?;
    let mut file = File::open(entry).ok()?;
    let only_ours = |m: &fs::Metadata| m.mode() & 0o022 == 0 && m.uid() == meta.uid();
    if !folder.is_dir() || !only_ours(&folder) || !only_ours(&meta) || meta.uid() != our_uid()? {
        return None;
    }
    if meta.len() > MAX_ENTRY_BYTES {
        return None;
    }
    let mut hash = [0; HASH_BYTES];
    file.read_exact(&mut hash).ok()?;
    let mut code = Vec::new();
    file.read_to_end(&mut code).ok()?;
    (Sha256::digest(&code).as_slice() == hash).then_some(code)
}

/// The user this process makes files as.
fn our_uid() -> Option<u32> {
    Some(fs::metadata("/proc/self").ok()?.uid())
}

fn keep(code: &[u8], entry: &Path) -> io::Result<()> {
    let folder = entry.parent().unwrap_or(entry);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // By chance: what a process of the same number left behind is not in the way.
    let chance = std::hash::BuildHasher::build_hasher(&std::hash::RandomState::new()).finish();
    let temporary = entry.with_extension(format!("{chance:016x}.new"));
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(&Sha256::digest(code)).and_then(|()| file.write_all(code));
    // Whole under its name, or not at all.
    written.and_then(|()| fs::rename(&temporary, entry)).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    forget_the_oldest(folder)
}

fn forget_the_oldest(folder: &Path) -> io::Result<()> {
    let dated = |file: fs::DirEntry| Some((file.metadata().ok()?.modified().ok()?, file.path()));
    let ours = |file: &fs::DirEntry| is_entry(&file.file_name().to_string_lossy());
    let mut entries: Vec<_> = fs::read_dir(folder)?.flatten().filter(ours).filter_map(dated).collect();
    entries.sort_unstable();
    let surplus = entries.len().saturating_sub(MAX_ENTRIES);
    entries.iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
}

/// Returns true for a file of the cache. The operator chose the folder, and it may hold unrelated files.
fn is_entry(name: &str) -> bool {
    let hex = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let Some((stem, extension)) = name.split_once('.') else { return false };
    let named = stem.split_once('-').is_some_and(|(wasm, settings)| hex(wasm, 64) && hex(settings, 16));
    named && (extension == "cwasm" || extension.ends_with(".new"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(cache: &Cache, engine: &Engine, wasm: &[u8]) {
        let code = |wasm: &[u8]| Ok(engine.precompile_component(wasm).expect("it compiles"));
        cache.compile(engine, wasm, code).expect("it is loaded");
    }

    fn entries(folder: &std::path::Path) -> Vec<PathBuf> {
        fs::read_dir(folder).map(|dir| dir.flatten().map(|e| e.path()).collect()).unwrap_or_default()
    }

    #[test]
    fn what_was_compiled_is_kept_and_what_was_damaged_is_compiled_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache::at(folder.path().join("pointsman"));
        let engine = Engine::default();
        let wasm = wat::parse_str("(component)").expect("a component");
        compile(&cache, &engine, &wasm);
        let kept = entries(&folder.path().join("pointsman"));
        assert_eq!(kept.len(), 1, "one entry, no temporary file: {kept:?}");
        assert!(read_private(&kept[0]).is_some());

        let whole = fs::read(&kept[0]).expect("readable");
        let mut damaged = whole.clone();
        *damaged.last_mut().expect("not empty") ^= 1;
        fs::write(&kept[0], &damaged).expect("writable");
        assert!(read_private(&kept[0]).is_none(), "a damaged entry is not trusted");
        compile(&cache, &engine, &wasm);
        assert_eq!(fs::read(&kept[0]).expect("readable"), whole);
    }

    #[test]
    fn the_oldest_entries_go_when_there_are_too_many() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("pointsman.db"), "").expect("writable");
        fs::create_dir(folder.path().join("photos")).expect("writable");
        for i in 0..MAX_ENTRIES + 3 {
            fs::write(folder.path().join(format!("{i:064x}-{:016x}.cwasm", 7)), "").expect("writable");
        }
        forget_the_oldest(folder.path()).expect("it is ours");
        assert_eq!(entries(folder.path()).len(), MAX_ENTRIES + 2);
        assert!(folder.path().join("pointsman.db").exists(), "what is not ours stays, however old");
    }

    #[test]
    fn what_others_could_have_written_is_not_loaded() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache::at(folder.path().join("pointsman"));
        let engine = Engine::default();
        let wasm = wat::parse_str("(component)").expect("a component");
        compile(&cache, &engine, &wasm);
        let entry = &entries(&folder.path().join("pointsman"))[0];
        fs::set_permissions(entry, fs::Permissions::from_mode(0o666)).expect("it is ours");
        assert!(read_private(entry).is_none());
    }
}
