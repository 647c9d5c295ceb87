//! `pointsman policy promote`: asks a running proxy for a guarded promotion, and follows it to its end.

use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use pointsman_config::{self as config, Env, ProcessEnv};
use pointsman_core::lifecycle::promotion::Plan;
use pointsman_engine::clock::Stopwatch;
use pointsman_engine::{EngineLimits, plain_file};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use super::promote_screen::{Policy, Promotion, Screen};
use super::settings_args::SettingsArgs;
use super::{component, in_runtime};

/// Interval between requests for the state of the promotion.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A proxy that does not answer for so long is gone.
const PATIENCE: Duration = Duration::from_secs(15);

/// One answer; a component may be compiled meanwhile, which takes up to five minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(330);

/// Interrupted by Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// Arguments of `pointsman promote`.
#[derive(Debug, clap::Args)]
pub(super) struct PromoteArgs {
    /// Component file of the candidate, or the folder of its project.
    #[arg(required_unless_present = "abort")]
    file: Option<PathBuf>,
    /// The share of the exchanges that the candidate gets; those of a session are all on one side.
    #[arg(long, value_name = "SHARE", default_value = "5%")]
    canary: String,
    /// Time to compare both policies: 90s, 10m, 2h, 1d. Extended once by the same time if fewer than 100 requests of
    /// either ended, or if a guard may be violated by chance; the reason is printed then.
    #[arg(long = "for", value_name = "TIME", default_value = "10m")]
    lasts: String,
    /// Limits on how much worse the candidate may be: error_rate, p95, spend. Default: error_rate<=+0.5%, p95<=+10%
    /// and spend<=+5%.
    #[arg(long, value_name = "GUARD")]
    guard: Vec<String>,
    /// The candidate's settings, which stay with it [default: those that the proxy's configuration has for it].
    #[command(flatten)]
    settings: SettingsArgs,
    /// The candidate's name, by which the proxy's configuration may have settings for it [default: that of its project].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The proxy's admin listener [default: that of the configuration, else http://127.0.0.1:9901].
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Its token: env:NAME, file:PATH, or the token itself [default: that of the configuration].
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// The proxy's configuration, whose [admin] has the address and the token [default: $POINTSMAN_CONFIG, else ./pointsman.toml
    /// where it exists; with --admin none].
    // Not clap's `env`: a file that was not named with an address must not give that address its token.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Begin, and do not wait for the end.
    #[arg(long)]
    detach: bool,
    /// End the promotion under way instead.
    #[arg(long, conflicts_with_all = ["file", "detach"])]
    abort: bool,
}

/// Runs it. Exit 0: promoted, begun with --detach, or aborted with --abort; 1: rolled back, refused or unreachable; 2: wrong
/// usage; 130: Ctrl-C, the promotion goes on.
pub(super) fn run(args: &PromoteArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    let (asking, component) = match read(args, &ProcessEnv) {
        Ok(read) => read,
        Err(why) => {
            writeln!(err, "error: {why}")?;
            return Ok(ExitCode::from(2));
        }
    };
    match in_runtime(asking.work(component, args.detach, out)) {
        Ok(code) => Ok(code),
        Err(error) => match error.downcast::<io::Error>() {
            Ok(error) => Err(error),
            Err(error) => {
                writeln!(err, "error: {error:#}")?;
                Ok(ExitCode::FAILURE)
            }
        },
    }
}

/// Everything that can be wrong before anybody is asked. No component: to abort.
fn read(args: &PromoteArgs, env: &dyn Env) -> Result<(Asking, Option<Vec<u8>>), String> {
    let guards = args.guard.iter().map(String::as_str);
    Plan::parse(Some(&args.canary), Some(&args.lasts), guards).map_err(|bad| format!("--{bad}"))?;
    let Listener { mut url, token } = Listener::of(args, env)?;
    let how_to_abort = how_to_abort(args, env, &url);
    let promote = &mut url;
    let base = format!("{}/api/policy", promote.path().trim_end_matches('/'));
    promote.set_path(&base);
    let policy = promote.clone();
    promote.set_path(&format!("{base}/promote"));
    let abort = promote.clone();
    let mut asked = promote.query_pairs_mut();
    asked.append_pair("canary", &args.canary).append_pair("for", &args.lasts);
    args.guard.iter().for_each(|guard| {
        asked.append_pair("guard", guard);
    });
    let (whole, set) = args.settings.read()?.parts();
    for (name, settings) in [("settings", whole), ("set", set)] {
        if let Some(settings) = settings {
            asked.append_pair(name, &serde_json::Value::Object(settings).to_string());
        }
    }
    if let Some(name) = &args.name {
        asked.append_pair("name", name);
    }
    drop(asked);
    let component = match &args.file {
        None => None,
        Some(file) => Some(
            plain_file::read(&component::file_of(file), EngineLimits::MAX_COMPONENT_BYTES as u64)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?,
        ),
    };
    Ok((Asking { promote: url, abort, policy, token, how_to_abort }, component))
}

