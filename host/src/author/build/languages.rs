//! The steps of each language, from a project to a component's bytes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::tool::{Call, find, joined};
use super::{BuildError, Project, at, component, lines, stage};
use crate::author::sdk;

/// Compilation target of policies in Rust.
const RUST_TARGET: &str = "wasm32-wasip2";

/// `cargo build --release`; where the component is, cargo says itself.
pub(super) fn rust(project: &Project) -> Result<Vec<u8>, BuildError> {
    let cargo =
        require(project, "CARGO", &[], "cargo", "cargo", "curl --proto '=https' -sSf https://sh.rustup.rs | sh")?;
    require_rust_target(project)?;
    let call = Call::of(&cargo, &project.dir).args([
        "build",
        "--quiet",
        "--release",
        "--target",
        RUST_TARGET,
        "--message-format",
        "json-render-diagnostics",
    ]);
    let command = call.line();
    let messages = call.run()?;
    let artifacts = components(&messages);
    match &artifacts[..] {
        [file] => fs::read(file).map_err(at(file)),
        [] => Err(BuildError::Tool {
            command,
            output: "it built no component: the crate needs `[lib] crate-type = [\"cdylib\"]`".to_owned(),
        }),
        [_, _, ..] => Err(BuildError::Tool {
            command,
            output: "it built more than one component; give the folder of one crate".to_owned(),
        }),
    }
}

/// The components among cargo's messages: one JSON object a line.
fn components(messages: &[u8]) -> Vec<PathBuf> {
    let text = String::from_utf8_lossy(messages);
    let artifact = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let files = message.get("filenames")?.as_array()?;
        files
            .iter()
            .filter_map(Value::as_str)
            .map(PathBuf::from)
            .find(|file| file.extension().is_some_and(|e| e == "wasm"))
    };
    text.lines().filter_map(artifact).collect()
}

/// Without the target, cargo's error is about a crate `core` that nobody asked for.
fn require_rust_target(project: &Project) -> Result<(), BuildError> {
    let Some(rustc) = find(&project.dir, "RUSTC", &[], "rustc") else {
        return Ok(());
    };
    let call = Call::of(&rustc, &project.dir).args(["--print", "target-libdir", "--target", RUST_TARGET]);
    let folder = call.run()?;
    if Path::new(String::from_utf8_lossy(&folder).trim()).is_dir() {
        return Ok(());
    }
    Err(BuildError::Missing {
        what: format!("Rust's target {RUST_TARGET}"),
        install: "rustup target add wasm32-wasip2",
    })
}

/// `componentize-qjs --sync`: the runtime without async calls, which the contract has none of.
pub(super) fn javascript(project: &Project) -> Result<Vec<u8>, BuildError> {
    let componentize = require(
        project,
        "POINTSMAN_COMPONENTIZE_QJS",
        &["node_modules/.bin"],
        "componentize-qjs",
        "componentize-qjs, which makes components of JavaScript,",
        "npm install --global componentize-qjs",
    )?;
    // With an SDK of its own it is built where it is, and finds what npm installed.
    let root = if project.dir.join("pointsman.js").is_file() { project.dir.clone() } else { staged(project, sdk::JS)? };
    let out = project.work.join("policy.wasm");
    let call = Call::of(&componentize, &root).args(["--sync", "--world", "policy", "--js", "policy.js"]).args([
        joined("--module-root=", &root),
        joined("--wit=", &project.contract_file),
        joined("--output=", &out),
    ]);
    run_for(call, &out)
}

/// Builds a project in Python with `componentize-py componentize policy`.
pub(super) fn python(project: &Project) -> Result<Vec<u8>, BuildError> {
    let componentize = require(
        project,
        "POINTSMAN_COMPONENTIZE_PY",
        &[".venv/bin", "venv/bin"],
        "componentize-py",
        "componentize-py, which makes components of Python,",
        "python3 -m venv .venv && .venv/bin/pip install componentize-py",
    )?;
    let root = staged(project, sdk::PYTHON)?;
    let out = project.work.join("policy.wasm");
    let call = Call::of(&componentize, &root).args(["--quiet", "--world", "policy"]).args([
        joined("--wit-path=", &project.contract_file),
        "componentize".into(),
        "policy".into(),
        joined("--output=", &out),
    ]);
    run_for(call, &out).map_err(|error| match error {
        BuildError::Source { tool, output } => BuildError::Source { tool, output: of_python(&output) },
        other => other,
    })
}

/// Extracts Python's own error from the output, without the stack frames of the tool that runs it.
fn of_python(output: &str) -> String {
    let end = ["\nStack backtrace:", "\nCaused by:"].iter().filter_map(|mark| output.find(mark)).min();
    let said = &output[..end.unwrap_or(output.len())];
    // The tool's own traceback ends with an error that has the project's as its words.
    let own = said
        .split_once("AssertionError: ")
        .filter(|(before, _)| before.contains("componentize-py"))
        .map(|(_, own)| own);
    // The project is mounted there.
    own.unwrap_or(said).trim_end().replace("\"/0/", "\"")
}

