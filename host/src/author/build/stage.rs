//! A copy of a project's sources to build in, so that a tool's litter stays out of the project, and the SDK can lie
//! beside sources that come without it.

use std::fs;
use std::io;
use std::path::Path;

/// A policy's sources are small; more than this is a folder that was not meant.
const MAX_FILES: usize = 5_000;
const MAX_BYTES: u64 = 64 << 20;

/// Folders that hold no sources.
const SKIPPED: [&str; 6] = ["node_modules", "target", "__pycache__", "venv", "scenarios", "wit"];

/// Copies the sources: no hidden files, no links, no components, none of the usual folders of tools.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    copy_folder(from, to, &mut Room { files: MAX_FILES, bytes: MAX_BYTES })
}

/// Writes these files, except those that are there.
pub(super) fn add(files: &[(&str, &str)], to: &Path) -> io::Result<()> {
    for (name, text) in files {
        let path = to.join(name);
        if !path.exists() {
            fs::create_dir_all(path.parent().unwrap_or(to))?;
            fs::write(path, text)?;
        }
    }
    Ok(())
}

/// Files and bytes that may still be copied.
struct Room {
    files: usize,
    bytes: u64,
}

impl Room {
    fn take(&mut self, bytes: u64) -> io::Result<()> {
        match (self.files.checked_sub(1), self.bytes.checked_sub(bytes)) {
            (Some(files), Some(bytes)) => {
                *self = Self { files, bytes };
                Ok(())
            }
            (None, _) | (_, None) => Err(io::Error::other(format!(
                "the project has more than {MAX_FILES} files or {} MiB; is it the right folder?",
                MAX_BYTES >> 20
            ))),
        }
    }
}

fn copy_folder(from: &Path, to: &Path, room: &mut Room) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        let text = name.to_string_lossy();
        if text.starts_with('.') || text.ends_with(".wasm") {
            continue;
        }
        if kind.is_dir() && !SKIPPED.contains(&&*text) {
            copy_folder(&entry.path(), &to.join(&name), room)?;
        } else if kind.is_file() {
            room.take(entry.metadata()?.len())?;
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_copied_and_litter_is_not() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for file in ["policy.js", "lib/rules.js", ".env", "node_modules/x/index.js", "old.wasm", "pointsman.js"] {
            let path = from.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        copy(from.path(), to.path()).unwrap();
        add(&[("pointsman.js", "the SDK's"), ("more/sdk.js", "the SDK's")], to.path()).unwrap();
        let text = |file: &str| fs::read_to_string(to.path().join(file)).ok();
        assert_eq!(text("policy.js").as_deref(), Some("policy.js"));
        assert_eq!(text("lib/rules.js").as_deref(), Some("lib/rules.js"));
        assert_eq!(text("pointsman.js").as_deref(), Some("pointsman.js"), "the author's own stays");
        assert_eq!(text("more/sdk.js").as_deref(), Some("the SDK's"));
        for absent in [".env", "node_modules", "old.wasm"] {
            assert!(!to.path().join(absent).exists(), "{absent}");
        }
    }

    #[test]
    fn a_folder_that_is_too_large_is_refused() {
        let mut room = Room { files: 1, bytes: 10 };
        assert!(room.take(11).is_err());
        assert!(room.take(10).is_ok());
        assert!(room.take(0).unwrap_err().to_string().contains("right folder"));
    }
}
