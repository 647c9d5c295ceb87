//! Policies that mean harm: whatever they do, the client is served, the operator is told, and the next good file is taken.
//!
//! `tests/hostile` says what they are. Each is asked like any policy; a request's label tells it what to do.

use std::path::{Path, PathBuf};

use http::Method;
use pointsman_tests::{Answer, Proxy, ProxyBuilder, Upstream, backend, eventually, proxy, upstream};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile").join(name)
}

fn hostile() -> Vec<u8> {
    std::fs::read(fixture("hostile.wasm")).expect("the fixture is there")
}

/// A policy that is as it should be.
fn good() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/default/default.wasm");
    std::fs::read(path).expect("the default policy is there")
}

const CONTRACT: &str = include_str!("../../../wit/policy.wit");

/// A component of the minimal module, both changed like this.
fn minimal(contract: impl Fn(&str) -> String, module: impl Fn(&str) -> String) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("policy.wit", &contract(CONTRACT)).expect("a contract");
    let world = resolve.select_world(&[package], Some("policy")).expect("a world");
    let module = module(&std::fs::read_to_string(fixture("minimal.wat")).expect("the fixture is there"));
    let mut module = wat::parse_str(module).expect("a module");
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8)
        .expect("a contract can be embedded");
    wit_component::ComponentEncoder::default().module(&module).expect("a module").encode().expect("a component")
}

fn minimal_with(more: &str) -> Vec<u8> {
    minimal(str::to_owned, |module| module.replace(";; more", more))
}

/// A proxy under the hostile policy.
struct World {
    proxy: Proxy,
    up: Upstream,
    file: PathBuf,
    _paid: Upstream,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    world_with(&[]).await
}

async fn world_with(configured: &[(&str, &str)]) -> World {
    let set = |proxy: ProxyBuilder| configured.iter().fold(proxy, |proxy, (path, value)| proxy.set(path, *value));
    world_where(set).await
}

async fn world_with_number(path: &str, number: i64) -> World {
    world_where(|proxy| proxy.set(path, number)).await
}

async fn world_where(configured: impl FnOnce(ProxyBuilder) -> ProxyBuilder) -> World {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("mine.wasm");
    std::fs::write(&file, hostile()).expect("a file");
    let (up, paid) = (upstream().start().await, upstream().start().await);
    let proxy = proxy!().backend(backend("p1").primary(&up)).backend(backend("f1").fallback(&paid));
    World { proxy: configured(proxy).policy_file(&file).start().await, up, file, _paid: paid, _dir: dir }
}

/// The store's record of an exchange.
struct Remembered {
    notes: String,
    policy_faults: u64,
}

impl World {
    async fn ask(&self, what: &str) -> Answer {
        self.proxy.chat().header("x-pointsman-label-do", what).send().await
    }

    async fn remembered(&self, answer: &Answer) -> Remembered {
        let id = answer.header("x-request-id");
        let sql = format!("SELECT notes, policy_faults FROM exchanges WHERE id = '{id}'");
        let rows = self.proxy.wait_rows(1, &sql).await;
        let notes = rows[0]["notes"].as_str().unwrap_or_default().to_owned();
        Remembered { notes, policy_faults: rows[0]["policy_faults"].as_u64().expect("a number") }
    }

    async fn faults(&self, kind: &str) -> u64 {
        let metrics = self.proxy.admin("/metrics").send().await.text();
        let name = format!("pointsman_policy_faults_total{{kind=\"{kind}\"}} ");
        metrics.lines().find_map(|l| l.strip_prefix(&name)).map_or(0, |n| n.parse().expect("a number"))
    }

    /// The request is served as the default policy would, and everybody is told of the fault.
    async fn expect_twin(&self, what: &str, kind: &str, words: &[&str]) {
        let answer = self.ask(what).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!((answer.header("x-pointsman-lane"), answer.header("x-pointsman-backend")), ("primary", "p1"));
        let remembered = self.remembered(&answer).await;
        assert_eq!(remembered.policy_faults, 1);
        for words in [&["policy fault", kind, "the default policy decided"], words].concat() {
            assert!(remembered.notes.contains(words), "{words:?} is not in {}", remembered.notes);
        }
        assert_eq!(self.faults(kind).await, 1);
        let told = self.proxy.admin("/api/policy").send().await.json();
        assert_eq!(told["faults"], 1, "{told}");
        self.proxy.wait_log("the fault", |l| (l["kind"] == kind && l["policy"].is_string()).then_some(())).await;
        self.expect_well("").await;
    }

