//! `pointsman demo`: the whole proxy before simulated providers that rate-limit, fail, are slow and cut streams, and a
//! little load, so that one command shows every decision and what waiting saves. No key, no file, no network beyond loopback.

mod answer;
mod load;
mod providers;
mod screen;
mod totals;

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use pointsman_config::{self as config, Config};
use pointsman_core::table::Tier;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use load::{Until, Waves};
use providers::{Profile, Provider, ProviderCounts, Quota, Storm};
use screen::{Screen, View};
use totals::{Prices, Totals};

use crate::admin::Explain;
use crate::serve::{self, Start, Stopping};
use crate::telemetry::logs::ExchangeLog;

/// The model that the demo's clients ask for; any other is served too.
pub const MODEL: &str = "llama-70b";

/// The load ends so long before the demo, so that the answers under way are counted; of a short demo, a quarter before.
const TAIL: Duration = Duration::from_secs(3);

/// Samples on their way to the screen.
const SAMPLE_BACKLOG: usize = 1_024;

/// The same demo every time.
const SEED: u64 = 7;

/// Arguments of `pointsman demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Duration: 45s, 2m, or 0 to run until Ctrl-C.
    #[arg(long = "for", value_name = "TIME", default_value = "45s", value_parser = time)]
    pub limit: Duration,
    /// Listen on this port of 127.0.0.1, and keep listening after the load, so that you can point an SDK at it.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

