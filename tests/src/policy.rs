//! Small policies built for a test, each a component of a few KiB.

const CONTRACT: &str = include_str!("../../wit/policy.wit");

/// Common part of every handmade policy; its answer is at address 1024, a decision's case at 0 and its payload from 4
/// on.
const MODULE: &str = r#"(module
    (import "pointsman:policy/state@1.0.0" "get" (func $state_get (param i32 i32 i32)))
    (import "pointsman:policy/state@1.0.0" "set" (func $state_set (param i32 i32 i64 i64)))
    (import "pointsman:policy/state@1.0.0" "add" (func $state_add (param i32 i32 i64 i64) (result i64)))
    (import "pointsman:policy/log@1.0.0" "note" (func $note (param i32 i32)))
    (memory (export "memory") 2)
    (global $free (mut i32) (i32.const 65536))
    (global $asked (mut i32) (i32.const 0))
    ;; A text for notes and keys.
    (data (i32.const 768) "turn")
    ;; What is no part of the name of a setting.
    (data (i32.const 832) "{unknown}")
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        ;; Bump, aligned to 8; starts over for every decision.
        (local $at i32)
        (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
        (global.set $free (i32.add (local.get $at) (local.get 3)))
        (local.get $at))
    (func (export "configure") (param $settings i32) (param $settings_len i32)
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
        (local $end i32) (local $at i32)
        {configure}
        (i32.const 256))
    (func (export "decide") (param i64 i64) (param $model i32) (param i32 i32 i32 i32) (param $prompt i32)
        (param i32 i64 i32 i32) (param i32) (param i32 i32) (result i32)
        (global.set $free (i32.const 65536))
        (global.set $asked (i32.add (global.get $asked) (i32.const 1)))
        ;; Nothing of the last answer is in this one.
        (memory.fill (i32.const 1024) (i32.const 0) (i32.const 128))
        {decide}
        (i32.const 1024))
)"#;

/// A policy written in the text format of WebAssembly.
#[derive(Clone, Debug, Default)]
pub struct WatPolicy {
    configure: String,
    unknown: String,
    decide: String,
}

/// A policy that sends everything to the backend of this index in the table, as a primary.
pub fn sends_to(backend: u32) -> WatPolicy {
    WatPolicy::default().then(&dispatch(0, &format!("(i32.const {backend})")))
}

/// Its answer: to this backend, as this lane's case (0 primary, 1 fallback, 2 emergency).
fn dispatch(case: u32, backend: &str) -> String {
    format!(
        "(i32.store8 (i32.const 1024) (i32.const {case})) (i32.store8 (i32.const 1028) (i32.const 1))
        (i32.store (i32.const 1032) {backend})"
    )
}

/// A policy that sends to the first `backends` in turns, which it counts in `state`, and notes that it does.
pub fn takes_turns(backends: u32) -> WatPolicy {
    let turn = format!(
        "(i32.wrap_i64 (i64.rem_u (call $state_add (i32.const 768) (i32.const 4) (i64.const 1) (i64.const 0)) (i64.const {backends})))"
    );
    WatPolicy::default().then("(call $note (i32.const 768) (i32.const 4))").then(&dispatch(0, &turn))
}

/// The same, but it counts in its memory, which an instance does not share and may lose.
pub fn takes_turns_in_memory(backends: u32) -> WatPolicy {
    let turn = format!("(i32.rem_u (global.get $asked) (i32.const {backends}))");
    WatPolicy::default().then(&dispatch(0, &turn))
}

impl WatPolicy {
    /// Answers this when it is asked for the model of this index, and else what it does.
    pub fn for_model(self, model: u32, answer: &str) -> Self {
        self.then(&format!("(if (i32.eq (local.get $model) (i32.const {model})) (then {answer}))"))
    }

    /// Adds a step before the answer.
    pub fn then(mut self, decide: &str) -> Self {
        self.decide += decide;
        self
    }

    /// Traps at every question but the host's probes, which are of 1000 prompt tokens.
    pub fn faulty(self) -> Self {
        self.then("(if (i32.ne (local.get $prompt) (i32.const 1000)) (then unreachable))")
    }

    /// Traps when it is asked for the model of this index, and else does what it does.
    pub fn faulty_for_model(self, model: u32) -> Self {
        self.for_model(model, "unreachable")
    }

    /// Refuses settings of fewer bytes, as JSON, with the word "more".
    pub fn wants_settings_of(mut self, bytes: u32) -> Self {
        // At 256: a result, its case at 0 (1: an error), then a string of 4 bytes at 512.
        self.configure += &format!(
            "(if (i32.lt_u (local.get $settings_len) (i32.const {bytes})) (then
                (i32.store8 (i32.const 256) (i32.const 1)) (i32.store (i32.const 512) (i32.const 0x65726f6d))
                (i32.store (i32.const 260) (i32.const 512)) (i32.store (i32.const 264) (i32.const 4))))"
        );
        self
    }

    /// Rejects settings with this in their name, with the word "what".
    pub fn knows_no(mut self, part: &str) -> Self {
        assert!(part.len() <= 64, "there is no room for more");
        self.unknown = part.to_owned();
        let length = part.len();
        // The part lies at 832, the word at 520; every place of the settings is compared with the part.
        self.configure += &format!(
            "(local.set $end (i32.sub (i32.add (local.get $settings) (local.get $settings_len)) (i32.const {length})))
            (block $done (loop $next
                (br_if $done (i32.gt_s (local.get $settings) (local.get $end)))
                (local.set $at (i32.const 0))
                (block $other (loop $same
                    (br_if $other (i32.ne (i32.load8_u (i32.add (local.get $settings) (local.get $at)))
                        (i32.load8_u (i32.add (i32.const 832) (local.get $at)))))
                    (local.set $at (i32.add (local.get $at) (i32.const 1)))
                    (br_if $same (i32.lt_u (local.get $at) (i32.const {length})))
                    (i32.store8 (i32.const 256) (i32.const 1)) (i32.store (i32.const 520) (i32.const 0x74616877))
                    (i32.store (i32.const 260) (i32.const 520)) (i32.store (i32.const 264) (i32.const 4))
                    (br $done)))
                (local.set $settings (i32.add (local.get $settings) (i32.const 1)))
                (br $next)))"
        );
        self
    }

    /// The component.
    pub fn build(&self) -> Vec<u8> {
        let module = MODULE.replace("{configure}", &self.configure).replace("{decide}", &self.decide);
        let module = module.replace("{unknown}", &self.unknown);
        let mut resolve = wit_parser::Resolve::default();
        let package = resolve.push_str("policy.wit", CONTRACT).expect("the contract is sound");
        let world = resolve.select_world(&[package], Some("policy")).expect("the contract has a policy");
        let mut module = wat::parse_str(module).expect("the text is WebAssembly");
        let encoding = wit_component::StringEncoding::UTF8;
        wit_component::embed_component_metadata(&mut module, &resolve, world, encoding).expect("the module takes it");
        let mut encoder = wit_component::ComponentEncoder::default();
        encoder.module(&module).expect("it is a module").validate(true).encode().expect("it fits the contract")
    }
}

/// The name that a component of these bytes has as a revision.
pub fn revision_of(component: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(component).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