    /// The policy decides, and well.
    async fn expect_well(&self, what: &str) -> Remembered {
        let answer = self.ask(what).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let remembered = self.remembered(&answer).await;
        assert_eq!(remembered.policy_faults, 0, "{}", remembered.notes);
        remembered
    }

    async fn put(&self, component: impl Into<bytes::Bytes>) -> Answer {
        self.proxy.admin_request(Method::PUT, "/api/policy").body("application/wasm", component).send().await
    }

    async fn revision(&self) -> String {
        self.expect_well("").await;
        self.ask("").await.header("x-pointsman-policy").to_owned()
    }

    /// The upload is refused with these words; what was in force stays, and the next good file is taken.
    async fn expect_refused(&self, component: Vec<u8>, words: &str) {
        let before = self.revision().await;
        let answer = self.put(component).await;
        let text = answer.text();
        assert!(answer.status.is_client_error(), "{} {text}", answer.status);
        assert!(text.contains(words), "{words:?} is not in {text}");
        assert!(text.len() < 4_000, "one sentence, not {} bytes", text.len());
        assert_eq!(self.revision().await, before, "the old one keeps serving");
        let told = self.proxy.admin("/api/policy").send().await.text();
        assert!(told.contains(words), "{told}");
        assert_eq!(self.put(good()).await.status, 200, "the next good file is taken");
        assert_ne!(self.ask("").await.header("x-pointsman-policy"), before);
    }

    fn resident_mib(&self) -> u64 {
        self.proxy.resident_kib() / 1_024
    }
}

macro_rules! served_by_the_twin {
    ($($name:ident: $what:literal is $kind:literal with $words:expr;)*) => {$(
        #[tokio::test]
        async fn $name() {
            world().await.expect_twin($what, $kind, &$words).await;
        }
    )*};
}

served_by_the_twin! {
    an_endless_loop: "loop" is "deadline" with ["no answer within 5 ms", "endless"];
    an_endless_loop_of_log_lines: "log-loop" is "deadline" with ["no answer within 5 ms"];
    an_endless_loop_of_state: "state-loop" is "deadline" with ["no answer within 5 ms"];
    an_endless_loop_on_stderr: "stderr-loop" is "deadline" with ["no answer within 5 ms"];
    a_trap: "trap" is "trap" with ["unreachable", "hostile_guest::act"];
    a_panic_with_a_message: "panic" is "trap" with ["the tea is cold and so is the milk", "src/lib.rs", "hostile_guest::act"];
    a_stack_overflow: "stack" is "trap" with ["in hostile_guest::overflow"];
    memory_beyond_the_cap: "memory" is "memory" with ["KiB of memory and may have 65536 KiB"];
    a_huge_note: "huge-note" is "trap" with ["it handed the host more than 131072 bytes"];
    an_invalid_backend_index: "index" is "invalid" with ["backend 4000000000", "there are only 2"];
    an_invalid_model_index: "model" is "invalid" with ["model 4000000000"];
    a_time_limit_of_nothing: "no-time" is "invalid" with ["total-ms must be 1 to"];
    a_wait_of_nothing: "wait-nothing" is "invalid" with ["0 ms"];
    a_rejection_with_a_good_status: "reject-status" is "invalid" with ["status 200"];
    a_rejection_at_length: "reject-at-length" is "invalid" with ["30001 bytes of text"];
    a_rejection_of_megabytes: "reject-huge" is "invalid" with ["its answer has more than 131072 bytes"];
    exit: "exit" is "trap" with ["the policy called exit"];
    sockets: "connect" is "trap" with ["wasi:sockets", "policies have no files and no network"];
}

