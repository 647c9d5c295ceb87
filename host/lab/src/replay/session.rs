//! A replay under way: each exchange goes to the component that is to be asked, and its answers to the books.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use pointsman_config::policy_names;
use pointsman_core::journal::{Question, Setup};
use pointsman_engine::clock::Stopwatch;
use pointsman_engine::{Compiled, Engine, Heard, LoadError, Replayer, SettingsOffer, Texts};
use pointsman_store::{ExchangeRow, Journaled, Skipped};

use super::compare::{Divergence, divergence, exactness, ran_out_of_time};
use super::components::Components;
use super::fresh::{Asked, Threads};
use super::summary::{Difference, QuestionRef};
use super::targets::{Desks, ReplayTarget};
use super::{Chosen, Plan, ReplayError, ReplayReport};
use crate::settings::recorded as offer_of_recorded;

/// Starting fresh instances may take this long on one thread, in ms; of a component that starts slowly only every nth
/// exchange is asked again.
const STARTING_MS: u64 = 20_000;

/// State of a replay: components, their state and findings.
pub(super) struct Session<'a, 'scope> {
    plan: &'a Plan,
    components: Components,
    candidate: Option<Arc<Compiled>>,
    /// Settings offered under the setup that was asked last.
    offered: Option<(Arc<Setup>, Arc<SettingsOffer>)>,
    desks: Desks,
    threads: Threads<'scope>,
    /// One exchange of this many is put to fresh instances.
    stride: u64,
    expected: u64,
    watch: Stopwatch,
    report: ReplayReport,
}

impl<'a, 'scope> Session<'a, 'scope> {
    /// About `expected` exchanges are to come.
    pub(super) fn new(
        plan: &'a Plan,
        components: Components,
        candidate: Option<Arc<Compiled>>,
        expected: u64,
        threads: Threads<'scope>,
    ) -> Self {
        let report =
            ReplayReport { candidate: candidate.as_ref().map(|c| c.id().to_string()), ..ReplayReport::default() };
        let (desks, watch) = (Desks::default(), Stopwatch::start());
        Self { plan, components, candidate, offered: None, desks, threads, stride: 1, expected, watch, report }
    }

    /// The next exchange. Breaks off when the fresh instances are no longer asked, which is told at the end.
    ///
    /// # Errors
    /// When a component cannot be asked.
    pub(super) fn take(&mut self, journaled: Journaled) -> Result<ControlFlow<()>, ReplayError> {
        self.report.note(&journaled);
        let recorded = &journaled.exchange.policy;
        let compiled = match &self.candidate {
            Some(candidate) => candidate.clone(),
            None => match self.components.of_revision(recorded)? {
                Some(compiled) => compiled,
                None => {
                    *self.report.missing.entry(recorded.clone()).or_default() += 1;
                    return Ok(ControlFlow::Continue(()));
                }
            },
        };
        let desk = ReplayTarget { compiled, setup: journaled.setup.clone(), settings: self.offer(&journaled.setup) };
        let is_own = **desk.compiled.id() == **recorded && desk.settings.json() == journaled.setup.settings;
        let replayer = self.replayer(&desk, &journaled.exchange, is_own)?;
        let texts = Arc::new(texts(&journaled));
        let heard = match is_own {
            true => self.compare(&replayer, &journaled, &texts),
            false => self.diverge(&replayer, &journaled, &texts),
        };
        let number = self.report.exchanges;
        if !number.is_multiple_of(self.stride) {
            return Ok(ControlFlow::Continue(()));
        }
        Ok(self.threads.ask(Asked { number, desk, journaled: Arc::new(journaled), texts, heard }))
    }

    /// The settings that are offered under a setup.
    fn offer(&mut self, setup: &Arc<Setup>) -> Arc<SettingsOffer> {
        if let Some((_, offer)) = self.offered.as_ref().filter(|(known, _)| Arc::ptr_eq(known, setup)) {
            return offer.clone();
        }
        let names = self.candidate.as_deref().map(|candidate| names(self.plan, candidate)).unwrap_or_default();
        let recorded = offer_of_recorded(&self.plan.configured, &names, &setup.settings);
        let offer = Arc::new(self.plan.settings.over(recorded));
        self.offered = Some((setup.clone(), offer.clone()));
        offer
    }

    /// After the last.
    ///
    /// # Errors
    /// When a component did not start again.
    pub(super) fn finish(self, skipped: Skipped) -> Result<ReplayReport, ReplayError> {
        let Session { threads, watch, mut report, .. } = self;
        let no_policy = |why: LoadError| ReplayError::NoPolicy { name: "a fresh instance".to_owned(), why };
        report.forgetful = threads.finish().map_err(no_policy)?;
        report.skipped = skipped;
        report.took = watch.elapsed();
        Ok(report)
    }

