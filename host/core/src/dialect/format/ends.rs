//! Ends of the choices of one stream: a stream with several is at its end only when each of them is.

/// Choices seen and ended, by their index. A finish reason is withdrawn when more content of its choice comes, because some
/// servers name one with every event.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::dialect) struct Ends {
    /// Choices asked for; 0 counts as 1.
    expected: u32,
    seen: u128,
    ended: u128,
    /// A choice beyond the last that is told apart was seen: then only the stream's own end is one.
    beyond: bool,
}

impl Ends {
    /// Sets how many choices were asked for.
    pub(in crate::dialect) fn expect(&mut self, choices: u32) {
        self.expected = choices;
    }

    /// Sees an event of this choice: whether it has content, and whether it has a finish reason.
    pub(in crate::dialect) fn see(&mut self, index: u64, has_content: bool, has_ended: bool) {
        let Some(bit) = u32::try_from(index).ok().and_then(|index| 1u128.checked_shl(index)) else {
            self.beyond = true;
            return;
        };
        self.seen |= bit;
        if has_ended {
            self.ended |= bit;
        } else if has_content {
            self.ended &= !bit;
        }
    }

    /// Returns true once every choice that was asked for has ended, and every other one that was seen.
    pub(in crate::dialect) const fn all_ended(&self) -> bool {
        let expected = if self.expected == 0 { 1 } else { self.expected };
        self.seen == self.ended && self.ended.count_ones() >= expected && !self.beyond
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_choice_ends_with_its_reason_and_goes_on_with_more_content() {
        let mut ends = Ends::default();
        assert!(!ends.all_ended());
        ends.see(0, true, false);
        ends.see(0, true, true);
        assert!(ends.all_ended());
        ends.see(0, true, false);
        assert!(!ends.all_ended(), "it was not the end");
        ends.see(0, false, true);
        ends.see(0, false, false);
        assert!(ends.all_ended());
        ends.see(128, true, true);
        assert!(!ends.all_ended(), "one that cannot be told apart");
    }

    proptest! {
        #[test]
        fn several_choices_end_with_the_last_of_them(order in Just((0u64..5).collect::<Vec<_>>()).prop_shuffle()) {
            let mut ends = Ends::default();
            ends.expect(5);
            for index in &order {
                prop_assert!(!ends.all_ended());
                ends.see(*index, true, false);
                ends.see(*index, false, true);
            }
            prop_assert!(ends.all_ended());
        }
    }
}
