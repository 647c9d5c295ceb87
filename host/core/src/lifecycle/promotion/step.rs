//! Steps of a guarded promotion, as they are logged, counted and recorded.

vocabulary! {
    /// A step of a guarded promotion.
    pub enum PromotionStep {
        /// The candidate gets its share of exchanges from now on.
        Started = "started",
        /// Its time was over with too few exchanges to judge; it continues for as long again.
        Extended = "extended",
        /// The candidate is the policy in force.
        Promoted = "promoted",
        /// The candidate was shown to be worse, or its fault breaker tripped, or there were too few exchanges to judge.
        RolledBack = "rolled_back",
        /// The operator ended it.
        Aborted = "aborted",
        /// Another policy came into force, or the candidate refuses the new configuration.
        Overtaken = "overtaken",
        /// The process ended during it.
        Interrupted = "interrupted",
    }
}
