//! The rule that what is particular to a dialect stands in its folder.

use std::fs;
use std::path::{Path, PathBuf};

/// Rust files of this folder and those below.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !matches!(&*name, "target" | "tests" | "benches") {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

#[test]
fn no_code_outside_the_dialects_asks_which_one_it_has() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(core.parent().unwrap(), &mut files);
    assert!(files.len() > 100, "only {} files were found", files.len());
    for path in files.iter().filter(|path| !path.starts_with(core.join("src/dialect"))) {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for constant in ["Dialect::OPENAI", "Dialect::ANTHROPIC", "Dialect::PLAIN"] {
            let advice = "ask the dialect's format instead (`WireFormat`), or give it another method";
            assert!(!code.contains(constant), "{} has {constant}: {advice}", path.display());
        }
    }
}
