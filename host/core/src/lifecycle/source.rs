//! The configured source of the policy: a file, or the component inside the binary.

use std::path::Path;

use super::change::Intent;
use super::component::Hash;
use super::history::Source;
use super::machine::Lifecycle;

/// The meaning of the source's present content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSeen {
    /// It is in force, or something newer was put above it. `restored`: it had been refused in between.
    Known {
        /// True where a refusal ends with it.
        restored: bool,
        /// True where the history changed and is to be written.
        is_noted: bool,
    },
    /// It is refused without being compiled.
    Refused(String),
    /// It is new: compile it.
    Judge(Intent),
}

impl Lifecycle {
    /// True where the content of this source is known; that of the component inside the binary never changes.
    pub fn knows_source(&self, file: Option<&Path>) -> bool {
        self.history().source.as_ref().is_some_and(|source| source.file.as_deref() == file)
    }

    /// The source was read. `again`: the configuration is another, so content that was refused may be good now.
    pub fn see_source(&mut self, file: Option<&Path>, hash: Hash, again: bool) -> SourceSeen {
        let in_force = self.history().in_force();
        let is_in_force = in_force.is_some_and(|entry| entry.hash == hash);
        // An upload of the same component is another policy: it has settings of its own, or those for others.
        let was_the_files = in_force.is_some_and(|entry| entry.is_of(file));
        let known = self.history().source.clone().filter(|source| source.file.as_deref() == file);
        if let Some(known) = known {
            let is_noted = is_in_force && was_the_files && known.hash != hash;
            if is_noted {
                self.note_source(Source { hash, ..known.clone() });
                self.confirm();
            }
            if is_noted || known.hash == hash {
                return SourceSeen::Known { restored: self.refusals.source_is_good(), is_noted };
            }
            if let Some(why) = self.refusals.of_content(hash).filter(|_| !again) {
                return SourceSeen::Refused(why.to_owned());
            }
        }
        match self.history().rolled_back_for_faults(&hash).filter(|_| !is_in_force) {
            Some(why) => {
                let why = format!("{} is refused: {why}", shown(file));
                self.refusals.refuse_content(hash, &why);
                SourceSeen::Refused(why)
            }
            None => SourceSeen::Judge(self.intend()),
        }
    }
}

/// Returns the source in words, for messages.
pub fn shown(file: Option<&Path>) -> String {
    match file {
        None => "the embedded policy".to_owned(),
        Some(file) => format!("the policy {}", file.display()),
    }
}
