//! The proxy as the tests start it: the same `main` as the `pointsman` binary.

fn main() -> std::process::ExitCode {
    pointsman::cli::main()
}
