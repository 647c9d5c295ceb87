//! Building without tools, and what is common to all languages. `policies/test` builds with the tools.

use std::fs;

use super::*;

fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    stage::add(files, dir.path()).unwrap();
    dir
}

#[test]
fn a_language_is_known_by_its_file() {
    for (language, file) in Language::ALL {
        let dir = project(&[(file, ""), ("README.md", "")]);
        assert_eq!(Language::of(dir.path()).unwrap(), language);
    }
    let none = project(&[("policy.rb", "")]);
    assert!(Language::of(none.path()).unwrap_err().to_string().contains("pointsman policy new"));
    let both = project(&[("policy.js", ""), ("policy.py", "")]);
    let error = Language::of(both.path()).unwrap_err().to_string();
    assert!(error.contains("policy.js") && error.contains("policy.py"), "{error}");
}

#[test]
fn what_the_proxy_would_refuse_does_not_replace_what_is_there() {
    let error = judge(b"\0asm\x01\0\0\0").unwrap_err();
    assert!(matches!(error, BuildError::Refused(LoadError::CoreModule)), "{error}");
    let (revision, wants_settings) = judge(Engine::embedded_bytes()).unwrap();
    assert_eq!((revision.len(), wants_settings), (12, None));
}

#[test]
fn a_component_is_put_in_place_whole_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("made/policy.wasm");
    publish(b"first", &out).unwrap();
    publish(b"second", &out).unwrap();
    assert_eq!(fs::read(&out).unwrap(), b"second");
    assert_eq!(fs::read_dir(out.parent().unwrap()).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o644);
    }
}

#[test]
fn a_projects_own_contract_goes_before_ours() {
    let work = tempfile::tempdir().unwrap();
    let own = project(&[("policy.js", ""), ("wit/policy.wit", "package own:contract;")]);
    assert_eq!(Project::read(own.path(), work.path()).unwrap().contract, "package own:contract;");
    let none = project(&[("policy.js", "")]);
    let work = tempfile::tempdir().unwrap();
    let read = Project::read(none.path(), work.path()).unwrap();
    assert_eq!(read.contract, sdk::CONTRACT);
    assert_eq!(fs::read_to_string(read.contract_file).unwrap(), sdk::CONTRACT);
}

#[test]
fn a_tool_that_is_not_there_comes_with_the_command_that_installs_it() {
    let error = BuildError::Missing { what: "componentize-qjs".into(), install: "npm install componentize-qjs" };
    assert_eq!(error.to_string(), "componentize-qjs is not there; install it:\n  npm install componentize-qjs");
}