/// Address of the proxy's admin API, and its token.
struct Listener {
    url: Url,
    token: Option<String>,
}

impl Listener {
    /// As the options say, else as the configuration does. Its token goes nowhere but to its own listener, or where the
    /// configuration was named with the address.
    fn of(args: &PromoteArgs, env: &dyn Env) -> Result<Self, String> {
        let token = args.token.as_deref().map(token).transpose()?;
        if let Some(text) = &args.admin {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let url = url.ok_or_else(|| {
                format!("--admin {text:?} is not an address; write the admin listener's, such as http://127.0.0.1:9901")
            })?;
            return match (token, &args.config) {
                (None, Some(file)) => Ok(Self { url, token: Self::configured(Some(file), env)?.token }),
                (token, _) => Ok(Self { url, token }),
            };
        }
        let found = Self::configured(usual_config(args, env).as_deref(), env)?;
        Ok(Self { token: token.or(found.token), ..found })
    }

    fn configured(file: Option<&Path>, env: &dyn Env) -> Result<Self, String> {
        let admin = config::admin(file, env)
            .map_err(|error| format!("the admin listener is not known: give --admin and --token\n{error}"))?;
        let mut addr = admin.listen;
        if addr.port() == 0 {
            return Err("the configuration lets the admin listener have any free port: give --admin URL".to_owned());
        }
        if addr.ip().is_unspecified() {
            addr.set_ip(if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        let url = Url::parse(&format!("http://{addr}")).map_err(|error| format!("{addr} is no address: {error}"))?;
        Ok(Self { url, token: admin.token.map(|token| token.expose().to_owned()) })
    }
}

/// The configuration that has the address where no option does.
fn usual_config(args: &PromoteArgs, env: &dyn Env) -> Option<PathBuf> {
    args.config.clone().or_else(|| env.var("POINTSMAN_CONFIG").map(PathBuf::from))
}

/// A larger file holds no token, in bytes.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// `env:NAME`, `file:PATH`, or the token itself.
fn token(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some(("env", name)) => std::env::var(name).map_err(|_| format!("--token: the variable {name} is not set")),
        Some(("file", path)) => match plain_file::read_text(Path::new(path), MAX_TOKEN_BYTES) {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(error) => Err(format!("--token: cannot read {path}: {error}")),
        },
        Some(_) | None => Ok(text.to_owned()),
    }
}

fn how_to_abort(args: &PromoteArgs, env: &dyn Env, url: &Url) -> String {
    let mut command = "pointsman policy promote --abort".to_owned();
    if args.admin.is_some() {
        command += &format!(" --admin {url}");
    }
    let config = if args.admin.is_some() { args.config.clone() } else { usual_config(args, env) };
    if let Some(file) = config {
        command += &format!(" --config {}", file.display());
    }
    if let Some(token) = args.token.as_deref().filter(|token| token.starts_with("env:") || token.starts_with("file:")) {
        command += &format!(" --token {token}");
    }
    command
}

/// The last of an error's causes, which says what happened.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}

/// One request to the admin API.
struct Asking {
    promote: Url,
    abort: Url,
    policy: Url,
    token: Option<String>,
    how_to_abort: String,
}

impl Asking {
    async fn work(&self, component: Option<Vec<u8>>, detach: bool, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let client = Client::builder()
            .use_preconfigured_tls(crate::upstream::tls_config())
            .no_proxy()
            .timeout(ANSWER_TIMEOUT)
            .build()?;
        let Some(component) = component else {
            self.ask(&client, Method::DELETE, &self.abort, Vec::new()).await?;
            writeln!(out, "ended: the policy in force gets all exchanges again")?;
            return Ok(ExitCode::SUCCESS);
        };
        // From here on, so that no moment is left in which Ctrl-C says nothing.
        let mut interrupts = signal(SignalKind::interrupt())?;
        tokio::select! {
            end = self.promote(&client, component, detach, &mut *out) => end,
            _ = interrupts.recv() => {
                writeln!(out, "\nThe promotion goes on. To end it:\n  {}", self.how_to_abort)?;
                Ok(ExitCode::from(INTERRUPTED))
            }
        }
    }

