//! Compilations under way, by the intentions behind them: a newer one that is put in force cancels the older ones.

use std::sync::Arc;

use pointsman_config::Config;
use pointsman_core::lifecycle::{Hash, Intent, Lifecycle};
use pointsman_engine::{Cancellation, Compiled, LoadError};

use super::component::Component;
use super::{Control, in_own_thread};

/// A component to be judged.
pub(super) enum Code {
    /// It is compiled, unless that was done of late.
    Component(Component),
    /// Code that was compiled before.
    Compiled(Arc<Compiled>),
}

impl Code {
    /// The hash of a component that may have to be compiled.
    pub(super) fn hash(&self) -> Option<Hash> {
        match self {
            Code::Component(component) => Some(component.hash),
            Code::Compiled(_) => None,
        }
    }
}

/// The configured source's content is another meanwhile, so that the compilation of the one before was given up.
#[derive(Debug, thiserror::Error)]
#[error("the policy file changed again while it was compiled")]
pub(super) struct Abandoned;

/// Compilations under way, by the intentions that they are for.
#[derive(Default)]
pub(super) struct Compilations {
    under_way: Vec<(Intent, Cancellation)>,
    /// The configured source's component that is being judged.
    source: Option<SourceJudged>,
}

/// The configured source's component, while it is judged.
#[derive(Clone)]
pub(super) struct SourceJudged {
    pub(super) intent: Intent,
    pub(super) hash: Hash,
    /// The configuration that names it.
    pub(super) config: Arc<Config>,
    /// True where that configuration comes into force only with it.
    pub(super) is_together: bool,
}

impl Compilations {
    /// Cancels those that could not be put in force any more.
    pub(super) fn cancel_superseded(&self, lifecycle: &Lifecycle) {
        let superseded = self.under_way.iter().filter(|(intent, _)| lifecycle.superseded(*intent).is_some());
        superseded.for_each(|(_, cancellation)| cancellation.cancel());
    }

    /// Cancels those of this intention.
    pub(super) fn cancel(&self, intent: Intent) {
        self.under_way.iter().filter(|(of, _)| *of == intent).for_each(|(_, cancellation)| cancellation.cancel());
    }

    /// The configured source's component that is being judged.
    pub(super) fn source(&self) -> Option<&SourceJudged> {
        self.source.as_ref()
    }
}

/// A compilation that somebody waits for. Dropped, it is cancelled.
struct UnderWay<'a> {
    control: &'a Control,
    intent: Intent,
    cancellation: Cancellation,
}

impl<'a> UnderWay<'a> {
    fn begin(control: &'a Control, intent: Intent) -> Self {
        let cancellation = Cancellation::default();
        control.state().compilations.under_way.push((intent, cancellation.clone()));
        Self { control, intent, cancellation }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        // There may be two of one intention; both end alike.
        let mut state = self.control.state();
        let under_way = &mut state.compilations.under_way;
        if let Some(at) = under_way.iter().position(|(intent, _)| *intent == self.intent) {
            under_way.remove(at);
        }
        drop(state);
        self.cancellation.cancel();
    }
}

/// The configured source's component is being judged, until this is dropped.
pub(super) struct JudgingSource<'a>(&'a Control);

impl Drop for JudgingSource<'_> {
    fn drop(&mut self) {
        self.0.state().compilations.source = None;
    }
}

impl Control {
    /// Marks the configured source's component as being judged.
    pub(super) fn judging_source(&self, source: SourceJudged) -> JudgingSource<'_> {
        self.state().compilations.source = Some(source);
        JudgingSource(self)
    }

    /// Cancels every compilation that a newer intention in force has made useless.
    pub(super) fn cancel_superseded(&self) {
        let state = self.state();
        state.compilations.cancel_superseded(&state.lifecycle);
    }

    /// The compiled component: of late, or now, on a thread of its own.
    ///
    /// # Errors
    /// The fault of the component; `Superseded` where a newer intention was put in force, [`Abandoned`] where its file changed.
    pub(super) async fn compiled(&self, code: Code, intent: Intent) -> anyhow::Result<Arc<Compiled>> {
        let component = match code {
            Code::Compiled(compiled) => return Ok(compiled),
            Code::Component(component) => component,
        };
        let known = self.state().revisions.compiled(component.hash);
        if let Some(compiled) = known {
            return Ok(compiled);
        }
        let under_way = UnderWay::begin(self, intent);
        // What came into force before it was noted here would not cancel it.
        self.cancel_superseded();
        let (engine, cancellation) = (self.engine.clone(), under_way.cancellation.clone());
        let Component { bytes, .. } = component;
        let compiled = in_own_thread(move || engine.compile_unless(&bytes, &cancellation)).await?;
        match compiled {
            Ok(compiled) => Ok(Arc::new(compiled)),
            Err(LoadError::Cancelled) => match self.state().lifecycle.superseded(intent) {
                Some(superseded) => Err(superseded.into()),
                None => Err(Abandoned.into()),
            },
            Err(error) => Err(error.into()),
        }
    }
}
