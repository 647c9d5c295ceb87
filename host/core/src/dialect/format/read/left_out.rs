//! Fields that have no counterpart in another API: refused, or left out by name.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::text::{MAX_NAME_BYTES, cut};

/// The result of every reader.
pub type Read<T> = Result<T, Untranslatable>;

/// A field that has no counterpart: the client's, and why; or, of an answer, the upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Untranslatable {
    /// Path of the field, as in `messages[2].content[0].type`; empty for the whole body.
    pub path: String,
    why: Cow<'static, str>,
}

impl Untranslatable {
    /// The value at this path, and why it has no counterpart, as the rest of a sentence that begins with the path.
    ///
    /// Both may have words of the client's in them, of which the beginning is told.
    pub fn new(path: impl Into<String>, why: impl Into<Cow<'static, str>>) -> Self {
        const MAX_WHY_BYTES: usize = 1_000;
        let (mut path, mut why) = (path.into(), why.into());
        cut(&mut path, MAX_NAME_BYTES);
        if let Cow::Owned(why) = &mut why {
            cut(why, MAX_WHY_BYTES);
        }
        Self { path, why }
    }
}

impl fmt::Display for Untranslatable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.path {
            "" => write!(f, "the body {}", self.why),
            path => write!(f, "`{path}` {}", self.why),
        }
    }
}

/// Fields of a request that were left out or said otherwise, in the order in which they were read.
///
/// A strict one takes none: what it would take is refused.
#[derive(Clone, Debug)]
pub struct LeftOut(Option<Rc<RefCell<Vec<Untranslatable>>>>);

/// The most fields of one request that are named as left out; further ones are left out all the same.
pub(super) const MAX_LEFT_OUT: usize = 100;

impl LeftOut {
    /// For lenient reading: takes what has no counterpart, up to a bound.
    pub fn lenient() -> Self {
        Self(Some(Rc::default()))
    }

    /// For strict reading: takes nothing, so that a field without a counterpart is refused.
    pub const fn strict() -> Self {
        Self(None)
    }

    /// Returns true if nothing may be left out.
    pub const fn is_strict(&self) -> bool {
        self.0.is_none()
    }

    /// Adds a field and why it was left out.
    ///
    /// # Errors
    /// Strict: the field is refused.
    pub fn add(&self, field: Untranslatable) -> Read<()> {
        let Some(list) = &self.0 else { return Err(field) };
        let mut list = list.borrow_mut();
        if list.len() < MAX_LEFT_OUT {
            list.push(field);
        }
        Ok(())
    }

    /// Takes what was left out so far.
    pub fn take(&self) -> Vec<Untranslatable> {
        self.0.as_ref().map(|list| list.take()).unwrap_or_default()
    }
}