#[tokio::test]
async fn where_the_operator_says_so_what_the_policy_fails_at_is_refused_and_never_sent() {
    let mut world = world_with(&[("policy.on_fault", "refuse")]).await;
    for (done, (what, kind)) in
        [("loop", "deadline"), ("panic", "trap"), ("memory", "memory"), ("index", "invalid")].into_iter().enumerate()
    {
        let answer = world.ask(what).await;
        assert_eq!(answer.status, 503, "{what}: {}", answer.text());
        assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("1", ""));
        let error = &answer.json()["error"];
        assert_eq!(error["type"], "policy_fault");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(&format!("fault: {kind}")) && message.contains("policy.on_fault"), "{message}");
        assert!(!message.contains("the tea is cold"), "what the policy says is the operator's to read: {message}");
        let remembered = world.remembered(&answer).await;
        assert_eq!(remembered.policy_faults, 1);
        assert!(remembered.notes.contains("refused, as policy.on_fault says"), "{}", remembered.notes);
        assert_eq!(world.faults(kind).await, 1);
        assert_eq!(world.up.count(), done, "only what the policy decided is sent");
        world.expect_well("").await;
    }
    world.proxy.reconfigure("policy.on_fault", "default");
    world.proxy.wait_log("the configuration", |l| (l["message"] == "configuration reloaded").then_some(())).await;
    assert_eq!(world.ask("trap").await.status, 200, "the default policy decides again");
}

#[tokio::test]
async fn a_sleep_ends_at_once_or_with_the_deadline() {
    let world = world().await;
    let answer = world.ask("sleep").await;
    assert_eq!(answer.status, 200);
    let remembered = world.remembered(&answer).await;
    // Time stands still in a decision, so whether the guest's runtime believes that it has slept is its own affair.
    assert!(remembered.policy_faults == 0 || remembered.notes.contains("(deadline)"), "{}", remembered.notes);
    world.expect_well("").await;
}

#[tokio::test]
async fn reading_finds_nothing_and_the_clock_is_the_querys() {
    let world = world().await;
    let stdin = world.expect_well("read-stdin").await.notes;
    assert!(stdin.contains("stdin: Ok(0)"), "{stdin}");
    let files = world.expect_well("read-file").await.notes;
    assert!(files.contains("passwd: Err") && files.contains("environment: []"), "{files}");
    let clock = world.expect_well("clock").await.notes;
    assert!(clock.contains("clock is the query's: true"), "{clock}");
}

#[tokio::test]
async fn memory_taken_without_end_is_taken_back() {
    let world = world().await;
    world.expect_well("").await;
    let before = world.resident_mib();
    for _ in 0..5 {
        let answer = world.ask("memory-loop").await;
        assert_eq!(answer.status, 200);
        assert_eq!(world.remembered(&answer).await.policy_faults, 1);
    }
    assert!(world.resident_mib() < before + 32, "{before} MiB before, {} MiB after", world.resident_mib());
}

#[tokio::test]
async fn memory_that_grows_by_a_page_at_each_question_is_taken_back() {
    let world = world().await;
    world.expect_well("").await;
    let before = world.resident_mib();
    for _ in 0..400 {
        // 25 MiB in all, if nobody minded.
        assert_eq!(world.ask("page").await.status, 200);
    }
    assert_eq!(world.faults("memory").await + world.faults("trap").await, 0, "growing a little is no fault");
    assert!(world.resident_mib() < before + 20, "{before} MiB before, {} MiB after", world.resident_mib());
}

#[tokio::test]
async fn a_flood_of_notes_leaves_sixteen() {
    let notes = world().await.expect_well("notes").await.notes;
    assert!(notes.contains("note 15 ") && !notes.contains("note 16 "), "{notes}");
    assert!(notes.len() < 16 * 600, "{} bytes", notes.len());
}

#[tokio::test]
async fn a_flood_of_log_lines_leaves_twenty_a_second() {
    let world = world().await;
    let began = std::time::Instant::now();
    for _ in 0..10 {
        world.expect_well("logs").await;
    }
    let seconds = began.elapsed().as_secs() as usize + 2;
    let lines: Vec<String> = world.proxy.output().into_iter().filter(|l| l.contains("blah")).collect();
    assert!(!lines.is_empty() && lines.len() <= 20 * seconds, "{} lines in {seconds} s", lines.len());
    assert!(lines.iter().all(|l| l.len() < 1_500));
    assert!(world.proxy.output().iter().any(|l| l.contains("the rest is dropped")));
}

