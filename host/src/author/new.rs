//! A new policy as a project that builds anywhere: everything it needs of Pointsman comes out of this binary.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::build::Language;
use super::sdk;

/// A new policy project: folder, name and language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Folder that the project is written to.
    pub dir: PathBuf,
    /// Paths of the files written, relative to the folder.
    pub files: Vec<String>,
}

/// The reason why no project was made.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// Not what a policy may be called.
    #[error("a policy cannot be called `{name}`: {why}")]
    Name {
        /// Name that was given.
        name: String,
        /// Fault of the name, as the end of a sentence.
        why: &'static str,
    },
    /// A file with this name exists.
    #[error("{} {what}; nothing was written: give another name, or --dir with a folder that is not there", dir.display())]
    Taken {
        /// Folder of the project.
        dir: PathBuf,
        /// Name of the existing file.
        what: &'static str,
    },
    /// A file could not be written.
    #[error("{} cannot be written: {error}", path.display())]
    Write {
        /// Path of the file that cannot be written.
        path: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
}

/// Writes a working project for a policy of this name into a folder that is not there yet, or is empty.
pub fn create(name: &str, language: Language, dir: &Path) -> Result<Project, NewError> {
    check_name(name).map_err(|why| NewError::Name { name: name.to_owned(), why })?;
    check_free(dir)?;
    let files = language.files();
    for (file, text) in &files {
        write(&dir.join(file), &language.fill(text, name))?;
    }
    Ok(Project { dir: dir.to_owned(), files: files.into_iter().map(|(file, _)| file).collect() })
}

/// Checks the rules for names of Rust crates, the strictest of the languages, so that a name works in all of them.
fn check_name(name: &str) -> Result<(), &'static str> {
    /// Longer file names are a burden.
    const MAX_NAME_BYTES: usize = 64;
    /// Names of the project's own dependencies, of Rust's libraries, and of folders that builds use.
    const TAKEN: [&str; 15] = [
        "pointsman",
        "pointsman-sdk",
        "serde",
        "serde_json",
        "wit-bindgen",
        "core",
        "std",
        "alloc",
        "test",
        "proc_macro",
        "build",
        "deps",
        "examples",
        "incremental",
        "sdk",
    ];
    const KEYWORDS: &str = "as break const continue crate dyn else enum extern false fn for if impl in let loop match mod \
        move mut pub ref return self static struct super trait true type unsafe use where while async await abstract \
        become box do final gen macro override priv try typeof unsized virtual yield";

    if name.is_empty() {
        return Err("it needs a letter");
    }
    if name.len() > MAX_NAME_BYTES {
        return Err("it is longer than 64 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_') {
        return Err("only a-z, 0-9, - and _ may be in it");
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err("it must begin with a letter");
    }
    if KEYWORDS.split_whitespace().any(|word| word == name) {
        return Err("that is a keyword of Rust");
    }
    if TAKEN.contains(&name) {
        return Err("that name is taken by what a policy is built with");
    }
    Ok(())
}