/// A running proxy, as the demo needs it.
pub struct Proxy {
    /// Address of the clients' listener.
    pub addr: SocketAddr,
    /// Address of the operator's listener.
    pub admin_addr: SocketAddr,
    /// Future that stops the proxy when awaited.
    pub stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Runs the demo on standard output, with the proxy of this package; `explain` tells its exchanges to the console.
pub async fn run(args: &DemoArgs, explain: Explain) -> anyhow::Result<()> {
    run_with(args, |config| start_proxy(config, explain)).await
}

/// Runs the demo on standard output; `start` is given its configuration and starts the proxy.
pub async fn run_with<S, F>(args: &DemoArgs, start: S) -> anyhow::Result<()>
where
    S: FnOnce(Config) -> F,
    F: Future<Output = anyhow::Result<Proxy>>,
{
    let stdout = io::stdout();
    let live = stdout.is_terminal();
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let stop = async {
        // Without signals there is still --for.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    match show(args, start, Screen::new(stdout, live, colour), stop).await {
        // A reader that has had enough (`| head`) is no failure.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            Ok(())
        }
        shown => shown,
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// In each calm, when the surge's line is served. While its Retry-After is longer than a request may wait, every lane is closed
/// but the emergency lane, whose rate is enough for the calm.
const STORM: Storm = Storm {
    first: Duration::from_secs(6),
    lasts: Duration::from_millis(900),
    every: Duration::from_secs(12),
    retry_after: Duration::from_secs(4),
};

/// Free keys answer 12 requests in 4 seconds; the waves below ask for more than all of them, and then for less.
const fn free(id: &'static str, says_when: bool, manner: &'static str) -> Profile {
    Profile {
        id,
        tier: Tier::Primary,
        quota: Some(Quota { requests: 12, per: Duration::from_secs(4), says_when }),
        storm: Some(STORM),
        breaks_every: 0,
        cuts_every: 0,
        first_token: Duration::from_millis(120),
        between_events: Duration::from_millis(12),
        manner,
    }
}

const LINEUP: [Profile; 6] = [
    free("nvidia-1", true, "429s say when to retry"),
    free("nvidia-2", false, "429s say nothing"),
    Profile { breaks_every: 7, ..free("nvidia-3", true, "breaks now and then") },
    Profile { first_token: SECOND, between_events: Duration::from_millis(30), ..free("nvidia-4", true, "slow") },
    Profile { cuts_every: 4, ..free("nvidia-5", true, "cuts streams off") },
    Profile { tier: Tier::Fallback, quota: None, ..free("paid-1", false, "$2.50 in, $10.00 out per million tokens") },
];

const WAVES: Waves = Waves {
    surge_per_second: 32,
    surge: Duration::from_millis(2_500),
    calm_per_second: 4,
    calm: Duration::from_millis(9_500),
};

/// A real configuration: the same text would do in a file. A stream that is cut in its middle
/// ([`providers::EVENTS_BEFORE_A_CUT`]) is resumed by another provider (`stream.resume`, by default a splice).
fn config_text(providers: &[Provider], port: u16) -> String {
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\ndrain_timeout_ms = 500\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = \":memory:\"\n\
         [log]\nlevel = \"error\"\nexchanges = false\n[cooldown]\nbase_ms = 1000\nmax_ms = 4000\n\
         [policy.settings]\nprimary_wait_ms = 1000\nprimary_wait_max_retries = 2\nemergency_rpm_fraction = 1.0\n"
    );
    for provider in providers {
        let Profile { id, tier, .. } = provider.profile();
        let tier = tier.as_str();
        let base_url = provider.base_url();
        text.push_str(&format!(
            "\n[[backend]]\nid = \"{id}\"\ntier = \"{tier}\"\nbase_url = \"{base_url}\"\n\
             models = {{ \"{MODEL}\" = \"meta/{MODEL}\", \"*\" = \"*\" }}\n"
        ));
        if provider.profile().tier == Tier::Fallback {
            text.push_str("[backend.price.\"*\"]\ninput_per_mtok = 2.50\noutput_per_mtok = 10.00\n");
        }
    }
    text
}

async fn show<W, S, F>(
    args: &DemoArgs,
    start: S,
    mut screen: Screen<W>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()>
where
    W: Write,
    S: FnOnce(Config) -> F,
    F: Future<Output = anyhow::Result<Proxy>>,
{
    let mut providers = Vec::new();
    for (place, profile) in LINEUP.into_iter().enumerate() {
        providers.push(Provider::start(profile, SEED + place as u64).await.context("cannot listen on 127.0.0.1")?);
    }
    let config = config::parse(&config_text(&providers, args.port.unwrap_or(0)), "(demo)", &[])?.config;
    let prices = Prices::of(&config, MODEL);
    let proxy = start(config).await?;
    let url = format!("http://{}/v1", proxy.addr);
    let stage =
        Stage { url: &url, providers: &providers, prices, limit: Some(args.limit).filter(|limit| !limit.is_zero()) };

    screen.say(&format!("Console: http://{}/  every request, and why it went where it went", proxy.admin_addr))?;
    tokio::pin!(stop);
    let stopped = stage.play(&mut screen, stop.as_mut()).await?;
    if args.port.is_some() && !stopped {
        screen.say(&format!(
            "Still listening: point an OpenAI SDK at {url} (any key, any model; console at http://{}/).",
            proxy.admin_addr
        ))?;
        screen.say("Ctrl-C ends it.")?;
        stop.await;
    } else {
        screen.say("")?;
        screen.say("Point an SDK at it:       pointsman demo --port 8080")?;
        screen.say("With a key of your own:   NVIDIA_API_KEY=nvapi-... pointsman serve")?;
    }
    proxy.stop.await;
    Ok(())
}

/// Everything between the start and the end of the load.
struct Stage<'a> {
    url: &'a str,
    providers: &'a [Provider],
    prices: Prices,
    limit: Option<Duration>,
}

impl Stage<'_> {
    /// Runs the load and shows it; true when it was stopped from outside.
    async fn play<W: Write>(
        &self,
        screen: &mut Screen<W>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> anyhow::Result<bool> {
        let (sender, mut samples) = mpsc::channel(SAMPLE_BACKLOG);
        let until = self.limit.map_or(Until::Stopped, |limit| Until::Time(limit - TAIL.min(limit / 4)));
        let load = load::run(load::client()?, self.url.to_owned(), WAVES, until, SEED, sender);
        let load = tokio::spawn(load);
        let started = crate::timer::now();
        let end = self.limit.map(|limit| started + limit);
        let over = async move {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        let mut ticks = interval(screen.period());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tally = Totals::default();
        let stopped = loop {
            tokio::select! {
                sample = samples.recv() => match sample {
                    Some(sample) => tally.add(&sample, &self.prices),
                    None => break false,
                },
                _ = ticks.tick() => self.view(started, &tally, |view| screen.draw(view))?,
                () = &mut over => break false,
                () = &mut stop => break true,
            }
        };
        load.abort();
        self.view(started, &tally, |view| screen.finish(view))?;
        Ok(stopped)
    }

    fn view<T>(&self, started: Instant, tally: &Totals, show: impl FnOnce(&View<'_>) -> T) -> T {
        let providers: Vec<(Profile, ProviderCounts)> =
            self.providers.iter().map(|p| (*p.profile(), p.seen())).collect();
        show(&View { elapsed: started.elapsed(), limit: self.limit, url: self.url, providers: &providers, tally })
    }
}

/// The real proxy with this configuration.
async fn start_proxy(config: Config, explain: Explain) -> anyhow::Result<Proxy> {
    let running = serve::start(Start { config, config_file: None, log: ExchangeLog::silent(), explain }).await?;
    let (addr, admin_addr) = (running.addr, running.admin_addr);
    Ok(Proxy { addr, admin_addr, stop: Box::pin(async move { drop(running.shutdown(&Stopping::default()).await) }) })
}

/// Reads `45s`, `2m`, `500ms`, or plain seconds.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let wrong = || format!("`{text}` is not a time: write 45s, 2m or 0");
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A screen whose text can be read afterwards.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// In the proxy's place: straight to the paid provider.
    async fn straight_to_paid(config: Config) -> anyhow::Result<Proxy> {
        let paid = config.backends.last().unwrap().base_url.authority().unwrap().as_str().parse()?;
        Ok(Proxy { addr: paid, admin_addr: paid, stop: Box::pin(async {}) })
    }

    fn args(limit_ms: u64) -> DemoArgs {
        DemoArgs { limit: Duration::from_millis(limit_ms), port: None }
    }

    #[tokio::test]
    async fn the_demo_plays_to_its_end_and_says_what_it_came_to() {
        let paper = Paper::default();
        let screen = Screen::new(paper.clone(), false, false);
        show(&args(100), straight_to_paid, screen, std::future::pending()).await.unwrap();
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("the clients saw no error.") && text.contains("pointsman serve"), "{text}");
        assert!(text.trim_start().starts_with("Console: http://127.0.0.1:"), "{text}");
        let paid = text.lines().rfind(|line| line.starts_with(" paid-1")).unwrap();
        let counts: Vec<u64> = paid.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert!(counts[0] >= 2 && counts[0] == counts[1], "{paid}");
    }

    #[tokio::test]
    async fn it_ends_when_it_is_stopped() {
        let screen = Screen::new(Paper::default(), true, true);
        show(&args(0), straight_to_paid, screen, std::future::ready(())).await.unwrap();
    }

    #[tokio::test]
    async fn its_configuration_is_a_real_one_and_only_the_fallback_costs() {
        let mut providers = Vec::new();
        for profile in LINEUP {
            providers.push(Provider::start(profile, 0).await.unwrap());
        }
        let loaded = config::parse(&config_text(&providers, 0), "(demo)", &[]).unwrap();
        let settings = &loaded.config.policy.settings;
        let most_ms =
            settings["primary_wait_ms"].as_u64().unwrap() * settings["primary_wait_max_retries"].as_u64().unwrap();
        assert!(u128::from(most_ms) < (STORM.retry_after - STORM.lasts).as_millis(), "a storm outlasts every wait");
        assert_eq!((loaded.warnings.len(), loaded.config.backends.len()), (0, LINEUP.len()));
        for one in &loaded.config.backends {
            let price = one.backend.price("any").map_or(0.0, |price| price.output_per_mtok);
            assert_eq!(price > 0.0, one.backend.tier == Tier::Fallback);
            assert_eq!(one.backend.sent_model("gpt-5").as_deref(), Some("gpt-5"));
        }
    }

    #[test]
    fn the_free_providers_carry_the_mean_load_and_not_the_surge() {
        let free: f64 =
            LINEUP.iter().filter_map(|p| p.quota).map(|q| f64::from(q.requests) / q.per.as_secs_f64()).sum();
        let Waves { surge_per_second, surge, calm_per_second, calm } = WAVES;
        let (surge_s, calm_s) = (surge.as_secs_f64(), calm.as_secs_f64());
        let mean = (f64::from(surge_per_second) * surge_s + f64::from(calm_per_second) * calm_s) / (surge_s + calm_s);
        assert!(mean < free && free < f64::from(surge_per_second), "{mean} {free}");
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(time("45s"), Ok(Duration::from_secs(45)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(time("0"), Ok(Duration::ZERO));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert!(time("soon").is_err() && time("5 parsecs").is_err() && time("99999999999999999999m").is_err());
    }
}