#[tokio::test]
async fn control_characters_forge_no_log_line() {
    let world = world().await;
    world.expect_well("control-characters").await;
    let three = world
        .proxy
        .wait_log("the line", |l| l["message"].as_str().map(str::to_owned).filter(|m| m.contains("three")))
        .await;
    assert!(three.contains("four"), "it is one line: {three:?}");
    assert!(world.proxy.output().iter().all(|l| !l.contains('\u{1b}') && !l.starts_with("{\"level\":\"ERROR\"}")));
}

#[tokio::test]
async fn a_flood_of_state_stays_within_its_room() {
    let world = world().await;
    world.expect_well("").await;
    let before = world.resident_mib();
    for _ in 0..60 {
        // 30,000 keys of a quarter of a KiB; there is room for 10,000.
        assert_eq!(world.ask("state").await.status, 200);
    }
    assert!(world.resident_mib() < before + 20, "{before} MiB before, {} MiB after", world.resident_mib());
    world.expect_well("").await;
}

#[tokio::test]
async fn waiting_for_ever_ends_with_the_budget() {
    let world = world().await;
    // Everything is ready, so there is nothing to wait for: each wait is over at once, and their number is bounded.
    let answer = world.ask("wait").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(world.up.count(), 0);
    world.expect_well("").await;
}

#[tokio::test]
async fn rejecting_everything_is_what_the_client_sees() {
    let world = world_with(&[("policy.settings.always", "reject")]).await;
    for _ in 0..3 {
        let answer = world.proxy.chat().send().await;
        assert_eq!(answer.status, 429);
        assert_eq!(answer.json()["error"]["type"], "no_entry");
        assert_eq!(answer.json()["error"]["message"], "not today");
    }
    assert_eq!(world.up.count(), 0);
    // Not the default policy, which refuses settings that it does not know.
    assert_eq!(world.put(minimal_with("")).await.status, 200);
    assert_eq!(world.proxy.chat().send().await.status, 200);
}

#[tokio::test]
async fn a_rejection_adds_no_header() {
    let answer = world().await.ask("reject-header").await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("x-evil"), "");
}

#[tokio::test]
async fn deciding_randomly_ends_every_exchange() {
    let world = world().await;
    for _ in 0..60 {
        let answer = world.ask("random").await;
        let status = answer.status.as_u16();
        assert!(status == 200 || (400..600).contains(&status), "{status}");
        assert!(!answer.broken);
    }
    assert!(world.faults("invalid").await > 0);
    world.expect_well("").await;
}

#[tokio::test]
async fn fine_at_first_and_failing_at_the_second_question() {
    let world = world().await;
    let mut faults = 0;
    for _ in 0..10 {
        let answer = world.ask("second").await;
        assert_eq!(answer.status, 200);
        faults += world.remembered(&answer).await.policy_faults;
    }
    assert!((3..=7).contains(&faults), "every second one failed, not {faults} of 10");
}

#[tokio::test]
async fn quick_in_the_probe_and_slow_afterwards() {
    let world = world_with(&[("policy.settings.always", "later")]).await;
    let answers = futures_util::future::join_all((0..40).map(|_| world.proxy.chat().send())).await;
    assert!(answers.iter().all(|a| a.status == 200));
    assert!(world.faults("deadline").await > 0);
}

#[tokio::test]
async fn the_proxy_serves_on_while_a_policy_hangs_at_every_question() {
    let world = world().await;
    let began = std::time::Instant::now();
    for _ in 0..5 {
        let answers = futures_util::future::join_all((0..40).map(|_| world.ask("loop"))).await;
        assert!(answers.iter().all(|a| a.status == 200));
    }
    // Two hundred deadlines would block this machine's threads for a second and more; most are never begun.
    let all = world.proxy.wait_rows(200, "SELECT notes FROM exchanges").await;
    let ran_out = |notes: &str| notes.contains("no answer within") && !notes.contains("not asked");
    let asked = all.iter().filter(|row| row["notes"].as_str().is_some_and(ran_out)).count();
    assert!((1..100).contains(&asked), "{asked} of {}", all.len());
    // One line a second for each kind of fault (out of time, no instance free), not one for each request.
    let lines = world.proxy.output().iter().filter(|l| l.contains("the policy failed")).count() as u64;
    assert!(lines <= 2 * (began.elapsed().as_secs() + 2), "{lines} lines");
    assert_eq!(world.put(minimal_with("")).await.status, 200, "the next good file is taken");
    world.expect_well("loop").await;
}

