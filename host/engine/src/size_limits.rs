//! Size limits of a component, counted before it is compiled: its size in bytes does not bound the work of compiling.
//!
//! The compiler's time and memory grow with the number of functions, and faster than linearly with the size of one. Both are
//! bounded here, far above what language runtimes need: CPython has some 15,000 functions, the largest of 120 KiB.

use wasmparser::{Parser, Payload};

/// Functions of all modules together.
const MAX_FUNCTIONS: u32 = 100_000;

/// One function's code, in bytes.
const MAX_FUNCTION_BYTES: usize = 512 << 10;

/// All functions' code, in bytes.
const MAX_CODE_BYTES: usize = 48 << 20;

/// Core modules; each instance may have as many. Rust's have 3, Python's about 20.
pub(crate) const MAX_MODULES: u32 = 32;

/// Types, imports, exports, instances and the like, of all modules and components together.
const MAX_ITEMS: u32 = 500_000;

#[derive(Default)]
struct Sizes {
    modules: u32,
    functions: u32,
    code_bytes: usize,
    items: u32,
}

/// Checks that the component is small enough to be compiled. The error names the limit exceeded.
///
/// What is not well formed is left to the compiler, which has better words for it.
pub(crate) fn check(wasm: &[u8]) -> Result<(), String> {
    let mut sizes = Sizes::default();
    for payload in Parser::new(0).parse_all(wasm) {
        let Ok(payload) = payload else { break };
        sizes.count(&payload)?;
    }
    Ok(())
}

impl Sizes {
    fn count(&mut self, payload: &Payload<'_>) -> Result<(), String> {
        match payload {
            Payload::ModuleSection { .. } => self.modules += 1,
            Payload::CodeSectionStart { count, .. } => self.functions = self.functions.saturating_add(*count),
            Payload::CodeSectionEntry(body) => {
                let bytes = body.range().len();
                within("bytes of code in one function", bytes, MAX_FUNCTION_BYTES)?;
                self.code_bytes += bytes;
            }
            other => self.items = self.items.saturating_add(items(other)),
        }
        within("core modules", self.modules as usize, MAX_MODULES as usize)?;
        within("functions", self.functions as usize, MAX_FUNCTIONS as usize)?;
        within("bytes of code", self.code_bytes, MAX_CODE_BYTES)?;
        within("types, imports, exports and instances", self.items as usize, MAX_ITEMS as usize)
    }
}

/// The things a section lists.
fn items(section: &Payload<'_>) -> u32 {
    match section {
        Payload::TypeSection(s) => s.count(),
        Payload::ImportSection(s) => s.count(),
        Payload::FunctionSection(s) => s.count(),
        Payload::TableSection(s) => s.count(),
        Payload::MemorySection(s) => s.count(),
        Payload::GlobalSection(s) => s.count(),
        Payload::ExportSection(s) => s.count(),
        Payload::ElementSection(s) => s.count(),
        Payload::DataSection(s) => s.count(),
        Payload::InstanceSection(s) => s.count(),
        Payload::CoreTypeSection(s) => s.count(),
        Payload::ComponentInstanceSection(s) => s.count(),
        Payload::ComponentAliasSection(s) => s.count(),
        Payload::ComponentTypeSection(s) => s.count(),
        Payload::ComponentCanonicalSection(s) => s.count(),
        Payload::ComponentImportSection(s) => s.count(),
        Payload::ComponentExportSection(s) => s.count(),
        // The rest is not listed, or not there without the features that it belongs to.
        _ => 1,
    }
}

fn within(what: &str, found: usize, max: usize) -> Result<(), String> {
    if found > max { Err(format!("more than {max} {what}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_wat(wat: &str) -> Result<(), String> {
        check(&wat::parse_str(wat).expect("a component"))
    }

    #[test]
    fn what_is_big_is_named() {
        assert_eq!(check_wat("(component (core module (func)))"), Ok(()));
        let modules = format!("(component {})", "(core module)".repeat(MAX_MODULES as usize + 1));
        assert_eq!(check_wat(&modules), Err("more than 32 core modules".into()));
        let functions = format!("(component (core module {}))", "(func)".repeat(MAX_FUNCTIONS as usize + 1));
        assert_eq!(check_wat(&functions), Err("more than 100000 functions".into()));
        let long =
            format!("(component (core module (func {})))", "(drop (i64.const -1))".repeat(MAX_FUNCTION_BYTES / 3 + 1));
        assert_eq!(check_wat(&long), Err("more than 524288 bytes of code in one function".into()));
        let types = format!("(component {})", "(type u8)".repeat(MAX_ITEMS as usize + 1));
        assert!(check_wat(&types).unwrap_err().contains("types"));
    }

    #[test]
    fn what_is_no_component_is_left_to_the_compiler() {
        assert_eq!(check(b"\0asm\x0d\0\x01\0garbage"), Ok(()));
    }
}
