//! Variables of ours that are no settings of the configuration: read in one place, and a wrong value is an error that names them.

use std::ffi::OsString;
use std::path::Path;

/// The threads of the runtime.
const WORKERS: &str = "POINTSMAN_WORKERS";

/// Variable that names the folder for compiled policies.
const CACHE_DIR: &str = "POINTSMAN_CACHE_DIR";

/// More threads than this do not help.
const MAX_WORKERS: usize = 512;

/// Checks every variable of ours.
///
/// # Errors
/// In a sentence: which variable, its value, what to write.
pub(super) fn check() -> Result<(), String> {
    workers()?;
    cache_dir(std::env::var_os(CACHE_DIR))
}

/// The threads of the runtime; none: one per core.
///
/// # Errors
/// When the variable is not such a number.
pub(super) fn workers() -> Result<Option<usize>, String> {
    parse_workers(std::env::var_os(WORKERS))
}

fn parse_workers(value: Option<OsString>) -> Result<Option<usize>, String> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = value.to_string_lossy();
    match text.trim().parse() {
        Ok(workers @ 1..=MAX_WORKERS) => Ok(Some(workers)),
        Ok(_) | Err(_) => Err(format!(
            "{WORKERS}={text}: this is the number of threads; write a whole number from 1 to {MAX_WORKERS}, or unset it for one per core"
        )),
    }
}

fn cache_dir(value: Option<OsString>) -> Result<(), String> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(()) };
    let path = Path::new(&value);
    if path.exists() && !path.is_dir() {
        return Err(format!(
            "{CACHE_DIR}={}: this is not a folder; name a folder for compiled policies, or leave it empty to keep none",
            path.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_threads_is_a_number() {
        assert_eq!(parse_workers(None), Ok(None));
        assert_eq!(parse_workers(Some("".into())), Ok(None));
        assert_eq!(parse_workers(Some("4".into())), Ok(Some(4)));
        for wrong in ["zero", "0", "-1", "1.5", "513", "4 cores"] {
            let error = parse_workers(Some(wrong.into())).unwrap_err();
            assert!(
                error.starts_with(&format!("POINTSMAN_WORKERS={wrong}: ")) && error.contains("1 to 512"),
                "{error}"
            );
        }
    }
}
