//! A change of the configuration file, judged with the policy that is offered with it or without.
//!
//! A configuration and a policy may need each other, so both are judged together first. Where they are not good together, each is
//! judged by itself: the configuration with the policies in force, then the policy under what is in force. A policy that takes
//! long to be compiled holds up no configuration that does without it.
//!
//! The driver does what a [`ConfigStep`] says and tells the result; the last step is [`ConfigStep::End`].

use std::time::Duration;

use super::change::Superseded;

/// Time for which a new configuration waits for a policy that is judged with it. A longer compilation holds up no reload.
const TOGETHER_GRACE: Duration = Duration::from_secs(2);

/// A new configuration on its way into force. `E` is the driver's error.
#[derive(Debug)]
pub struct ConfigChange<E> {
    /// It names another policy file: the two are good only together.
    is_moved: bool,
    phase: Phase<E>,
}

#[derive(Debug)]
enum Phase<E> {
    Begin {
        has_policy: bool,
    },
    /// Both are judged.
    Together,
    /// The configuration is judged by itself, and nothing comes after it.
    Alone,
    /// The same, while the policy is still compiled.
    Meanwhile,
    /// It is asked whether the source still holds the policy that was refused.
    LookingAgain(PolicyError<E>),
    /// The configuration is judged without that policy.
    Without {
        error: PolicyError<E>,
        is_still_offered: bool,
    },
    /// The policy is judged under what is in force.
    PolicyNext,
    End,
}

/// The reason why a policy was not taken with the configuration.
#[derive(Debug)]
struct PolicyError<E> {
    error: E,
    is_verdict: bool,
}

/// The next thing for the driver to do.
#[derive(Debug, PartialEq, Eq)]
pub enum ConfigStep<E> {
    /// Judge both, and put them in force.
    TakeTogether {
        /// The time after which the policy counts as slow; none: it is waited for.
        grace: Option<Duration>,
    },
    /// Judge the configuration with the policies in force, and put it in force.
    TakeAlone,
    /// Judge the policy under the configuration in force, and put it in force. Nothing is to be told of its result.
    TakePolicy,
    /// Note that a newer policy than the one offered is in force. Nothing is to be told of its result.
    NoteSuperseded(Superseded),
    /// Look whether the source still holds what was judged.
    LookAgain,
    /// Report the configuration as refused.
    RefuseConfig(E),
    /// Report the policy as refused; it was not judged, so the same content is judged again.
    RefusePolicy(E),
    /// Report the policy as refused, and its content with it.
    RefuseContent(E),
    /// Nothing more is to be done.
    End,
}

/// The result of a step.
#[derive(Debug)]
pub enum ConfigResult<E> {
    /// Nothing was done yet, or the step has no result.
    None,
    /// It is in force.
    Taken,
    /// The policy took longer than the grace.
    Slow,
    /// The judgement was given up, because the files have changed: they are read again.
    Abandoned,
    /// A newer policy came into force meanwhile.
    Superseded(Superseded),
    /// It is not good; `is_verdict` is false where a shortage of ours kept the policy from being judged.
    Refused {
        /// The reason, as the driver reports it.
        error: E,
        /// True where the component was judged.
        is_verdict: bool,
    },
    /// The source still holds what was judged, or not.
    StillOffered(bool),
}

impl<E> ConfigChange<E> {
    /// A configuration that was read, with a policy that is to be judged with it or without one; `is_moved`: it names another
    /// policy file than the one in force.
    pub fn new(has_policy: bool, is_moved: bool) -> Self {
        Self { is_moved, phase: Phase::Begin { has_policy } }
    }

