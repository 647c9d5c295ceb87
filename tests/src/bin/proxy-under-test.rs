//! The proxy as the tests start it: the same `main` as the `pointsman` binary, with the made-up dialect where a test asks for it,
//! and a gate before the compiler.

use pointsman_core::dialect::Dialect;
use pointsman_tests::{CompileGate, made_up_dialect};

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some("compile-component") {
        CompileGate::pass();
    }
    if std::env::var_os(made_up_dialect::VARIABLE).is_some() {
        Dialect::add(made_up_dialect::DIALECTS);
    }
    pointsman::cli::main()
}
