//! Services of the host: logs and notes, the request's texts, and small shared state.
//!
//! In a component these are the contract's imports. Natively they go to the [`Host`] of the innermost [`scope`];
//! outside one, words are dropped, texts are empty, and nothing is remembered.

#[cfg(not(target_arch = "wasm32"))]
use std::cell::RefCell;
#[cfg(not(target_arch = "wasm32"))]
use std::rc::Rc;

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For the policy's author.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something does not work.
    Error,
}

/// A client key's money, in millionths of a USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    /// Spent since midnight UTC by exchanges that had ended when this one arrived.
    pub today_microusd: u64,
    /// Daily budget; none: no limit.
    pub budget_microusd: Option<u64>,
}

impl Spending {
    /// As it will be when this has been spent as well, such as the price of the request being decided
    /// ([`crate::Candidate::price_microusd`]).
    ///
    /// ```
    /// use pointsman_sdk::Spending;
    ///
    /// let now = Spending { today_microusd: 900, budget_microusd: Some(1_000) };
    /// assert_eq!(now.after(70).left_microusd(), Some(30));
    /// assert_eq!(now.after(700).left_microusd(), Some(0));
    /// ```
    pub fn after(self, microusd: u64) -> Self {
        Self { today_microusd: self.today_microusd.saturating_add(microusd), ..self }
    }

    /// Budget left today; none: no limit.
    pub fn left_microusd(&self) -> Option<u64> {
        self.budget_microusd.map(|budget| budget.saturating_sub(self.today_microusd))
    }
}

/// The native stand-in for the contract's imports.
pub trait Host {
    /// A line for the host's log.
    fn log(&mut self, _level: Level, _message: &str) {}
    /// A line for the explanation of the exchange being decided.
    fn note(&mut self, _text: &str) {}
    /// The model as the client wrote it; "unknown" when it named none.
    fn model(&self) -> String {
        String::new()
    }
    /// The path of the request.
    fn path(&self) -> String {
        String::new()
    }
    /// `x-pointsman-session`.
    fn session(&self) -> Option<String> {
        None
    }
    /// `x-pointsman-label-NAME`.
    fn label(&self, _name: &str) -> Option<String> {
        None
    }
    /// The client key's money.
    fn spending(&self) -> Spending {
        Spending::default()
    }
    /// A number kept under this key.
    fn state_get(&mut self, _key: &str) -> Option<i64> {
        None
    }
    /// Keeps a number for `ttl_ms`; 0: until the host needs the room.
    fn state_set(&mut self, _key: &str, _value: i64, _ttl_ms: u64) {}
    /// Adds to a number, from 0; answers the sum.
    fn state_add(&mut self, _key: &str, delta: i64, _ttl_ms: u64) -> i64 {
        delta
    }
}

#[cfg(not(target_arch = "wasm32"))]
thread_local! {
    static HOST: RefCell<Option<Rc<RefCell<dyn Host>>>> = const { RefCell::new(None) };
}

/// Runs `f` with this host behind [`note`], [`log`], [`request`] and [`state`], and gives the host back.
#[cfg(not(target_arch = "wasm32"))]
pub fn scope<H: Host + 'static, R>(host: H, f: impl FnOnce() -> R) -> (R, H) {
    /// Puts the outer host back, also when `f` panics.
    struct Restore(Option<Rc<RefCell<dyn Host>>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            HOST.set(self.0.take());
        }
    }

    let host = Rc::new(RefCell::new(host));
    let outer = HOST.replace(Some(host.clone()));
    let result = {
        let _restore = Restore(outer);
        f()
    };
    let host = Rc::into_inner(host).expect("the scope held the only other reference");
    (result, host.into_inner())
}

#[cfg(not(target_arch = "wasm32"))]
fn with<R>(absent: R, f: impl FnOnce(&mut dyn Host) -> R) -> R {
    match HOST.with_borrow(Option::clone) {
        Some(host) => f(&mut *host.borrow_mut()),
        None => absent,
    }
}