    fn replayer(
        &mut self,
        desk: &ReplayTarget,
        exchange: &ExchangeRow,
        is_own: bool,
    ) -> Result<Arc<Replayer>, ReplayError> {
        let refused = |why: LoadError| ReplayError::Refused {
            revision: desk.compiled.id().to_string(),
            exchange: exchange.id.clone(),
            started: exchange.started.clone(),
            why,
            is_own,
        };
        if self.desks.knows(desk) {
            return self.desks.at(desk).map_err(refused);
        }
        // Probed elsewhere, so that no probe is remembered.
        let probed = desk.compiled.isolated(&*desk.settings, Arc::new(desk.setup.table.clone())).map_err(refused)?;
        if self.candidate.is_some() {
            self.report.settings_left_out.extend(probed.left_out().iter().cloned());
        }
        drop(probed);
        let replayer = self.desks.at(desk).map_err(refused)?;
        let all_ms = u64::from(replayer.start_ms()).saturating_mul(self.expected);
        self.stride = self.stride.max(all_ms.div_ceil(STARTING_MS * self.threads.number() as u64));
        Ok(replayer)
    }

    /// Puts an exchange to the revision that decided it.
    fn compare(&mut self, replayer: &Replayer, journaled: &Journaled, texts: &Arc<Texts>) -> Vec<Heard> {
        let exact = self.report.exact.entry(journaled.exchange.policy.clone()).or_default();
        exact.exchanges += 1;
        let table = &journaled.setup.table;
        let ask = |(i, question): (usize, &_)| {
            let heard = ask(replayer, question, texts);
            let difference = || Difference::new(QuestionRef::new(&journaled.exchange, i), question, &heard, table);
            exact.add(exactness(question, &heard), difference);
            heard
        };
        journaled.trail.questions().enumerate().map(ask).collect()
    }

    /// Puts an exchange to another one, up to the first question that it decides otherwise: what followed is another
    /// history. Other notes change none, nor does another backend that was as good.
    fn diverge(&mut self, replayer: &Replayer, journaled: &Journaled, texts: &Arc<Texts>) -> Vec<Heard> {
        let diverging = &mut self.report.diverging;
        diverging.add(&journaled.exchange.policy);
        let mut first: Option<(Divergence, usize)> = None;
        let mut heard = Vec::new();
        for (i, question) in journaled.trail.questions().enumerate() {
            if first.is_some_and(|(divergence, _)| divergence.is_different()) {
                self.desks.replay().passed(question);
                continue;
            }
            let now = ask(replayer, question, texts);
            diverging.questions += 1;
            diverging.unrecorded += u64::from(now.unrecorded > 0);
            diverging.timed += u64::from(ran_out_of_time(&now));
            match divergence(question, &now, &journaled.setup.table) {
                Some(same) if !same.is_different() => {
                    first = Some(first.map_or((same, i), |first| graver(first, (same, i))))
                }
                Some(divergence) => first = Some((divergence, i)),
                None => {}
            }
            heard.push(now);
        }
        if let Some((divergence, i)) = first
            && let Some(question) = journaled.trail.questions().nth(i)
        {
            let place = QuestionRef::new(&journaled.exchange, i);
            let example = || Difference::new(place, question, &heard[i], &journaled.setup.table);
            diverging.diverged(divergence, self.plan.examples, example);
        }
        heard
    }
}

/// The names the candidate goes by.
fn names<'n>(plan: &'n Plan, candidate: &'n Compiled) -> Vec<&'n str> {
    let file = match &plan.policy {
        Some(Chosen::File { name, .. }) => Some(Path::new(name)),
        Some(Chosen::Embedded | Chosen::Revision(_)) | None => None,
    };
    policy_names(candidate.name(), file, **candidate.id() == *Engine::embedded_id())
}

/// A tie says more than other notes; of two alike the first counts.
fn graver(first: (Divergence, usize), second: (Divergence, usize)) -> (Divergence, usize) {
    if first.0 == Divergence::Notes && second.0 != Divergence::Notes { second } else { first }
}

fn ask(replayer: &Replayer, question: &Question, texts: &Arc<Texts>) -> Heard {
    replayer.ask(&question.query, texts, &question.state)
}

/// Collects the texts that the policy could read of the request.
fn texts(journaled: &Journaled) -> Texts {
    let Journaled { exchange, trail, .. } = journaled;
    Texts {
        model: exchange.model.clone(),
        path: exchange.path.clone(),
        session: exchange.session.clone(),
        labels: trail.labels.clone(),
        spending: trail.spending,
    }
}
