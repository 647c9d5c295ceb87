//! A gate before the compiler: a component that is slow to compile, as slow as a test wants.

use std::path::{Path, PathBuf};

use crate::eventually;

/// The file that holds the next compilation, in the folder of the proxy.
const NEXT: &str = "hold-the-next-compilation";

/// Name of the file of a compilation that is held, before its process id.
const HELD: &str = "held-compilation-";

/// Holds one compilation of a proxy.
pub struct CompileGate {
    dir: PathBuf,
}

/// A compilation that is held; dropped, it goes on.
pub struct HeldCompilation {
    file: PathBuf,
    /// Its process id.
    pub pid: u32,
}

impl CompileGate {
    /// Holds the next compilation that begins in the proxy of this folder.
    pub fn hold_next(dir: &Path) -> Self {
        std::fs::write(dir.join(NEXT), "").expect("a file can be written");
        Self { dir: dir.to_owned() }
    }

    /// Waits until a compilation is held.
    pub async fn held(self) -> HeldCompilation {
        self.held_beside(&[]).await
    }

    /// Waits until another than these is held.
    pub async fn held_beside(self, others: &[&HeldCompilation]) -> HeldCompilation {
        eventually("a compilation is held", || {
            let entries = std::fs::read_dir(&self.dir).expect("the folder is there");
            let held = entries.flatten().map(|entry| entry.path());
            held.filter_map(|file| {
                let pid = file.file_name()?.to_str()?.strip_prefix(HELD)?.parse().ok()?;
                let is_other = others.iter().all(|other| other.pid != pid);
                is_other.then(|| HeldCompilation { file, pid })
            })
            .next()
        })
        .await
    }

    /// Passes in the compiler's process, where it is not to be held.
    pub fn pass() {
        let own = format!("{HELD}{}", std::process::id());
        // Only one of several that begin at once is held.
        if std::fs::rename(NEXT, &own).is_err() {
            return;
        }
        // It does not outlive the proxy, as the compiler behind it would not.
        let parent = std::os::unix::process::parent_id();
        while Path::new(&own).exists() && std::os::unix::process::parent_id() == parent {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl HeldCompilation {
    /// Waits until its process has ended.
    pub async fn ended(&self) {
        let stat = format!("/proc/{}/stat", self.pid);
        eventually("the end of the compilation", || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            // A zombie has ended.
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        })
        .await;
    }

    /// True while its process is there.
    pub fn is_at_work(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }
}

impl Drop for HeldCompilation {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}