/// Leaves a line in the explanation of the exchange being decided; bounded in number and length.
pub fn note(text: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::glue::bindings::pointsman::policy::log::note(text);
    #[cfg(not(target_arch = "wasm32"))]
    with((), |host| host.note(text));
}

/// Writes a line to the host's log, limited in rate and length.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    {
        use crate::glue::bindings::pointsman::policy::log as import;
        let level = match level {
            Level::Debug => import::Level::Debug,
            Level::Info => import::Level::Info,
            Level::Warn => import::Level::Warn,
            Level::Error => import::Level::Error,
        };
        import::log(level, message);
    }
    #[cfg(not(target_arch = "wasm32"))]
    with((), |host| host.log(level, message));
}

/// The texts of the request being decided; empty outside [`crate::Policy::decide`].
pub mod request {
    #[cfg(target_arch = "wasm32")]
    use crate::glue::bindings::pointsman::policy::request as import;

    /// The model as the client wrote it; "unknown" when it named none.
    pub fn model() -> String {
        #[cfg(target_arch = "wasm32")]
        return import::model();
        #[cfg(not(target_arch = "wasm32"))]
        super::with(String::new(), |host| host.model())
    }

    /// The path of the request.
    pub fn path() -> String {
        #[cfg(target_arch = "wasm32")]
        return import::path();
        #[cfg(not(target_arch = "wasm32"))]
        super::with(String::new(), |host| host.path())
    }

    /// `x-pointsman-session`.
    pub fn session() -> Option<String> {
        #[cfg(target_arch = "wasm32")]
        return import::session();
        #[cfg(not(target_arch = "wasm32"))]
        super::with(None, |host| host.session())
    }

    /// `x-pointsman-label-NAME`.
    pub fn label(name: &str) -> Option<String> {
        #[cfg(target_arch = "wasm32")]
        return import::label(name);
        #[cfg(not(target_arch = "wasm32"))]
        super::with(None, |host| host.label(name))
    }

    /// Returns the client key's spend today and its budget; nothing and no limit without a key.
    pub fn spending() -> super::Spending {
        #[cfg(target_arch = "wasm32")]
        {
            let spending = import::spending();
            super::Spending { today_microusd: spending.today_microusd, budget_microusd: spending.budget_microusd }
        }
        #[cfg(not(target_arch = "wasm32"))]
        super::with(super::Spending::default(), |host| host.spending())
    }
}

/// Small facts shared by all instances of the policy, kept when the policy is swapped.
pub mod state {
    #[cfg(target_arch = "wasm32")]
    use crate::glue::bindings::pointsman::policy::state as import;

    /// The number kept under this key.
    pub fn get(key: &str) -> Option<i64> {
        #[cfg(target_arch = "wasm32")]
        return import::get(key);
        #[cfg(not(target_arch = "wasm32"))]
        super::with(None, |host| host.state_get(key))
    }

    /// Keeps a number for `ttl_ms`; 0: until the host needs the room.
    pub fn set(key: &str, value: i64, ttl_ms: u64) {
        #[cfg(target_arch = "wasm32")]
        import::set(key, value, ttl_ms);
        #[cfg(not(target_arch = "wasm32"))]
        super::with((), |host| host.state_set(key, value, ttl_ms));
    }

    /// Adds to a number, starting from 0, and answers the sum; the expiry is set when the key is made.
    pub fn add(key: &str, delta: i64, ttl_ms: u64) -> i64 {
        #[cfg(target_arch = "wasm32")]
        return import::add(key, delta, ttl_ms);
        #[cfg(not(target_arch = "wasm32"))]
        super::with(delta, |host| host.state_add(key, delta, ttl_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Ears(Vec<String>);
    impl Host for Ears {
        fn note(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    #[test]
    fn words_go_to_the_innermost_scope_and_nowhere_without_one() {
        note("lost");
        let ((_, inner), outer) = scope(Ears::default(), || {
            note("one");
            let inner = scope(Ears::default(), || note("two"));
            note("three");
            inner
        });
        note("lost again");
        assert_eq!(outer.0, ["one", "three"]);
        assert_eq!(inner.0, ["two"]);
    }
}