/// One call of the compiler, then [`component::of_module`].
pub(super) fn c(project: &Project) -> Result<Vec<u8>, BuildError> {
    let compiler = Compiler::find(project)?;
    let own = project.dir.join(sdk::C_FOLDER);
    let sdk = if own.is_dir() { own } else { project.work.join(sdk::C_FOLDER) };
    stage::add(sdk::C, &sdk).map_err(at(&sdk))?;
    let out = project.work.join("policy.wasm");
    // No C library and no start function: what a policy needs of either is in the SDK's libc.c.
    let call = Call::of(&compiler.program, &project.dir)
        .args(compiler.first)
        .args(["-O2", "-std=c11", "-Wall", "-ffreestanding", "-fno-sanitize=all", "-nostdlib"])
        .args(["-Wl,--no-entry", "-g"])
        .args([joined("-I", &sdk), "-isystem".into(), sdk.join("include").into()])
        .args(["-o".into(), out.clone()])
        .args(sources(&project.dir)?)
        .args(sources(&sdk)?);
    let module = run_for(call.known_as("the C compiler"), &out)?;
    let lines = lines::table(&module, &project.dir);
    let component = component::of_module(lines::stripped(&module), &project.contract);
    Ok(lines.put_into(component.map_err(|error| BuildError::Component(format!("{error:#}")))?))
}

/// A C compiler that can do WebAssembly.
struct Compiler {
    program: PathBuf,
    first: &'static [&'static str],
}

impl Compiler {
    const CLANG: &'static [&'static str] = &["--target=wasm32-unknown-unknown"];
    const ZIG: &'static [&'static str] = &["cc", "--target=wasm32-freestanding"];
    /// Zig as a package of Python, which needs nothing but pip.
    const ZIG_OF_PYTHON: &'static [&'static str] = &["-m", "ziglang", "cc", "--target=wasm32-freestanding"];

    fn find(project: &Project) -> Result<Self, BuildError> {
        let tool = |variable: &str, folders: &[&str], name: &str| find(&project.dir, variable, folders, name);
        if let Some(program) = std::env::var_os("POINTSMAN_CC").filter(|value| !value.is_empty()) {
            return Ok(Self { program: program.into(), first: Self::CLANG });
        }
        if let Some(program) = tool("ZIG", &[], "zig") {
            return Ok(Self { program, first: Self::ZIG });
        }
        if let Some(program) = tool("PYTHON", &[".venv/bin", "venv/bin"], "python3") {
            let import = Call::of(&program, &project.dir).args(["-c", "import ziglang"]);
            if import.run().is_ok() {
                return Ok(Self { program, first: Self::ZIG_OF_PYTHON });
            }
        }
        // clang finds its linker for WebAssembly on the PATH.
        if let (Some(program), Some(_)) = (tool("CLANG", &[], "clang"), tool("WASM_LD", &[], "wasm-ld")) {
            return Ok(Self { program, first: Self::CLANG });
        }
        Err(BuildError::Missing {
            what: "a C compiler for WebAssembly (zig, or clang with wasm-ld)".to_owned(),
            install: "python3 -m venv .venv && .venv/bin/pip install ziglang",
        })
    }
}

/// The C files of a folder, in an order that is the same everywhere.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let entries = fs::read_dir(folder).map_err(at(folder))?;
    let is_source = |path: &PathBuf| path.extension().is_some_and(|e| e == "c");
    let mut files: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_source).collect();
    files.sort();
    Ok(files)
}

/// A tool, or the words that say how to get it.
fn require(
    project: &Project,
    variable: &str,
    folders: &[&str],
    name: &str,
    what: &str,
    install: &'static str,
) -> Result<PathBuf, BuildError> {
    find(&project.dir, variable, folders, name).ok_or_else(|| BuildError::Missing { what: what.to_owned(), install })
}

/// A copy of the project with the SDK beside its sources.
fn staged(project: &Project, sdk: sdk::Files) -> Result<PathBuf, BuildError> {
    let root = project.work.join("project");
    stage::copy(&project.dir, &root).and_then(|()| stage::add(sdk, &root)).map_err(at(&project.dir))?;
    Ok(root)
}

/// Runs a tool that writes this file; its bytes.
fn run_for(call: Call, out: &Path) -> Result<Vec<u8>, BuildError> {
    call.run()?;
    fs::read(out).map_err(at(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_componentize_pys_words_pythons_are_left() {
        let syntax = "Traceback (most recent call last):\n  File \"/venv/bin/componentize-py\", line 8, in <module>\n    sys.exit(script())\n\
             AssertionError:   File \"/0/policy.py\", line 24\n    x = = 1\n        ^\nSyntaxError: invalid syntax\n\n\n\
             Caused by:\n    SyntaxError: invalid syntax (policy.py, line 24)\n\nStack backtrace:\n   0: <anyhow::Error>::msg\n";
        assert_eq!(
            of_python(syntax),
            "  File \"policy.py\", line 24\n    x = = 1\n        ^\nSyntaxError: invalid syntax"
        );
        assert_eq!(of_python("error: no such option\n\nStack backtrace:\n 0: x"), "error: no such option");
    }

    #[test]
    fn of_cargos_messages_the_components_are_taken() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","filenames":["/t/libserde.rlib","/t/libserde.rmeta"]}"#,
            "\nwarning: not JSON\n",
            r#"{"reason":"compiler-artifact","filenames":["/t/mine.wasm"]}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(components(messages.as_bytes()), [PathBuf::from("/t/mine.wasm")]);
    }
}
