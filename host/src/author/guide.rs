//! The guides of a policy's author, from inside this binary.

/// A page of the guide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Topic {
    /// The whole: the loop, what a policy sees and decides, its limits, swapping, promotion.
    Policies,
    /// A rule from its first line to its promotion.
    FirstRule,
    /// Everything that a scenario file can say.
    Scenarios,
    /// The contract's text, `policy.wit`.
    Contract,
    /// Other languages than Rust, JavaScript, Python and C.
    Languages,
}

impl Topic {
    /// Every page, with what it is called on the command line and what it is about.
    pub const ALL: [(Topic, &'static str, &'static str); 5] = [
        (Topic::Policies, "policies", "the whole: what a policy sees and decides, its limits, swapping, promotion"),
        (Topic::FirstRule, "first-rule", "a rule from its first line to its promotion"),
        (Topic::Scenarios, "scenarios", "everything that a scenario file can say"),
        (Topic::Contract, "contract", "the contract itself, policy.wit"),
        (Topic::Languages, "languages", "other languages than Rust, JavaScript, Python and C"),
    ];

    /// Returns the page's text, in Markdown.
    pub const fn text(self) -> &'static str {
        match self {
            Topic::Policies => include_str!("../../../policies/README.md"),
            Topic::FirstRule => include_str!("../../../policies/FIRST_RULE.md"),
            Topic::Scenarios => include_str!("../../../policies/SCENARIOS.md"),
            Topic::Contract => super::sdk::CONTRACT,
            Topic::Languages => include_str!("../../../policies/LANGUAGES.md"),
        }
    }
}

/// The pages, a line each.
pub fn contents() -> String {
    Topic::ALL.map(|(_, name, about)| format!("  pointsman policy guide {name:<11} {about}\n")).concat()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_page_is_listed_under_the_name_by_which_it_is_asked_for() {
        for topic in Topic::value_variants() {
            let (_, name, _) = Topic::ALL.into_iter().find(|(known, ..)| known == topic).expect("it is listed");
            assert_eq!(topic.to_possible_value().expect("it can be asked for").get_name(), name);
            assert!(contents().contains(name) && topic.text().len() > 1_000, "{name}");
        }
    }
}
