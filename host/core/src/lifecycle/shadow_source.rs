//! The file of the shadow policy: which content of it is asked, which is to be judged, and which is refused.
//!
//! A bad content changes nothing: the shadow in use goes on to be asked. It goes on under another table too, unless it refuses that.

use std::sync::Arc;

use super::component::Hash;
use crate::table::Table;
use crate::time::Timestamp;

/// Inputs of a shadow policy, which is judged again when any of them changes. `W` is its section of the configuration.
#[derive(Clone, Debug)]
pub struct ShadowKey<W> {
    /// Hash of the component.
    pub hash: Hash,
    /// Its settings and limits.
    pub wanted: W,
    /// The table that it is configured with.
    pub table: Arc<Table>,
}

impl<W: PartialEq> ShadowKey<W> {
    fn is(&self, other: &Self) -> bool {
        self.is_same_policy(other) && Arc::ptr_eq(&self.table, &other.table)
    }

    /// The same, but for another table.
    fn is_same_policy(&self, other: &Self) -> bool {
        self.hash == other.hash && self.wanted == other.wanted
    }
}

/// The meaning of the file's present content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowSeen {
    /// It is in use.
    InUse {
        /// True where a refusal ends with it.
        is_restored: bool,
    },
    /// It was refused under the same settings and table.
    Refused,
    /// It is new: compile and judge it.
    Judge,
}

/// The shadow in use, and what was refused.
#[derive(Clone, Debug)]
pub struct ShadowSource<W> {
    in_use: Option<(ShadowKey<W>, Timestamp)>,
    refused: Option<ShadowKey<W>>,
    error: Option<String>,
}

impl<W> Default for ShadowSource<W> {
    fn default() -> Self {
        Self { in_use: None, refused: None, error: None }
    }
}

impl<W: Clone + PartialEq> ShadowSource<W> {
    /// The shadow in use, and since when it is; none: no shadow is asked.
    pub fn in_use(&self) -> Option<(&ShadowKey<W>, Timestamp)> {
        self.in_use.as_ref().map(|(key, since)| (key, *since))
    }

    /// The reason why the latest content is not in use; none: it is.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Says what the content that was read means.
    pub fn see(&mut self, key: &ShadowKey<W>) -> ShadowSeen {
        if self.in_use.as_ref().is_some_and(|(in_use, _)| in_use.is(key)) {
            self.refused = None;
            return ShadowSeen::InUse { is_restored: self.error.take().is_some() };
        }
        match self.refused.as_ref().is_some_and(|refused| refused.is(key)) {
            true => ShadowSeen::Refused,
            false => ShadowSeen::Judge,
        }
    }

    /// The time since when this policy is asked, under whatever table: what was counted of it goes on. None: it is another.
    pub fn since(&self, key: &ShadowKey<W>) -> Option<Timestamp> {
        self.in_use.as_ref().filter(|(in_use, _)| in_use.is_same_policy(key)).map(|(_, since)| *since)
    }

    /// A content that was judged and found good is in use from `now` on; nothing is refused any more.
    pub fn take(&mut self, now: Timestamp, key: ShadowKey<W>) {
        self.go_on(now, key);
        (self.refused, self.error) = (None, None);
    }

    /// The inputs under which the shadow in use goes on with another table; none: it has this one, or there is no shadow.
    pub fn follow(&self, table: &Arc<Table>) -> Option<ShadowKey<W>> {
        let (key, _) = self.in_use.as_ref().filter(|(key, _)| !Arc::ptr_eq(&key.table, table))?;
        Some(ShadowKey { table: table.clone(), ..key.clone() })
    }

    /// The shadow in use goes on under these inputs; what was refused stays refused.
    pub fn go_on(&mut self, now: Timestamp, key: ShadowKey<W>) {
        let since = self.since(&key).unwrap_or(now);
        self.in_use = Some((key, since));
    }

