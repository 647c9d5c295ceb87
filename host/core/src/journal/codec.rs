//! A trail as bytes: a version, then postcard (its numbers take as many bytes as they need).
//!
//! What is written stays readable. Enums grow at their end only; any other change of a type in here is a new version, and the
//! old types are kept beside the new ones. `tests/journal` has a store of every version.

use super::trail::Trail;
use crate::contract::Columns;

/// The version that is written.
pub const VERSION: u8 = 1;

/// The reason why bytes are not a trail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrailError {
    /// A later Pointsman wrote it.
    #[error("it has version {found}, of a newer Pointsman; this one reads versions up to {VERSION}: use the newer one")]
    Newer {
        /// Version found in the bytes.
        found: u8,
    },
    /// It is no trail, or not a whole one.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// The bytes of a trail.
pub fn encode(trail: &Trail) -> Vec<u8> {
    // Writing into a growing vector fails for no value of these types.
    postcard::to_extend(trail, vec![VERSION]).unwrap_or_else(|_| vec![VERSION])
}

/// The trail of these bytes, whose rows have the columns of the setup that it was recorded under.
///
/// # Errors
/// Bytes that [`encode`] did not write, or that are of a later version; rows that do not fit the columns.
pub fn decode(bytes: &[u8], columns: &Columns) -> Result<Trail, TrailError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            let mut trail = first(rest)?;
            match trail.set_columns(columns) {
                true => Ok(trail),
                false => Err(TrailError::Damaged(format!("its rows are not of {} columns", columns.width()))),
            }
        }
        Some((&found, _)) if found > VERSION => Err(TrailError::Newer { found }),
        Some((&found, _)) => Err(TrailError::Damaged(format!("there is no version {found}"))),
        None => Err(TrailError::Damaged("it is empty".to_owned())),
    }
}

fn first(bytes: &[u8]) -> Result<Trail, TrailError> {
    match postcard::take_from_bytes(bytes) {
        Ok((trail, [])) => Ok(trail),
        Ok((_, rest)) => Err(TrailError::Damaged(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(TrailError::Damaged(error.to_string())),
    }
}
