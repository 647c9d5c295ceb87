//! A policy that does what each request tells it to, by `x-pointsman-label-do`, and `configure` by the setting `do`.
//! Without one it sends to the first backend that is ready. Needs no SDK, so that only the contract changes its bytes.

// What the macro makes of the contract is not ours to document.
#[allow(missing_docs, clippy::all)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "policy" });
}

use std::cell::{Cell, RefCell};
use std::hint::black_box;

use bindings::pointsman::policy::types::{Decision, Dispatch, Hold, Lane, Query, Rejection, Table};
use bindings::pointsman::policy::{log, request, state};
use bindings::{Guest, export};

struct Hostile;

export!(Hostile with_types_in bindings);

thread_local! {
    /// Behaviour of every decision, by the operator's settings.
    static ALWAYS: RefCell<String> = const { RefCell::new(String::new()) };
    static QUESTIONS: Cell<u64> = const { Cell::new(0) };
    static HOARD: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    /// Text remembered from an earlier request.
    static SECRET: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Guest for Hostile {
    fn configure(settings: String, _: Table) -> Result<(), String> {
        let setting = |name: &str| {
            let after = settings.split_once(&format!("\"{name}\":\""))?.1;
            Some(after.split_once('"')?.0.to_owned())
        };
        ALWAYS.set(setting("always").unwrap_or_default());
        match setting("configure").unwrap_or_default().as_str() {
            "loop" => endless(),
            "trap" => core::arch::wasm32::unreachable(),
            "panic" => panic!("these settings make me ill"),
            "refuse" => Err("`configure` says that I refuse".to_owned()),
            "refuse-at-length" => Err("no ".repeat(30_000)),
            "hoard" => {
                hoard(1 << 30);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn decide(query: Query) -> Decision {
        let questions = QUESTIONS.get() + 1;
        QUESTIONS.set(questions);
        let told = request::label("do").unwrap_or_default();
        let what = if told.is_empty() { ALWAYS.with_borrow(Clone::clone) } else { told };
        act(&what, questions, &query)
    }
}

fn act(what: &str, questions: u64, query: &Query) -> Decision {
    match what {
        "loop" => endless(),
        "trap" => core::arch::wasm32::unreachable(),
        "panic" => panic!("the tea is cold\nand so is the milk"),
        "stack" => wait(u32::from(overflow(&[0; 256]) > 0) + 1),
        "deep" if descend(2_000) > 0 => first(),
        "memory" => wait(black_box(Vec::<u8>::with_capacity(1 << 30)).capacity() as u32),
        "page" => {
            hoard(64 << 10);
            first()
        }
        "memory-loop" => loop {
            hoard(64 << 10);
        },
        "notes" => {
            (0..200).for_each(|i| log::note(&format!("note {i} {}", "blah ".repeat(200))));
            first()
        }
        "logs" => {
            (0..200).for_each(|i| log::log(log::Level::Warn, &format!("line {i} {}", "blah ".repeat(400))));
            first()
        }
        "log-loop" => loop {
            log::log(log::Level::Warn, "again");
        },
        "huge-note" => {
            log::note(&"n".repeat(200_000));
            first()
        }
        "control-characters" => {
            log::note("one\n{\"level\":\"ERROR\"}\u{1b}[2J\u{0}two");
            log::log(log::Level::Warn, "three\n{\"level\":\"ERROR\"}\u{1b}[2J\u{0}four");
            first()
        }
        "state" => {
            for i in 0..500 {
                state::set(&format!("{questions}-{i}-{}", "k".repeat(240)), i, 0);
            }
            first()
        }
        "state-loop" => loop {
            state::add("again", 1, 0);
        },
        "stderr-loop" => loop {
            eprintln!("again");
        },
        "index" => Decision::Primary(Dispatch { backend: Some(4_000_000_000), ..anywhere() }),
        "model" => Decision::Primary(Dispatch { model: Some(4_000_000_000), ..anywhere() }),
        "no-time" => Decision::Primary(Dispatch { total_ms: Some(0), ..anywhere() }),
        "wait" => wait(u32::MAX),
        "wait-nothing" => wait(0),
        "reject" => reject("no_entry", "not today"),
        "reject-status" => Decision::Reject(Rejection { status: 200, ..rejection("x", "y") }),
        "reject-at-length" => reject("x", &"no ".repeat(10_000)),
        "reject-huge" => reject("x", &"no ".repeat(100_000)),
        "reject-header" => reject("x\r\nx-evil: 1", "y\r\nx-evil: 1"),
        "random" => random(query.seed),
        "second" if questions % 2 == 0 => panic!("twice is too often"),
        "later" if questions > 4 => endless(),
        "exit" => std::process::exit(3),
        "sleep" => {
            std::thread::sleep(std::time::Duration::from_secs(3_600));
            first()
        }
        "read-stdin" => {
            let read = std::io::Read::read(&mut std::io::stdin(), &mut [0; 64]);
            log::note(&format!("stdin: {read:?}"));
            first()
        }
        "read-file" => {
            log::note(&format!("passwd: {:?}", std::fs::read_to_string("/etc/passwd")));
            log::note(&format!("environment: {:?}", std::env::vars().collect::<Vec<_>>()));
            first()
        }
        "connect" => {
            log::note(&format!("connect: {:?}", std::net::TcpStream::connect("127.0.0.1:22").err()));
            first()
        }
        "clock" => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map(|d| d.as_millis() as u64);
            log::note(&format!("clock is the query's: {}", now.ok() == Some(query.now_ms)));
            first()
        }
        "remember" => {
            let heard = format!("{:?} {} {}", request::session(), request::path(), request::model());
            log::note(&format!("remembered {heard}"));
            SECRET.set(heard);
            first()
        }
        "tell" => {
            log::note(&format!("told {}", SECRET.with_borrow(Clone::clone)));
            first()
        }
        _ => first(),
    }
}

#[inline(never)]
fn endless() -> ! {
    let mut n: u64 = 0;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

#[inline(never)]
#[allow(unconditional_recursion)]
fn overflow(above: &[u8; 256]) -> u32 {
    let mut mine = [above[0].wrapping_add(1); 256];
    black_box(&mut mine);
    overflow(&mine).wrapping_add(u32::from(mine[7]))
}

#[inline(never)]
fn descend(left: u32) -> u32 {
    if left == 0 { 1 } else { black_box(descend(black_box(left) - 1)) }
}

/// Takes so many bytes and keeps them.
fn hoard(bytes: usize) -> u32 {
    let step = 64 << 10;
    for _ in 0..bytes.div_ceil(step) {
        HOARD.with_borrow_mut(|all| all.push(vec![1; step]));
    }
    HOARD.with_borrow(|all| all.len() as u32)
}

fn anywhere() -> Dispatch {
    Dispatch {
        backend: None,
        model: None,
        first_byte_ms: None,
        first_token_ms: None,
        idle_ms: None,
        total_ms: None,
        commit: None,
        resume: None,
    }
}

/// The least that is right: any primary.
fn first() -> Decision {
    Decision::Primary(anywhere())
}

fn wait(max_ms: u32) -> Decision {
    Decision::Wait(Hold { max_ms, lane: Lane::Primary })
}

fn rejection(kind: &str, message: &str) -> Rejection {
    Rejection { status: 429, kind: kind.to_owned(), message: message.to_owned(), retry_after_ms: None }
}

fn reject(kind: &str, message: &str) -> Decision {
    Decision::Reject(rejection(kind, message))
}

/// Any decision, valid or not.
fn random(seed: u64) -> Decision {
    let number = (seed >> 8) as u32;
    let backend = if number % 3 == 0 { None } else { Some(number % 7) };
    let dispatch = Dispatch { backend, total_ms: (number % 5 == 0).then_some(number % 3), ..anywhere() };
    match seed % 5 {
        0 => Decision::Primary(dispatch),
        1 => Decision::Fallback(dispatch),
        2 => Decision::Emergency(dispatch),
        3 => wait(number % 20),
        _ => Decision::Reject(Rejection { status: 400 + (number % 300) as u16, ..rejection("random", "bad luck") }),
    }
}