/// Checks that no existing file would be overwritten.
fn check_free(dir: &Path) -> Result<(), NewError> {
    let taken = |what| Err(NewError::Taken { dir: dir.to_owned(), what });
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => taken("is there, and is not empty"),
        Ok(false) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => taken("is a file"),
        Err(error) => Err(NewError::Write { path: dir.to_owned(), error }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), NewError> {
    let to = || {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
    };
    to().map_err(|error| NewError::Write { path: path.to_owned(), error })
}

/// Files of a project in any language.
const COMMON: sdk::Files = &[
    ("README.md", include_str!("templates/README.md")),
    ("scenarios/calm.toml", include_str!("templates/scenarios/calm.toml")),
    ("scenarios/wait.toml", include_str!("templates/scenarios/wait.toml")),
    ("scenarios/outage.toml", include_str!("templates/scenarios/outage.toml")),
    ("wit/policy.wit", sdk::CONTRACT),
];

const RUST: sdk::Files = &[
    (".gitignore", "/target\n/*.wasm\n"),
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml")),
    ("src/lib.rs", include_str!("templates/rust/src/lib.rs")),
    ("sdk/Cargo.toml", include_str!("templates/rust/sdk/Cargo.toml")),
];

macro_rules! rust_sdk {
    ($($module:literal),*) => {
        &[$((
            concat!("src/", $module, ".rs"),
            include_str!(concat!("../../../policy-sdk/src/", $module, ".rs")),
        )),*]
    };
}

/// Folder of the SDK in a Rust project; the contract is beside it.
const RUST_SDK_FOLDER: &str = "sdk";

const RUST_SDK: sdk::Files = rust_sdk!(
    "lib",
    "calendar",
    "choose",
    "columns",
    "counter",
    "decision",
    "dice",
    "glue",
    "host",
    "pick",
    "query",
    "roster",
    "settings",
    "table",
    "testing",
    "testing/given",
    "testing/memory",
    "words"
);

const JS: sdk::Files = &[
    (".gitignore", "/node_modules\n/*.wasm\n"),
    ("package.json", include_str!("templates/js/package.json")),
    ("policy.js", include_str!("templates/js/policy.js")),
];

const PYTHON: sdk::Files = &[
    (".gitignore", "/.venv\n__pycache__\n/*.wasm\n"),
    ("requirements.txt", include_str!("templates/python/requirements.txt")),
    ("policy.py", include_str!("templates/python/policy.py")),
];

const C: sdk::Files = &[
    (".gitignore", "/.venv\n/*.wasm\n"),
    ("requirements.txt", include_str!("templates/c/requirements.txt")),
    ("policy.c", include_str!("templates/c/policy.c")),
];

impl Language {
    /// Everything a new project has, as (path in the project, text).
    fn files(self) -> Vec<(String, &'static str)> {
        let (own, folder, sdk) = match self {
            Language::Rust => (RUST, RUST_SDK_FOLDER, RUST_SDK),
            Language::JavaScript => (JS, "", sdk::JS),
            Language::Python => (PYTHON, "", sdk::PYTHON),
            Language::C => (C, sdk::C_FOLDER, sdk::C),
        };
        let at = |path: &str| if folder.is_empty() { path.to_owned() } else { format!("{folder}/{path}") };
        let sdk = sdk.iter().map(|(path, text)| (at(path), *text));
        own.iter().chain(COMMON).map(|(path, text)| ((*path).to_owned(), *text)).chain(sdk).collect()
    }

    const fn about(self) -> About {
        match self {
            Language::Rust => ABOUT_RUST,
            Language::JavaScript => ABOUT_JS,
            Language::Python => ABOUT_PYTHON,
            Language::C => ABOUT_C,
        }
    }

    /// Puts the project's own words in.
    fn fill(self, text: &str, name: &str) -> String {
        let About { what, needs, test, files, names } = self.about();
        let words = [
            ("{{what}}", what),
            ("{{needs}}", needs),
            ("{{files}}", files),
            ("{{names}}", names),
            ("{{name}}", name),
            ("{{version}}", env!("CARGO_PKG_VERSION")),
        ];
        // A table has no empty rows.
        let text = text.replace("{{test}}\n", &if test.is_empty() { String::new() } else { format!("{test}\n") });
        words.into_iter().fold(text, |text, (mark, word)| text.replace(mark, word))
    }
}

/// Language-specific parts of the README.
struct About {
    /// File and place of the rules.
    what: &'static str,
    /// Tools that a build needs.
    needs: &'static str,
    /// Further rows of the table of tests; may be empty.
    test: &'static str,
    /// Rows of the table of files.
    files: &'static str,
    /// The way to get source lines in a fault's message.
    names: &'static str,
}

const ABOUT_RUST: About = About {
    what: "Its rules are in `src/lib.rs`.",
    needs: "Once: Rust with the target for components (`rustup target add wasm32-wasip2`). The first build takes a minute.",
    test: "| `cargo test` | the unit tests in `src/lib.rs`, natively |",
    files: "| `src/lib.rs` | the policy, and its unit tests |\n\
            | `sdk/` | Pointsman's SDK for Rust: the query's numbers behind names; `src/testing.rs` asks a policy in unit tests |",
    names: "A policy that panics costs one decision: the default policy makes it, and the log and the exchange's explanation \
            tell the panic's message and the functions it was in. The profile in `Cargo.toml` keeps the functions' names; \
            `strip = true` would drop them.",
};

const ABOUT_JS: About = About {
    what: "Its rules are in `policy.js`.",
    needs: "Once: Node.js, and `npm install` in this folder, which fetches the compiler (`componentize-qjs`).",
    test: "",
    files: "| `policy.js` | the policy; it may import other files of this folder |\n\
            | `pointsman.js` | Pointsman's SDK for JavaScript: the query's numbers behind names |\n\
            | `package.json` | names the compiler |",
    names: "A policy that throws costs one decision: the default policy makes it, and the log and the exchange's explanation \
            tell the error's message and where it was thrown.",
};

const ABOUT_PYTHON: About = About {
    what: "Its rules are in `policy.py`.",
    needs: "Once: Python 3, and the compiler: `python3 -m venv .venv && .venv/bin/pip install -r requirements.txt`.",
    test: "",
    files: "| `policy.py` | the policy; it may import other modules of this folder, and the standard library |\n\
            | `pointsman.py` | Pointsman's SDK for Python: the query's numbers behind names |\n\
            | `requirements.txt` | names the compiler |",
    names: "A policy that raises costs one decision: the default policy makes it, and the log and the exchange's explanation \
            tell the traceback. A component in Python carries its interpreter: it has some 19 MB, takes seconds to compile \
            (once; the proxy keeps the result) and decides in tens of microseconds.",
};

const ABOUT_C: About = About {
    what: "Its rules are in `policy.c`.",
    needs: "Once: a C compiler for WebAssembly, either clang with wasm-ld, or zig: \
            `python3 -m venv .venv && .venv/bin/pip install -r requirements.txt`.",
    test: "",
    files: "| `policy.c` | the policy; other `.c` files of this folder are built with it |\n\
            | `pointsman/` | Pointsman's SDK for C: the query's numbers behind names, and the little of a C library it needs |\n\
            | `requirements.txt` | names the compiler |",
    names: "A policy that traps, or calls `pm_fail`, costs one decision: the default policy makes it, and the log and the \
            exchange's explanation tell the words of `pm_fail` and the functions it was in.",
};

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
    }

    #[test]
    fn a_project_is_written_whole_and_without_marks() {
        for language in Language::value_variants() {
            let folder = tempfile::tempdir().unwrap();
            let project = create("my-policy", *language, &folder.path().join("p")).unwrap();
            for file in &project.files {
                let text = fs::read_to_string(project.dir.join(file)).unwrap();
                assert!(!text.contains("{{name") && !text.contains("{{what") && !text.contains("{{files"), "{file}");
            }
            let readme = fs::read_to_string(project.dir.join("README.md")).unwrap();
            assert!(!readme.contains("{{"), "{readme}");
            for command in ["pointsman policy build", "pointsman policy test policy.wasm", "curl -T policy.wasm"] {
                assert!(readme.contains(command), "{command}");
            }
            for file in project.files.iter().filter(|f| f.ends_with(".toml")) {
                let text = fs::read_to_string(project.dir.join(file)).unwrap();
                text.parse::<toml::Table>().unwrap_or_else(|e| panic!("{file}: {e}"));
            }
        }
    }

    #[test]
    fn names_are_those_a_crate_may_have() {
        for good in ["x", "cheap-first", "a_2", "policy"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "1st", "-a", "Cheap", "a b", "a/b", "..", "ä", "fn", "test", "pointsman-sdk", &"a".repeat(65)]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        let folder = tempfile::tempdir().unwrap();
        let error = create("1st", Language::Rust, &folder.path().join("p")).unwrap_err().to_string();
        assert_eq!(error, "a policy cannot be called `1st`: it must begin with a letter");
        assert!(!folder.path().join("p").exists());
    }

    #[test]
    fn what_is_there_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let create = |dir: &Path| create("x", Language::Rust, dir);
        fs::write(folder.path().join("mine"), "mine").unwrap();
        for dir in [folder.path().to_owned(), folder.path().join("mine")] {
            let error = create(&dir).unwrap_err();
            assert!(matches!(error, NewError::Taken { .. }), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let empty = folder.path().join("empty");
        fs::create_dir(&empty).unwrap();
        create(&empty).unwrap();
    }

    #[test]
    fn the_whole_rust_sdk_is_carried_along() {
        let sdk = repository("policy-sdk");
        let mut modules: Vec<String> = [sdk.join("src"), sdk.join("src/testing")]
            .iter()
            .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
            .filter(|path| path.is_file())
            .map(|path| path.strip_prefix(&sdk).unwrap().to_str().unwrap().to_owned())
            .collect();
        let mut carried: Vec<&str> = RUST_SDK.iter().map(|(path, _)| *path).collect();
        modules.sort();
        carried.sort_unstable();
        assert_eq!(modules, carried, "add the module to `RUST_SDK`");
    }

    #[test]
    fn the_carried_sdk_depends_on_what_the_sdk_depends_on() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let read = |path: &str| table(&fs::read_to_string(repository(path)).unwrap());
        let (workspace, ours) = (read("Cargo.toml"), read("policy-sdk/Cargo.toml"));
        let theirs = table(&Language::Rust.fill(include_str!("templates/rust/sdk/Cargo.toml"), "x"));
        let wasm = |t: &toml::Table| t["target"]["cfg(target_arch = \"wasm32\")"]["dependencies"].clone();
        for (ours, theirs) in
            [(ours["dependencies"].clone(), theirs["dependencies"].clone()), (wasm(&ours), wasm(&theirs))]
        {
            for name in ours.as_table().unwrap().keys() {
                assert_eq!(theirs.get(name), Some(&workspace["workspace"]["dependencies"][name]), "{name}");
            }
            assert_eq!(theirs.as_table().unwrap().len(), ours.as_table().unwrap().len());
        }
    }
}
