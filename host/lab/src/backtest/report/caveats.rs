//! Caveats: the limits of the model, in numbers of this journal.

use pointsman_engine::left_out_words;
use pointsman_store::Skipped;

use super::super::Run;
use super::super::likely::Guesses;
use super::super::metrics::{Metric, Row};
use super::super::model::{Limits, Model};
use super::super::past::Past;

/// Caveats of a report: the limits of its model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Caveats {
    /// Largest difference of a lane between the model of the policy that ran and the record, as a share of all
    /// exchanges; `None` where another policy stands in for it.
    pub lanes_off: Option<f64>,
    /// The same of the spend, as a share of what was recorded; none also where nothing was spent.
    pub spend_off: Option<f64>,
    /// The same of the median or 95th percentile of the times, whichever is further off, as a share of what was recorded.
    pub times_off: Option<f64>,
    /// Shares of guessed answers among the attempts of the policy that ran and of the candidate.
    pub guesses: [GuessShares; 2],
    /// Backends that nothing is known of.
    pub unknown_backends: Vec<String>,
    /// Backends whose limit nobody ever met.
    pub unlimited_backends: Vec<String>,
    /// Share of the recorded attempts that one of our own time limits ended.
    pub timed_out: f64,
    /// Exchanges that ran under an earlier setup.
    pub other_setups: usize,
    /// Exchanges that another revision decided.
    pub other_revisions: usize,
    /// Attempts at backends that are not configured any more.
    pub lost_tries: usize,
    /// Recorded exchanges whose client disconnected.
    pub gone: u64,
    /// Recorded share of all exchanges, 0..=1.
    pub share: f64,
    /// Trails that cannot be read.
    pub skipped: Skipped,
    /// Recorded settings that the candidate does not know.
    pub settings_left_out: Vec<String>,
}

/// Shares of a policy's attempts that the model had to guess more for than for others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct GuessShares {
    /// At backends without any recorded attempt.
    pub unknown: f64,
    /// More than a minute from the next recorded attempt there.
    pub far: f64,
    /// At a rate that the backend was never seen to take, and that no known limit bounds.
    pub beyond: f64,
}

/// Error of a calibration from which on the report warns.
pub(super) const CALIBRATED: f64 = 0.05;

/// The same for times, which a few slow answers move.
const TIMES_CALIBRATED: f64 = 0.25;

impl Caveats {
    /// Computes the caveats of this backtest; `current` is the revision that stands for the one that ran.
    pub(crate) fn new(
        past: &Past,
        model: &Model,
        current: &str,
        lived: &[[Run; 2]],
        rows: &[Row],
        skipped: Skipped,
    ) -> Self {
        let ran = past.revisions.iter().find(|(revision, _)| revision == current).map_or(0, |(_, count)| *count);
        let off = |metric: Metric| rows.iter().find(|r| r.metric == metric).map(|r| r.current.mean - r.recorded);
        let lanes = [Metric::Primary, Metric::Fallback, Metric::Emergency, Metric::Unanswered];
        let lanes_off = lanes.into_iter().filter_map(off).map(f64::abs).fold(0.0, f64::max);
        let spent = past.recorded.spend_usd() / past.share;
        let spend_off = off(Metric::Spend).filter(|_| spent > 0.0).map(|off| off / spent);
        let time_off = |metric: Metric| {
            let row = rows.iter().find(|r| r.metric == metric && r.recorded > 0.0)?;
            Some(row.current.mean / row.recorded - 1.0)
        };
        let times = [Metric::TimeP50, Metric::TimeP95];
        let times_off = times.into_iter().filter_map(time_off).max_by(|a, b| a.abs().total_cmp(&b.abs()));
        let tries: usize = model.backends.iter().map(|place| place.tries).sum();
        let timed_out: usize = model.backends.iter().map(|place| place.timed_out).sum();
        let places = || model.backends.iter().zip(&past.setup.table.backends);
        let is_unlimited =
            |place: &super::super::model::BackendModel| place.tries > 0 && place.limits == Limits::Unseen;
        Self {
            lanes_off: (ran > 0).then_some(lanes_off),
            spend_off: spend_off.filter(|_| ran > 0),
            times_off: times_off.filter(|_| ran > 0),
            guesses: [0, 1].map(|which| shares(lived.iter().map(|l| l[which].guesses))),
            unknown_backends: model.unknown(&past.setup.table).into_iter().map(str::to_owned).collect(),
            unlimited_backends: places().filter(|(p, _)| is_unlimited(p)).map(|(_, b)| b.id.to_string()).collect(),
            timed_out: timed_out as f64 / tries.max(1) as f64,
            other_setups: past.other_setups,
            other_revisions: past.arrivals.len() - ran,
            lost_tries: past.lost_tries,
            gone: past.recorded.gone,
            share: past.share,
            skipped,
            settings_left_out: Vec::new(),
        }
    }