#[tokio::test]
async fn deep_recursion_that_is_legal_is_no_fault() {
    world().await.expect_well("deep").await;
}

#[tokio::test]
async fn what_one_exchange_said_is_in_no_other() {
    let world = world().await;
    let remember = |i: usize| {
        world
            .proxy
            .chat()
            .header("x-pointsman-label-do", "remember")
            .header("x-pointsman-session", &format!("session-{i}."))
    };
    let answers = futures_util::future::join_all((0..30).map(|i| remember(i).send())).await;
    for (i, answer) in answers.iter().enumerate() {
        let notes = world.remembered(answer).await.notes;
        assert!(notes.contains(&format!("session-{i}.")), "{notes}");
        assert_eq!(notes.matches("session-").count(), 1, "{notes}");
    }
    // The memory of an instance is the policy's own: what it heard, and nothing else, is there at the next question.
    let told = world.expect_well("tell").await.notes;
    assert!(told.contains("session-"), "{told}");
    assert!(!told.contains("key-of-p1") && !told.contains("\"hi\""), "neither keys nor texts cross: {told}");
    // A fault takes the memory with it, and nobody's words into another's explanation.
    let fault = world.ask("panic").await;
    assert!(!world.remembered(&fault).await.notes.contains("session-"));
}

macro_rules! refused {
    ($($name:ident: $component:expr, $words:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            world().await.expect_refused($component, $words).await;
        }
    )*};
}