    /// Takes the result of the step before and returns the next one. A result that does not belong to the step ends the change.
    pub fn next(&mut self, result: ConfigResult<E>) -> ConfigStep<E> {
        let (phase, step) = match (std::mem::replace(&mut self.phase, Phase::End), result) {
            (Phase::Begin { has_policy: false }, _) => (Phase::Alone, ConfigStep::TakeAlone),
            (Phase::Begin { has_policy: true }, _) => {
                (Phase::Together, ConfigStep::TakeTogether { grace: (!self.is_moved).then_some(TOGETHER_GRACE) })
            }
            (Phase::Together, ConfigResult::Slow) => (Phase::Meanwhile, ConfigStep::TakeAlone),
            (Phase::Together, ConfigResult::Superseded(by)) => {
                (Phase::Begin { has_policy: false }, ConfigStep::NoteSuperseded(by))
            }
            (Phase::Together, ConfigResult::Refused { error, .. }) if self.is_moved => {
                (Phase::End, ConfigStep::RefuseConfig(error))
            }
            (Phase::Together, ConfigResult::Refused { error, is_verdict }) => {
                (Phase::LookingAgain(PolicyError { error, is_verdict }), ConfigStep::LookAgain)
            }
            (Phase::Meanwhile, ConfigResult::Taken) => (Phase::End, ConfigStep::TakePolicy),
            (Phase::Meanwhile, ConfigResult::Refused { .. }) => {
                (Phase::Together, ConfigStep::TakeTogether { grace: None })
            }
            (Phase::LookingAgain(error), ConfigResult::StillOffered(is_still_offered)) => {
                (Phase::Without { error, is_still_offered }, ConfigStep::TakeAlone)
            }
            (Phase::Without { error, is_still_offered: true }, ConfigResult::Taken) => {
                let PolicyError { error, is_verdict } = error;
                let refuse = if is_verdict { ConfigStep::RefuseContent } else { ConfigStep::RefusePolicy };
                (Phase::End, refuse(error))
            }
            (Phase::Without { .. }, ConfigResult::Refused { error, .. }) => {
                (Phase::PolicyNext, ConfigStep::RefuseConfig(error))
            }
            (Phase::PolicyNext, _) => (Phase::End, ConfigStep::TakePolicy),
            (Phase::Alone, ConfigResult::Refused { error, .. }) => (Phase::End, ConfigStep::RefuseConfig(error)),
            (
                Phase::Together
                | Phase::Alone
                | Phase::Meanwhile
                | Phase::LookingAgain(_)
                | Phase::Without { .. }
                | Phase::End,
                _,
            ) => (Phase::End, ConfigStep::End),
        };
        self.phase = phase;
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Step = ConfigStep<&'static str>;
    type Told = ConfigResult<&'static str>;

    const TOGETHER: Step = ConfigStep::TakeTogether { grace: Some(TOGETHER_GRACE) };
    const PATIENTLY: Step = ConfigStep::TakeTogether { grace: None };

    fn refused(error: &'static str) -> Told {
        ConfigResult::Refused { error, is_verdict: true }
    }

    fn not_judged(error: &'static str) -> Told {
        ConfigResult::Refused { error, is_verdict: false }
    }

    fn newer() -> Superseded {
        Superseded { by: "abc".to_owned() }
    }

    fn superseded() -> Told {
        ConfigResult::Superseded(newer())
    }

    /// The steps of a change whose steps have these results.
    fn steps(mut change: ConfigChange<&'static str>, told: impl IntoIterator<Item = Told>) -> Vec<Step> {
        [ConfigResult::None].into_iter().chain(told).map(|result| change.next(result)).collect()
    }

    fn with_policy() -> ConfigChange<&'static str> {
        ConfigChange::new(true, false)
    }

    #[test]
    fn a_configuration_without_a_policy_is_judged_by_itself() {
        let alone = || ConfigChange::new(false, false);
        assert_eq!(steps(alone(), [ConfigResult::Taken]), [ConfigStep::TakeAlone, ConfigStep::End]);
        let told = [refused("bad"), ConfigResult::None];
        assert_eq!(steps(alone(), told), [ConfigStep::TakeAlone, ConfigStep::RefuseConfig("bad"), ConfigStep::End]);
    }

    #[test]
    fn both_are_good_together_or_read_again() {
        assert_eq!(steps(with_policy(), [ConfigResult::Taken]), [TOGETHER, ConfigStep::End]);
        assert_eq!(steps(with_policy(), [ConfigResult::Abandoned]), [TOGETHER, ConfigStep::End]);
    }

