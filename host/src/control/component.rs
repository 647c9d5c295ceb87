//! Components as they are offered: read once, named by their hash.

use std::path::{Path, PathBuf};

use anyhow::Context;
use axum::body::Bytes;
use pointsman_config::Config;
use pointsman_core::lifecycle::{Hash, shown};
use pointsman_engine::{Engine, plain_file};

/// A policy file's bytes; nothing is known of them yet but their hash.
#[derive(Clone)]
pub struct Component {
    /// As they were read, once.
    pub bytes: Bytes,
    /// Their name.
    pub hash: Hash,
}

impl Component {
    /// Hashes; a large component takes a tenth of a second.
    pub fn new(bytes: Bytes) -> Self {
        Self { hash: Hash::of(&bytes), bytes }
    }

    /// Reads the component that the configuration names: a file of at most `max_bytes`, or the embedded one.
    ///
    /// # Errors
    /// In a sentence, with the file's name.
    pub async fn of_source(file: Option<&Path>, max_bytes: usize) -> anyhow::Result<Self> {
        let file = file.map(Path::to_owned);
        tokio::task::spawn_blocking(move || {
            let bytes = match &file {
                None => Bytes::from_static(Engine::embedded_bytes()),
                Some(file) => plain_file::read(file, max_bytes as u64)
                    .with_context(|| format!("cannot read {}", shown(Some(file))))?
                    .into(),
            };
            Ok(Self::new(bytes))
        })
        .await?
    }
}

/// The policy file that a configuration names, the same whatever folder Pointsman was started in; none: the component
/// inside this binary.
pub(super) fn source_of(config: &Config) -> Option<PathBuf> {
    let file = config.policy.file.as_deref()?;
    Some(std::path::absolute(file).unwrap_or_else(|_| file.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[tokio::test]
    async fn what_is_no_policy_file_is_refused_unread() {
        let dir = tempfile::tempdir().unwrap();
        let large = dir.path().join("large.wasm");
        File::create(&large).unwrap().set_len(1 << 40).unwrap();
        for (file, words) in [
            (large, "at most 64"),
            (dir.path().to_owned(), "is a directory"),
            (dir.path().join("missing.wasm"), "missing.wasm: No such file"),
        ] {
            let error = Component::of_source(Some(&file), 64).await.err().unwrap();
            assert!(format!("{error:#}").contains(words), "{error:#}");
        }
    }
}
