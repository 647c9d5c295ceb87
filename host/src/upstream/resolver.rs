//! Names of upstreams, looked up by the system on threads of their own.
//!
//! A name server that is silent holds a look-up for up to half a minute, and nothing can interrupt it. On the runtime's
//! blocking threads it would stand in line with files and the end of the process, and they with it. Here a name is looked up
//! once at a time, however many connections wait for it, so that one name that hangs holds one thread.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::oneshot;
use tower_service::Service;

/// Names that are looked up at a time; others wait. All of them are of the configuration.
const MAX_THREADS: usize = 16;

/// Looks up the addresses of a name; blocks.
type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The addresses of a name, or the kind and message of the error.
type Answer = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;

/// Looks up names; cheap to clone.
#[derive(Clone)]
pub(super) struct Resolver(Arc<Names>);

struct Names {
    look_up: Box<LookUp>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those who wait, by name.
    waiting: HashMap<Box<str>, Vec<oneshot::Sender<Answer>>>,
    /// Names that no thread has taken yet.
    queue: VecDeque<Box<str>>,
    threads: usize,
}

impl Resolver {
    /// The system's names.
    pub(super) fn of_the_system() -> Self {
        // The port is the caller's.
        Self::new(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    fn new(look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Names { look_up: Box::new(look_up), state: Mutex::default() }))
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        let answer = self.ask(name)?;
        match answer.await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err((kind, message))) => Err(io::Error::new(kind, message)),
            Err(_never_answered) => Err(io::Error::other("the look-up of the name failed")),
        }
    }

    fn ask(&self, name: &str) -> io::Result<oneshot::Receiver<Answer>> {
        let (reply, answer) = oneshot::channel();
        let mut state = self.0.state();
        if let Some(waiting) = state.waiting.get_mut(name) {
            // Those who gave up make room.
            waiting.retain(|reply| !reply.is_closed());
            waiting.push(reply);
            return Ok(answer);
        }
        state.waiting.insert(name.into(), vec![reply]);
        state.queue.push_back(name.into());
        if state.threads < MAX_THREADS {
            let names = self.0.clone();
            let started = thread::Builder::new().name("names".to_owned()).spawn(move || names.run());
            match started {
                Ok(_) => state.threads += 1,
                // Another one takes it.
                Err(_) if state.threads > 0 => {}
                Err(error) => {
                    state.queue.pop_back();
                    state.waiting.remove(name);
                    return Err(error);
                }
            }
        }
        Ok(answer)
    }
}

impl Names {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up what waits, and ends.
    fn run(&self) {
        loop {
            let name = {
                let mut state = self.state();
                let Some(name) = state.queue.pop_front() else {
                    state.threads -= 1;
                    return;
                };
                name
            };
            let answer = (self.look_up)(&name).map_err(|error| (error.kind(), error.to_string()));
            for waiting in self.state().waiting.remove(&name).unwrap_or_default() {
                // It may have given up.
                let _ = waiting.send(answer.clone());
            }
        }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move { resolver.resolve(name.as_str()).await.map(Vec::into_iter) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, mpsc};

    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 0))
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_who_wait_and_again_for_the_next() {
        let looked_up = Arc::new(AtomicUsize::new(0));
        let (release, gate) = mpsc::channel::<()>();
        let (count, gate) = (looked_up.clone(), Mutex::new(gate));
        let resolver = Resolver::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            gate.lock().unwrap().recv().unwrap();
            Ok(vec![address(1)])
        });
        let all: Vec<_> = (0..50).map(|_| resolver.ask("a.example").unwrap()).collect();
        release.send(()).unwrap();
        for one in all {
            assert_eq!(one.await.unwrap().unwrap(), [address(1)]);
        }
        release.send(()).unwrap();
        assert_eq!(resolver.resolve("a.example").await.unwrap(), [address(1)]);
        assert_eq!(looked_up.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn names_that_hang_hold_their_own_threads_and_never_more() {
        let hanging = Arc::new((Mutex::new(true), Condvar::new()));
        let held = hanging.clone();
        let resolver = Resolver::new(move |name| {
            if name.starts_with("hangs") {
                drop(held.1.wait_while(held.0.lock().unwrap(), |hangs| *hangs).unwrap());
            }
            Ok(vec![address(2)])
        });
        let hung: Vec<_> = (0..MAX_THREADS - 1).map(|n| resolver.ask(&format!("hangs-{n}.example")).unwrap()).collect();
        assert_eq!(resolver.resolve("well.example").await.unwrap(), [address(2)]);
        let more: Vec<_> =
            (0..2 * MAX_THREADS).map(|n| resolver.ask(&format!("hangs-too-{n}.example")).unwrap()).collect();
        assert!(resolver.0.state().threads <= MAX_THREADS);
        *hanging.0.lock().unwrap() = false;
        hanging.1.notify_all();
        for answer in hung.into_iter().chain(more) {
            assert_eq!(answer.await.unwrap().unwrap(), [address(2)]);
        }
    }

    #[tokio::test]
    async fn an_error_keeps_its_kind() {
        let resolver = Resolver::new(|name| Err(io::Error::new(io::ErrorKind::NotFound, format!("{name} is nobody"))));
        let error = resolver.resolve("x.example").await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::NotFound, "x.example is nobody"));
        assert!(Resolver::of_the_system().resolve("localhost").await.unwrap().iter().all(|one| one.ip().is_loopback()));
    }
}
