//! A made-up `pointsman.toml`: backends, limits and client keys by chance.

use std::fmt::Write;

use crate::dice::Dice;
use pointsman_config::{self as config, Config};

/// Values of the simulated client keys.
const KEYS: [(&str, &str); 3] = [("SIMULATED_A", "a"), ("SIMULATED_B", "b"), ("SIMULATED_C", "c")];

/// The models of a made-up table.
const MODELS: [&str; 3] = ["small", "medium", "large"];

/// A configuration; read by `config` like any other, so that it has only what a file may say.
pub(super) fn config(seed: u64) -> Config {
    let mut dice = Dice::new(seed, 1);
    let text = text(&mut dice);
    config::parse(&text, "made up", &KEYS).expect("what is written here is within the bounds of `config`").config
}

fn text(dice: &mut Dice) -> String {
    let mut text = String::new();
    // Half of the worlds have the usual bounds, the others tight ones.
    if dice.one_in(2) {
        limits(dice, &mut text);
    }
    for key in KEYS.iter().take(dice.below(4) as usize) {
        client(dice, key.0, &mut text);
    }
    for number in 0..dice.between(2, 8) {
        backend(dice, number, &mut text);
    }
    text
}

/// Writing to a `String` cannot fail.
macro_rules! put {
    ($text:expr, $($line:tt)*) => { writeln!($text, $($line)*).expect("a String takes all") };
}

fn limits(dice: &mut Dice, text: &mut String) {
    put!(text, "[limits]\nmax_attempts = {}\nmax_waits = {}", dice.between(1, 8), dice.below(6));
    put!(text, "max_wait_ms = {}", dice.magnitude(10.0, 60_000.0) as u64);
    put!(text, "max_exchange_ms = {}", dice.magnitude(1_000.0, 300_000.0) as u64);
    put!(text, "queue_length = {}", dice.between(1, 60));
    let base = dice.magnitude(20.0, 5_000.0) as u64;
    put!(text, "[cooldown]\nbase_ms = {base}\nmax_ms = {}", base * dice.between(1, 60));
    put!(text, "[policy.settings]\nemergency_rpm_fraction = {:.2}", dice.unit());
}

fn client(dice: &mut Dice, key: &str, text: &mut String) {
    put!(text, "[[client]]\nname = \"of-{key}\"\nkey = \"env:{key}\"");
    if dice.one_in(2) {
        put!(text, "budget_usd_per_day = {:.3}", dice.magnitude(0.01, 10.0));
    }
    if dice.one_in(2) {
        put!(text, "rpm = {}", dice.magnitude(10.0, 3_000.0) as u64);
    }
    if dice.one_in(3) {
        put!(text, "tpm = {}", dice.magnitude(10_000.0, 1_000_000.0) as u64);
    }
    if dice.one_in(3) {
        put!(text, "max_concurrency = {}", dice.between(1, 30));
    }
}

fn backend(dice: &mut Dice, number: u64, text: &mut String) {
    let tier = if number == 0 || !dice.one_in(3) { "primary" } else { "fallback" };
    put!(text, "[[backend]]\nid = \"{tier}-{number}\"\nbase_url = \"http://127.0.0.1/v1\"\ntier = \"{tier}\"");
    // The first serves all, so that nothing is asked in vain.
    let models: Vec<&str> = MODELS.into_iter().filter(|_| number == 0 || !dice.one_in(3)).collect();
    put!(text, "models = {:?}", if models.is_empty() { &MODELS[..1] } else { &models });
    put!(text, "weight = {}", dice.between(1, 5));
    if !dice.one_in(3) {
        put!(text, "rpm = {}", dice.magnitude(1.0, 6_000.0) as u64);
    }
    if dice.one_in(3) {
        put!(text, "tpm = {}", dice.magnitude(10_000.0, 2_000_000.0) as u64);
    }
    if dice.one_in(2) {
        put!(text, "max_concurrency = {}", dice.magnitude(1.0, 64.0) as u64);
    }
    if dice.one_in(4) {
        put!(text, "capabilities = {{ prefill = true }}");
    }
    let scale = if dice.one_in(2) { 1.0 } else { dice.magnitude(0.02, 1.0) };
    let ms = |usual: f64| (usual * scale).max(1.0) as u64;
    put!(
        text,
        "timeouts = {{ connect_ms = {}, first_byte_ms = {}, first_token_ms = {}, idle_ms = {}, total_ms = {} }}",
        ms(3_000.0),
        ms(30_000.0),
        ms(12_000.0),
        ms(15_000.0),
        ms(600_000.0)
    );
    for model in MODELS {
        let price = dice.magnitude(0.05, 20.0);
        put!(text, "[backend.price.{model}]\ninput_per_mtok = {price:.3}\noutput_per_mtok = {:.3}", price * 4.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_a_configuration_and_always_the_same() {
        let revisions: Vec<_> = (0..300).map(|seed| config(seed).revision).collect();
        assert_eq!(revisions[7], config(7).revision);
        assert_ne!(revisions[7], revisions[8]);
    }
}
