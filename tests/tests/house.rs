//! The house's own rules that no compiler checks: modules of one parent do not import each other in a ring.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module by its names from the crate's root.
type Module = Vec<String>;

/// The modules of one package and what each imports.
#[derive(Default)]
struct Package {
    sources: BTreeMap<Module, String>,
    /// Names that a module has from another, by `use`.
    names: BTreeMap<Module, BTreeMap<String, Module>>,
    imports: BTreeMap<Module, BTreeSet<Module>>,
}

#[test]
fn no_modules_of_one_parent_import_each_other() {
    let host = ["config", "core", "engine", "lab", "store", ""].map(|package| Path::new("host").join(package));
    for package in host.iter().map(PathBuf::as_path).chain([Path::new("policy-sdk")]) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("src");
        let rings = Package::read(&folder).rings();
        assert!(rings.is_empty(), "{}: import rings:\n{}", folder.display(), rings.join("\n"));
    }
}

#[test]
fn a_ring_is_found_through_nested_imports_re_exports_and_paths() {
    let package = Package::of(&[
        ("", "pub mod a;\nmod b;\nmod c;\npub use b::Shown;"),
        ("a", "use crate::{\n    Shown,\n    other::{self},\n};"),
        ("b", "mod inner;"),
        ("b::inner", "fn f() { super::super::c::run(); }"),
        ("c", "use crate::a::Thing;\n#[cfg(test)]\nmod tests {\n    use crate::d;\n}"),
        ("d", "use crate::c;"),
    ]);
    assert_eq!(package.rings(), ["crate: a, b, c"]);
}

impl Package {
    fn read(folder: &Path) -> Self {
        let mut files = Vec::new();
        list(folder, &mut files);
        assert!(!files.is_empty(), "{} has sources", folder.display());
        let mut sources = BTreeMap::new();
        for file in files {
            let path = file.strip_prefix(folder).unwrap().with_extension("");
            let mut module: Module = path.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
            if module.last().is_some_and(|name| name == "mod") || matches!(&module[..], [name] if name == "lib") {
                module.pop();
            }
            sources.insert(module, fs::read_to_string(&file).unwrap());
        }
        Self::new(sources)
    }

    fn of(sources: &[(&str, &str)]) -> Self {
        let module = |path: &str| path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Self::new(sources.iter().map(|(path, source)| (module(path), (*source).to_owned())).collect())
    }

    fn new(sources: BTreeMap<Module, String>) -> Self {
        let mut package = Self { sources, ..Self::default() };
        let mut paths = Vec::new();
        for (module, source) in &package.sources {
            let (uses, code) = split(&without_tests(source));
            for path in uses.iter().flat_map(|tree| expand(tree)) {
                let Some(path) = package.absolute(module, &path) else { continue };
                if let Some(name) = path.last() {
                    package.names.entry(module.clone()).or_default().insert(name.clone(), path.clone());
                }
                paths.push((module.clone(), path));
            }
            for path in inline_paths(&code) {
                paths.extend(package.absolute(module, &path).map(|path| (module.clone(), path)));
            }
        }
        for (module, path) in paths {
            let target = package.resolve(path);
            if target != module {
                package.imports.entry(module).or_default().insert(target);
            }
        }
        package
    }