    async fn promote(
        &self,
        client: &Client,
        component: Vec<u8>,
        detach: bool,
        out: &mut dyn Write,
    ) -> anyhow::Result<ExitCode> {
        let begun = self.ask(client, Method::POST, &self.promote, component).await?;
        let Some(promotion) = begun.promotion else { anyhow::bail!("the proxy does not tell of the promotion") };
        let Promotion { candidate, control, share, until, .. } = &promotion;
        writeln!(
            out,
            "revision {candidate} has {share} of the exchanges beside {control}, until {until}; once as long again if that is too little to judge"
        )?;
        if let Some(warning) = &promotion.warning {
            writeln!(out, "warning: {warning}")?;
        }
        if detach {
            let how = &self.how_to_abort;
            writeln!(out, "It goes on by itself; /api/policy tells how it stands. To end it:\n  {how}")?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut screen = Screen { is_terminal: io::stdout().is_terminal(), told: None, is_extension_told: false, out };
        self.follow(client, promotion, &mut screen).await
    }

    async fn follow(&self, client: &Client, begun: Promotion, screen: &mut Screen<'_>) -> anyhow::Result<ExitCode> {
        let mut now = begun.clone();
        let mut heard = Stopwatch::start();
        while now.state == "running" {
            screen.show(&now)?;
            tokio::time::sleep(ASK_EVERY).await;
            match self.ask(client, Method::GET, &self.policy, Vec::new()).await {
                Ok(Policy { promotion: Some(promotion), .. })
                    if promotion.since == begun.since && promotion.candidate == begun.candidate =>
                {
                    now = promotion;
                    heard = Stopwatch::start();
                }
                Ok(Policy { revision, .. }) => anyhow::bail!(
                    "the proxy knows nothing more of this promotion, it was started again; revision {revision} is in force, \
                     and /api/policy/events tells what happened"
                ),
                Err(error) if heard.elapsed() > PATIENCE => {
                    return Err(error.context("the proxy does not answer any more; the promotion may go on"));
                }
                Err(_) => {}
            }
        }
        screen.end(&now)?;
        Ok(if now.state == "promoted" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn ask(&self, client: &Client, method: Method, url: &Url, body: Vec<u8>) -> anyhow::Result<Policy> {
        let mut request = client.request(method, url.clone()).body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let unreachable = |error: reqwest::Error| {
            let why = root(&error);
            anyhow::anyhow!(
                "cannot reach the admin listener at {}: {why}; is the proxy running? Its address is [admin] listen of its \
                 configuration (--config FILE), or give it with --admin URL",
                url.origin().ascii_serialization()
            )
        };
        let answer = request.send().await.map_err(unreachable)?;
        if !answer.status().is_success() {
            anyhow::bail!(refusal(answer, self.token.is_some()).await);
        }
        Ok(serde_json::from_slice(&answer.bytes().await.map_err(unreachable)?)?)
    }
}

/// Returns the proxy's error message, or at least its status.
async fn refusal(answer: Response, had_token: bool) -> String {
    #[derive(Deserialize)]
    struct Body {
        error: Message,
    }
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    let status = answer.status();
    let body: Option<Body> = answer.bytes().await.ok().and_then(|body| serde_json::from_slice(&body).ok());
    let said = body.map(|body| body.error.message);
    match (status, said) {
        (StatusCode::UNAUTHORIZED, _) => {
            let what = if had_token { "does not take this token" } else { "wants a token" };
            format!("the admin listener {what}; give --token env:NAME, or --config with the proxy's configuration")
        }
        (_, Some(said)) => said,
        (status, None) => format!("the admin listener answered {status}; is --admin the right address?"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: PromoteArgs,
    }

    fn asked(args: &[&str]) -> Result<Asking, String> {
        asked_with(args, &[])
    }

    fn asked_with(args: &[&str], env: &dyn Env) -> Result<Asking, String> {
        let args = Cli::parse_from([&["promote"], args].concat()).args;
        read(&args, env).map(|(asking, _)| asking)
    }

    #[test]
    fn the_address_and_the_token_are_those_of_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.toml");
        let name = file.to_str().unwrap();
        let text =
            "[admin]\nlisten = \"0.0.0.0:9\"\ntoken = \"env:T\"\n[[backend]]\nid = \"a\"\napi_key = \"env:NOT_HERE\"\n";
        std::fs::write(&file, text).unwrap();
        let of = |args: &[&str], env: &dyn Env| -> Result<_, String> {
            let asking = asked_with(&[&["--abort", "--config", name], args].concat(), env)?;
            Ok((asking.abort.to_string(), asking.token, asking.how_to_abort))
        };
        let path = "/api/policy/promote";
        let how = format!("pointsman policy promote --abort --config {name}");
        assert_eq!(
            of(&[], &[("T", "t0ken")]),
            Ok((format!("http://127.0.0.1:9{path}"), Some("t0ken".to_owned()), how))
        );
        let (url, token, how) = of(&["--admin", "http://[::1]:7"], &[("T", "t0ken")]).unwrap();
        assert_eq!((url, token), (format!("http://[::1]:7{path}"), Some("t0ken".to_owned())));
        assert_eq!(how, format!("pointsman policy promote --abort --admin http://[::1]:7/ --config {name}"));
        // A file that only the environment names has the address and the token of its own listener, and of no other.
        let env = [("T", "t0ken"), ("POINTSMAN_CONFIG", name)];
        let elsewhere = asked_with(&["--abort", "--admin", "http://other:9901"], &env).unwrap();
        assert_eq!(elsewhere.token, None);
        assert_eq!(elsewhere.how_to_abort, "pointsman policy promote --abort --admin http://other:9901/");
        let there = asked_with(&["--abort"], &env).unwrap();
        assert_eq!(
            (there.abort.as_str(), there.token.as_deref()),
            ("http://127.0.0.1:9/api/policy/promote", Some("t0ken"))
        );
        assert_eq!(of(&["--token", "mine"], &[("T", "t0ken")]).unwrap().1.as_deref(), Some("mine"));
        let env = [("T", "t0ken"), ("POINTSMAN__ADMIN__LISTEN", "127.0.0.1:8")];
        assert_eq!(of(&[], &env).unwrap().0, format!("http://127.0.0.1:8{path}"));
        let told = of(&[], &[]).unwrap_err();
        assert!(told.contains("give --admin and --token") && told.contains("variable T, which is not set"), "{told}");
        std::fs::write(&file, "[admin]\nlisten = \"127.0.0.1:0\"\n").unwrap();
        assert!(of(&[], &[]).unwrap_err().contains("any free port: give --admin"));
        assert_eq!(asked(&["--abort"]).unwrap().abort.as_str(), "http://127.0.0.1:9901/api/policy/promote");
    }

    #[test]
    fn what_is_asked_for_stands_in_the_address() {
        let asking =
            asked(&["--abort", "--guard", "p95<=+10%", "--admin", "http://[::1]:9/p/", "--token", "env:PATH"]).unwrap();
        assert_eq!(
            asking.promote.as_str(),
            "http://[::1]:9/p/api/policy/promote?canary=5%25&for=10m&guard=p95%3C%3D%2B10%25"
        );
        assert_eq!(asking.abort.as_str(), "http://[::1]:9/p/api/policy/promote");
        assert_eq!(asking.how_to_abort, "pointsman policy promote --abort --admin http://[::1]:9/p/ --token env:PATH");
        assert!(asking.token.is_some());
    }

    #[test]
    fn a_single_setting_is_not_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own.json");
        std::fs::write(&file, r#"{"a":1,"b":2}"#).unwrap();
        let query = |args: &[&str]| {
            let url = asked(&[&["--abort", "--admin", "http://[::1]:9"], args].concat()).unwrap().promote;
            let of_settings = |(name, _): &(_, _)| name == "settings" || name == "set";
            url.query_pairs().filter(of_settings).map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(query(&["--set", "a=3"]), [r#"set={"a":3}"#]);
        assert_eq!(query(&["--settings", file.to_str().unwrap(), "--set", "a=3"]), [r#"settings={"a":3,"b":2}"#]);
        assert_eq!(query(&[]), [""; 0]);
    }

    #[test]
    fn wrong_usage_is_told_before_anybody_is_asked() {
        for (args, words) in [
            (["--canary", "0%"], "--canary=\"0%\" is not a share"),
            (["--for", "soon"], "--for=\"soon\" is not a time"),
            (["--guard", "speed<=1%"], "--guard=\"speed<=1%\" is no guard"),
            (["--admin", "9901"], "--admin \"9901\" is not an address"),
            (["--token", "env:NOT_SET_ANYWHERE"], "the variable NOT_SET_ANYWHERE is not set"),
        ] {
            let told = asked(&[&["--abort"][..], &args].concat()).err().unwrap();
            assert!(told.contains(words), "{told}");
        }
        assert!(asked(&["missing.wasm"]).err().unwrap().starts_with("cannot read missing.wasm"));
        assert!(Cli::try_parse_from(["promote"]).is_err(), "a candidate or --abort");
    }
}