    #[test]
    fn a_slow_policy_holds_up_no_configuration_that_does_without_it() {
        let told = [ConfigResult::Slow, ConfigResult::Taken, ConfigResult::None];
        assert_eq!(
            steps(with_policy(), told),
            [TOGETHER, ConfigStep::TakeAlone, ConfigStep::TakePolicy, ConfigStep::End]
        );
        let told = [ConfigResult::Slow, refused("needs the new policy"), ConfigResult::Taken];
        assert_eq!(steps(with_policy(), told), [TOGETHER, ConfigStep::TakeAlone, PATIENTLY, ConfigStep::End]);
    }

    #[test]
    fn a_superseded_policy_leaves_the_configuration_to_be_judged() {
        let told = [superseded(), ConfigResult::None, refused("bad"), ConfigResult::None];
        assert_eq!(
            steps(with_policy(), told),
            [
                TOGETHER,
                ConfigStep::NoteSuperseded(newer()),
                ConfigStep::TakeAlone,
                ConfigStep::RefuseConfig("bad"),
                ConfigStep::End
            ]
        );
    }

    #[test]
    fn a_bad_policy_is_refused_and_the_configuration_taken_without_it() {
        let steps = |policy, is_still_offered| {
            let told = [policy, ConfigResult::StillOffered(is_still_offered), ConfigResult::Taken];
            let mut steps = steps(with_policy(), told);
            assert_eq!(steps[..3], [TOGETHER, ConfigStep::LookAgain, ConfigStep::TakeAlone]);
            steps.pop().unwrap()
        };
        assert_eq!(steps(refused("bad"), true), ConfigStep::RefuseContent("bad"));
        assert_eq!(steps(not_judged("no memory"), true), ConfigStep::RefusePolicy("no memory"));
        assert_eq!(steps(refused("half a file"), false), ConfigStep::End, "the watcher tells when it is whole");
    }

    #[test]
    fn a_policy_is_judged_without_a_bad_configuration() {
        let told = [refused("together"), ConfigResult::StillOffered(true), refused("alone"), ConfigResult::None];
        assert_eq!(
            steps(with_policy(), told),
            [
                TOGETHER,
                ConfigStep::LookAgain,
                ConfigStep::TakeAlone,
                ConfigStep::RefuseConfig("alone"),
                ConfigStep::TakePolicy
            ]
        );
    }

    #[test]
    fn a_configuration_with_another_policy_file_is_taken_with_it_or_not_at_all() {
        let moved = || ConfigChange::new(true, true);
        assert_eq!(
            steps(moved(), [refused("bad"), ConfigResult::None]),
            [PATIENTLY, ConfigStep::RefuseConfig("bad"), ConfigStep::End]
        );
        assert_eq!(steps(moved(), [ConfigResult::Taken]), [PATIENTLY, ConfigStep::End]);
    }

    #[test]
    fn an_end_is_the_last_step_and_a_configuration_is_refused_once() {
        let all: [fn() -> Told; 8] = [
            || ConfigResult::None,
            || ConfigResult::Taken,
            || ConfigResult::Slow,
            || ConfigResult::Abandoned,
            superseded,
            || refused("bad"),
            || not_judged("no memory"),
            || ConfigResult::StillOffered(true),
        ];
        const LONGEST: u32 = 5;
        for sequence in 0..(all.len() as u32).pow(LONGEST) {
            for (has_policy, is_moved) in [(false, false), (false, true), (true, false), (true, true)] {
                let mut change = ConfigChange::new(has_policy, is_moved);
                let told = (0..LONGEST).map(|at| all[(sequence / 8_u32.pow(at) % 8) as usize]());
                let steps: Vec<_> = std::iter::once(ConfigResult::None).chain(told).map(|r| change.next(r)).collect();
                let ended = steps.iter().position(|step| *step == ConfigStep::End);
                assert!(ended.is_none_or(|at| steps[at..].iter().all(|step| *step == ConfigStep::End)), "{steps:?}");
                let refusals = steps.iter().filter(|step| matches!(step, ConfigStep::RefuseConfig(_))).count();
                assert!(refusals <= 1, "{steps:?}");
            }
        }
    }
}