refused! {
    zero_bytes: Vec::new(), "empty";
    text: b"# Read me".to_vec(), "not WebAssembly";
    a_truncated_file: hostile()[..100_000].to_vec(), "cut off";
    a_core_module: wat::parse_str("(module)").unwrap(), "not a component";
    another_contract: minimal(|c| c.replace("@1.0.0", "@2.0.0"), |m| m.replace("@1.0.0", "@2.0.0")), "pointsman:policy/log@2.0.0";
    a_missing_export: wat::parse_str("(component)").unwrap(), "does not export `configure`";
    a_foreign_import: wat::parse_str(r#"(component (import "acme:db/query@1.0.0" (instance)))"#).unwrap(), "acme:db/query@1.0.0";
    a_start_that_loops: minimal_with("(func $s (loop $l (br $l))) (start $s)"), "failed at its start: policy fault (deadline)";
    a_start_that_traps: minimal_with("(func $s (unreachable)) (start $s)"), "failed at its start: policy fault (trap)";
    more_memory_at_the_start_than_there_may_be:
        minimal(str::to_owned, |m| m.replace("\"memory\") 2", "\"memory\") 2000")), "memory";
    three_memories: minimal_with("(memory 1) (memory 1)"), "memor";
    a_table_of_millions: minimal_with("(table 5000000 funcref)"), "table";
    too_many_functions: minimal_with(&"(func)".repeat(100_001)), "more than 100000 functions";
    a_function_that_is_too_long:
        minimal_with(&format!("(func {})", "(drop (i64.const -1))".repeat(200_000))), "bytes of code in one function";
    too_many_modules: wat::parse_str(format!("(component {})", "(core module)".repeat(33))).unwrap(), "more than 32 core modules";
}

#[tokio::test]
async fn a_name_of_a_hundred_kilobytes_is_told_in_short() {
    let name = format!("acme:{}/query", "a".repeat(90_000));
    let component = wat::parse_str(format!(r#"(component (import "{name}" (instance)))"#)).unwrap();
    world().await.expect_refused(component, "acme:aaaa").await;
}

macro_rules! refused_by_its_settings {
    ($($name:ident: $configure:literal, $words:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            let mut world = world().await;
            let before = world.revision().await;
            world.proxy.reconfigure("policy.settings.configure", $configure);
            world.proxy.sighup();
            let told = || world.proxy.output().into_iter().find(|l| l.contains("refused") && l.contains($words));
            let line = eventually("a word about the settings", told).await;
            assert!(line.len() < 5_000, "{} bytes", line.len());
            assert_eq!(world.revision().await, before);
            world.proxy.reconfigure("policy.settings.configure", "well");
            world.proxy.reconfigure("policy.settings.more", "x");
            let reloads = world.proxy.output().iter().filter(|l| l.contains("policy loaded") || l.contains("configuration reloaded")).count();
            world.proxy.sighup();
            let taken = || {
                let now = world.proxy.output().iter().filter(|l| l.contains("policy loaded") || l.contains("configuration reloaded")).count();
                (now > reloads).then_some(())
            };
            eventually("the next good settings are taken", taken).await;
            world.expect_well("").await;
        }
    )*};
}

refused_by_its_settings! {
    an_endless_loop_in_configure: "loop", "no answer within 1000 ms";
    a_trap_in_configure: "trap", "unreachable";
    a_panic_in_configure: "panic", "these settings make me ill";
    memory_beyond_the_cap_in_configure: "hoard", "in `configure`";
    a_refusal: "refuse", "`configure` says that I refuse";
    a_refusal_at_length: "refuse-at-length", "no no no";
}

#[tokio::test]
async fn a_file_of_200_mib_is_not_read() {
    let world = world().await;
    let (before, resident) = (world.revision().await, world.resident_mib());
    let beside = world.file.with_extension("new");
    std::fs::File::create(&beside).unwrap().set_len(200 << 20).unwrap();
    std::fs::rename(&beside, &world.file).unwrap();
    world.proxy.sighup();
    let told = || world.proxy.output().into_iter().find(|l| l.contains("209715200 bytes"));
    let line = eventually("a word about the size", told).await;
    assert!(line.contains("at most 67108864"), "{line}");
    assert_eq!(world.revision().await, before);
    assert!(world.resident_mib() < resident + 40, "it was not read: {resident} {}", world.resident_mib());
    std::fs::write(&beside, good()).unwrap();
    std::fs::rename(&beside, &world.file).unwrap();
    world.proxy.sighup();
    let changed = async { while world.ask("").await.header("x-pointsman-policy") == before {} };
    pointsman_tests::soon("the next good file", changed).await;
}

#[tokio::test]
async fn a_custom_section_of_60_mib_is_no_harm() {
    let world = world().await;
    let mut component = minimal_with("");
    let content = 60_u32 << 20;
    component.push(0);
    leb128(&mut component, content + 2);
    component.extend([1, b'x']);
    component.resize(component.len() + content as usize, 0);
    assert_eq!(world.put(component).await.status, 200);
    world.expect_well("").await;
}

/// A few kilobytes that take gigabytes to compile: each of many loops has a value of its own for each of many variables.
fn bomb() -> Vec<u8> {
    const MANY: usize = 1_000;
    let steps: String = (0..MANY).map(|i| format!("local.get {i} i64.const 1 i64.add local.set {i} ")).collect();
    let open = "loop ".repeat(MANY);
    let close = "local.get 0 i32.wrap_i64 br_if 0 end ".repeat(MANY);
    minimal_with(&format!("(func (local {}) {open}{steps}{close})", "i64 ".repeat(MANY)))
}

#[tokio::test]
async fn a_small_component_that_takes_gigabytes_to_compile_is_refused_and_costs_the_proxy_nothing() {
    let world = world_with_number("policy.compile_memory_mb", 256).await;
    let component = bomb();
    assert!(component.len() < 64 << 10, "{}", component.len());
    let (before, resident) = (world.revision().await, world.resident_mib());
    let answer = world.put(component.clone()).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.text().contains("takes more than 256 MiB to be compiled"), "{}", answer.text());
    assert!(world.resident_mib() < resident + 40, "{resident} {}", world.resident_mib());
    // As the watched file too.
    std::fs::write(&world.file, &component).unwrap();
    world.proxy.sighup();
    let told = || world.proxy.output().into_iter().find(|l| l.contains("mine.wasm is refused: the policy takes more"));
    eventually("the refusal of the file", told).await;
    assert_eq!(world.revision().await, before);
    assert!(world.resident_mib() < resident + 40, "{resident} {}", world.resident_mib());
    assert_eq!(world.put(good()).await.status, 200, "the next one is taken");
}

fn leb128(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
