//! Steps of a guarded promotion, as they are logged, counted and recorded.

/// A step of a guarded promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromotionStep {
    /// It began.
    Started,
    /// Its time was over with too few exchanges to judge; it continues for as long again.
    Extended,
    /// The candidate is the policy in force.
    Promoted,
    /// The candidate was shown to be worse, or its fault breaker tripped, or there were too few exchanges to judge.
    RolledBack,
    /// The operator ended it.
    Aborted,
    /// Another policy came into force, or the candidate refuses the new configuration.
    Overtaken,
    /// The process ended during it.
    Interrupted,
}

impl PromotionStep {
    /// Every step.
    pub const ALL: [PromotionStep; 7] = [
        PromotionStep::Started,
        PromotionStep::Extended,
        PromotionStep::Promoted,
        PromotionStep::RolledBack,
        PromotionStep::Aborted,
        PromotionStep::Overtaken,
        PromotionStep::Interrupted,
    ];

    /// The name in the API, metrics and the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            PromotionStep::Started => "started",
            PromotionStep::Extended => "extended",
            PromotionStep::Promoted => "promoted",
            PromotionStep::RolledBack => "rolled_back",
            PromotionStep::Aborted => "aborted",
            PromotionStep::Overtaken => "overtaken",
            PromotionStep::Interrupted => "interrupted",
        }
    }
}