    /// The content is refused; none: it could not be read or was not judged, so it is judged again. Returns true where the
    /// reason is to be reported: the same one is reported once.
    pub fn refuse(&mut self, key: Option<ShadowKey<W>>, error: &str) -> bool {
        self.refused = key;
        if self.error.as_deref() == Some(error) {
            return false;
        }
        self.error = Some(error.to_owned());
        true
    }

    /// The shadow in use refuses the configuration and is no longer asked. An earlier error stays.
    pub fn stop(&mut self, error: &str) {
        self.in_use = None;
        self.error.get_or_insert_with(|| error.to_owned());
    }

    /// The configuration names no shadow. Returns true where one was in use.
    pub fn dismiss(&mut self) -> bool {
        std::mem::take(self).in_use.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_micros(1);
    const LATER: Timestamp = Timestamp::from_micros(2);

    fn table() -> Arc<Table> {
        Arc::new(Table::new(Vec::new(), Vec::new()))
    }

    fn key(content: &str, wanted: u32, table: &Arc<Table>) -> ShadowKey<u32> {
        ShadowKey { hash: Hash::of(content.as_bytes()), wanted, table: table.clone() }
    }

    fn in_use(table: &Arc<Table>) -> ShadowSource<u32> {
        let mut source = ShadowSource::default();
        source.take(AT, key("good", 0, table));
        source
    }

    #[test]
    fn a_content_is_judged_once_for_each_settings_and_table() {
        let (here, elsewhere) = (table(), table());
        let mut source = in_use(&here);
        assert_eq!(source.see(&key("good", 0, &here)), ShadowSeen::InUse { is_restored: false });
        assert_eq!(source.see(&key("good", 1, &here)), ShadowSeen::Judge);
        assert_eq!(source.see(&key("good", 0, &elsewhere)), ShadowSeen::Judge);
        assert!(source.refuse(Some(key("bad", 0, &here)), "no export"));
        assert_eq!(source.see(&key("bad", 0, &here)), ShadowSeen::Refused);
        assert_eq!(source.see(&key("bad", 1, &here)), ShadowSeen::Judge);
        assert_eq!(source.see(&key("bad", 0, &elsewhere)), ShadowSeen::Judge);
    }

    #[test]
    fn a_bad_content_changes_nothing_and_is_reported_once() {
        let table = table();
        let mut source = in_use(&table);
        assert!(source.refuse(Some(key("bad", 0, &table)), "no export"));
        assert!(!source.refuse(Some(key("bad", 0, &table)), "no export"));
        assert!(source.refuse(None, "no such file"));
        assert_eq!(source.see(&key("bad", 0, &table)), ShadowSeen::Judge, "what was not judged is judged again");
        assert_eq!(source.in_use().map(|(key, since)| (key.hash, since)), Some((Hash::of(b"good"), AT)));
        assert_eq!(source.see(&key("good", 0, &table)), ShadowSeen::InUse { is_restored: true });
        assert_eq!(source.error(), None);
    }

    #[test]
    fn counting_goes_on_under_another_table_and_begins_anew_with_other_settings() {
        let (here, elsewhere) = (table(), table());
        let mut source = in_use(&here);
        source.refuse(Some(key("bad", 0, &here)), "no export");
        let followed = source.follow(&elsewhere).unwrap();
        assert_eq!(source.since(&followed), Some(AT));
        source.go_on(LATER, followed);
        assert_eq!((source.in_use().unwrap().1, source.error()), (AT, Some("no export")), "what was refused stays so");
        assert!(source.follow(&elsewhere).is_none());
        assert_eq!(source.since(&key("good", 1, &elsewhere)), None);
        source.take(LATER, key("good", 1, &elsewhere));
        assert_eq!((source.in_use().unwrap().1, source.error()), (LATER, None));
    }

    #[test]
    fn one_that_refuses_the_configuration_is_no_longer_asked() {
        let table = table();
        let mut source = in_use(&table);
        source.refuse(None, "no such file");
        source.stop("no such setting");
        assert!(source.in_use().is_none());
        assert_eq!(source.error(), Some("no such file"), "the file's own fault comes first");
        assert!(!source.dismiss());
        assert!(in_use(&table).dismiss());
    }
}