    /// The path from the crate's root; none: it leads into another crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let supers = path.iter().take_while(|name| *name == "super").count();
        let mut from = module[..module.len().checked_sub(supers)?].to_vec();
        let mut rest = &path[supers..];
        match path.first().map(String::as_str) {
            Some("crate") => (from, rest) = (Vec::new(), &path[1..]),
            Some("self") => rest = &path[1..],
            Some("super") => {}
            Some(name) => {
                from.push(name.to_owned());
                let is_ours = self.sources.contains_key(&from);
                from.pop();
                if !is_ours {
                    return None;
                }
            }
            None => return None,
        }
        from.extend(rest.iter().filter(|name| *name != "self").cloned());
        Some(from)
    }

    /// The module that a path's item is defined in, through the names that modules have from others.
    fn resolve(&self, mut path: Module) -> Module {
        const MAX_RE_EXPORTS: usize = 8;
        for _ in 0..MAX_RE_EXPORTS {
            let depth = (0..=path.len()).rev().find(|&n| self.sources.contains_key(&path[..n])).unwrap_or(0);
            let (module, rest) = path.split_at(depth);
            let named = rest.first().and_then(|name| self.names.get(module)?.get(name));
            match named {
                Some(target) => path = target.iter().chain(&rest[1..]).cloned().collect(),
                None => return module.to_vec(),
            }
        }
        path
    }

    /// Each ring as "parent: children".
    fn rings(&self) -> Vec<String> {
        let parents: BTreeSet<&[String]> =
            self.sources.keys().flat_map(|m| (0..m.len()).map(|depth| &m[..depth])).collect();
        parents.into_iter().flat_map(|parent| self.rings_under(parent)).collect()
    }

    fn rings_under(&self, parent: &[String]) -> Vec<String> {
        let child = |module: &'_ Module| module.strip_prefix(parent).and_then(|rest| rest.first().cloned());
        let mut reach: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, targets) in &self.imports {
            let Some(from) = child(from) else { continue };
            reach.entry(from.clone()).or_default().extend(targets.iter().filter_map(child).filter(|to| *to != from));
        }
        loop {
            let mut has_grown = false;
            for from in reach.keys().cloned().collect::<Vec<_>>() {
                let further: BTreeSet<String> =
                    reach[&from].iter().filter_map(|via| reach.get(via)).flatten().cloned().collect();
                let known = reach.get_mut(&from).unwrap();
                let before = known.len();
                known.extend(further);
                has_grown |= known.len() > before;
            }
            if !has_grown {
                break;
            }
        }
        let rings: BTreeSet<Vec<String>> = reach
            .iter()
            .filter(|(from, reached)| reached.contains(*from))
            .map(|(from, reached)| {
                reached.iter().filter(|to| reach.get(*to).is_some_and(|back| back.contains(from))).cloned().collect()
            })
            .collect();
        let name = if parent.is_empty() { "crate".to_owned() } else { parent.join("::") };
        rings.iter().map(|ring| format!("{name}: {}", ring.join(", "))).collect()
    }
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if name.starts_with("tests") || name == "templates" {
            continue;
        }
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The source without comments, and without its module of tests, which stands last.
fn without_tests(source: &str) -> String {
    let end = source
        .match_indices("#[cfg(test)]\nmod ")
        .find(|(at, _)| source[*at..].lines().nth(1).is_some_and(|line| line.ends_with('{')));
    let source = &source[..end.map_or(source.len(), |(at, _)| at)];
    source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The trees of the `use` declarations, and the rest of the code.
fn split(source: &str) -> (Vec<String>, String) {
    let (mut trees, mut code, mut tree) = (Vec::new(), String::new(), None::<String>);
    for line in source.lines() {
        let trimmed = line.trim();
        let begin = trimmed.strip_prefix("pub").map_or(trimmed, |rest| {
            rest.trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest)
        });
        match (&mut tree, begin.trim_start().strip_prefix("use ")) {
            (Some(tree), _) => tree.push_str(trimmed),
            (None, Some(begin)) => tree = Some(begin.to_owned()),
            (None, None) => {
                code.push_str(line);
                code.push('\n');
            }
        }
        if tree.as_ref().is_some_and(|tree| tree.ends_with(';')) {
            trees.extend(tree.take().map(|tree| tree.trim_end_matches(';').to_owned()));
        }
    }
    (trees, code)
}

/// Every path of a tree: `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let names = |path: &str| -> Vec<String> {
        let path = path.split(" as ").next().unwrap_or_default();
        path.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let Some((beginning, rest)) = tree.split_once('{') else {
        return vec![names(tree)];
    };
    let (mut paths, mut depth, mut from) = (Vec::new(), 0, 0);
    let inside = &rest[..rest.rfind('}').unwrap_or(rest.len())];
    for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let branch = &inside[from..at];
                from = (at + 1).min(inside.len());
                if !branch.trim().is_empty() {
                    paths.extend(expand(branch).into_iter().map(|path| [names(beginning), path].concat()));
                }
            }
            _ => {}
        }
    }
    paths
}

/// Paths in code that begin at the crate or at a parent.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.split(|c| !is_name(c))
        .filter(|path| path.starts_with("crate::") || path.starts_with("super::"))
        .map(|path| path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect())
        .collect()
}