    /// Returns true if the model is so far off that small differences mean nothing.
    pub(crate) fn is_off(&self) -> bool {
        self.lanes_off.is_some_and(|off| off > CALIBRATED)
            || self.spend_off.is_some_and(|off| off.abs() > CALIBRATED)
            || self.times_are_off()
    }

    fn times_are_off(&self) -> bool {
        self.times_off.is_some_and(|off| off.abs() > TIMES_CALIBRATED)
    }

    /// In sentences, the weightiest first.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let mut all = vec![self.calibration()];
        let [_, candidate] = self.guesses;
        if candidate.unknown > 0.0 {
            all.push(format!(
                "{} of the candidate's attempts go to backends that no recorded attempt went to ({}): they are assumed to \
                 answer always, like the others.",
                percent(candidate.unknown),
                self.unknown_backends.join(", ")
            ));
        }
        all.push(format!(
            "{} of the candidate's attempts are more than a minute from any recorded at that backend ({} of those of the \
             policy that ran): what was seen nearest in time stands in for them.",
            percent(candidate.far),
            percent(self.guesses[0].far)
        ));
        if !self.unlimited_backends.is_empty() {
            all.push(format!(
                "No limit was ever met at {}: taken to have none but those of the table. {} of the candidate's attempts are \
                 made there faster than was ever tried.",
                self.unlimited_backends.join(", "),
                percent(candidate.beyond)
            ));
        }
        all.extend(self.of_the_journal());
        all.push(
            "Requests arrive as recorded: clients that would have retried after an error, or waited longer or less, are \
             not simulated. Backends start without a cooldown and policies with an empty `state`. Health checks, the \
             rate-limit headers of good answers and prompt caches that another backend would not have had are not modelled."
                .to_owned(),
        );
        all
    }

    fn calibration(&self) -> String {
        let percent = |share: f64| format!("{:.1}", share * 100.0);
        let Some(lanes) = self.lanes_off else {
            return "How well the model fits is not known: the policy compared with is not the one that was recorded."
                .to_owned();
        };
        let spend = match self.spend_off {
            Some(off) => format!("{} % of the spend ", percent(off.abs())),
            None => "nothing of the spend (there was none) ".to_owned(),
        };
        let verdict = match self.is_off() {
            true => "That is a lot: do not rely on differences between the policies that are no larger than this.",
            false => "Do not rely on differences between the policies that are smaller than this.",
        };
        let times = match self.times_off.filter(|_| self.times_are_off()) {
            Some(off) => {
                format!(" The modelled times are {:+.0} % off: do not take them as a forecast.", off * 100.0)
            }
            None => String::new(),
        };
        format!(
            "Under the policy that ran, the model is off by {} points of a lane's share and {spend}against what was \
             recorded.{times} {verdict}",
            percent(lanes)
        )
    }

    fn of_the_journal(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut say = |is_so: bool, sentence: String| all.extend(is_so.then_some(sentence));
        say(
            self.timed_out > 0.0,
            format!(
                "{:.2} % of the recorded attempts were ended by our own time limits: how long they would have taken is not \
                 known, and under a candidate with longer limits they still end without an answer.",
                self.timed_out * 100.0
            ),
        );
        say(
            self.gone > 0,
            format!("{} clients disconnected: they disconnect after the same time in every simulation.", self.gone),
        );
        say(
            self.share < 1.0,
            format!(
                "The journal is a sample of {:.1} %: sums are scaled up, and limits, budgets and the waiting line are scaled down \
                 by as much. Bursts look smoother than they were.",
                self.share * 100.0
            ),
        );
        say(
            self.other_setups > 0,
            format!("{} exchanges ran under another configuration; all are put under the latest.", self.other_setups),
        );
        say(
            self.other_revisions > 0 && self.lanes_off.is_some(),
            format!("{} of the recorded exchanges were decided by other revisions.", self.other_revisions),
        );
        say(
            self.lost_tries > 0,
            format!("{} recorded attempts went to backends that are not configured any more.", self.lost_tries),
        );
        if let Some(words) = left_out_words(&self.settings_left_out) {
            say(true, format!("Of the recorded settings, {words}."));
        }
        let why = self.skipped.why.as_deref().unwrap_or("unreadable");
        say(self.skipped.trails > 0, format!("{} trails cannot be read ({why}).", self.skipped.trails));
        all
    }
}

fn shares(all: impl Iterator<Item = Guesses>) -> GuessShares {
    let sum = all.fold(Guesses::default(), |sum, g| Guesses {
        attempts: sum.attempts + g.attempts,
        unknown: sum.unknown + g.unknown,
        far: sum.far + g.far,
        beyond: sum.beyond + g.beyond,
    });
    let share = |part: u64| part as f64 / sum.attempts.max(1) as f64;
    GuessShares { unknown: share(sum.unknown), far: share(sum.far), beyond: share(sum.beyond) }
}
