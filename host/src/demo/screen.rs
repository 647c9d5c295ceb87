//! The demo's output: a live table on a terminal, a line every few seconds elsewhere, and a summary at the end.

use std::io::{self, Write};
use std::time::Duration;

use pointsman_core::table::{Lane, Tier};

use super::providers::{Profile, ProviderCounts};
use super::totals::Totals;

/// Width of a bar in characters.
const BAR_CELLS: usize = 24;

/// Everything that is shown, at one moment.
pub(super) struct View<'a> {
    /// Time since the demo's start.
    pub elapsed: Duration,
    /// Length of the demo; `None`: until Ctrl-C.
    pub limit: Option<Duration>,
    /// Base URL for an SDK.
    pub url: &'a str,
    /// The providers and what they saw.
    pub providers: &'a [(Profile, ProviderCounts)],
    /// Results as the clients saw them.
    pub tally: &'a Totals,
}

/// Output of the demo: a screen redrawn in place on a terminal, lines elsewhere.
pub(super) struct Screen<W: Write> {
    out: W,
    live: bool,
    ink: Ink,
    /// Lines of the table on the terminal, to be painted over.
    painted: usize,
}

impl<W: Write> Screen<W> {
    /// `live` paints over itself; without it lines are only added. `colour` needs a terminal too.
    pub(super) fn new(out: W, live: bool, colour: bool) -> Self {
        Self { out, live, ink: Ink { on: live && colour }, painted: 0 }
    }

    /// Interval for calls of [`Screen::draw`].
    pub(super) fn period(&self) -> Duration {
        if self.live { Duration::from_millis(200) } else { Duration::from_secs(5) }
    }

    /// Shows the present state: on a terminal over the last one, else as a line.
    pub(super) fn draw(&mut self, view: &View<'_>) -> io::Result<()> {
        match (self.live, view.elapsed < Duration::from_secs(1)) {
            (true, _) => self.paint(&table(view, Some("Ctrl-C ends it"), &self.ink)),
            (false, true) => Ok(()),
            (false, false) => writeln!(self.out, "{}", line(view)),
        }
    }

    /// Shows the last moment, and what it all came to.
    pub(super) fn finish(&mut self, view: &View<'_>) -> io::Result<()> {
        let table = table(view, None, &self.ink);
        if self.live {
            self.paint(&table)?;
        } else {
            writeln!(self.out, "\n{}", table.join("\n"))?;
        }
        for sentence in verdict(view) {
            writeln!(self.out, " {}", self.ink.bold(&sentence))?;
        }
        self.painted = 0;
        self.out.flush()
    }

    /// Adds a line below the screen.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, " {text}")?;
        self.out.flush()
    }

    /// Paints over the last table. Wrapping is off meanwhile, so that a narrow terminal cuts lines and keeps their number.
    fn paint(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[?7l");
        if self.painted > 0 {
            text.push_str(&format!("\x1b[{}A\r", self.painted));
        }
        for line in lines {
            text.push_str(&format!("{line}\x1b[K\n"));
        }
        text.push_str("\x1b[?7h");
        self.painted = lines.len();
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

/// Escape codes of colours, empty without colour.
struct Ink {
    on: bool,
}

impl Ink {
    fn with(&self, code: &str, text: &str) -> String {
        if self.on && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.with("2", text)
    }

    fn lane(&self, lane: Lane, text: &str) -> String {
        match lane {
            Lane::Primary => self.with("32", text),
            Lane::Fallback => self.with("33", text),
            Lane::Emergency => self.with("31", text),
        }
    }

    /// A count that is bad news unless it is zero.
    fn trouble(&self, count: u64, width: usize) -> String {
        let text = format!("{count:>width$}");
        if count == 0 { self.dim(&text) } else { self.with("31", &text) }
    }
}

fn table(view: &View<'_>, hint: Option<&str>, ink: &Ink) -> Vec<String> {
    let mut lines = vec![String::new(), heading(view, hint, ink), String::new()];
    lines.push(ink.dim(&format!(
        " {:<11} {:<9} {:>7} {:>9} {:>5} {:>5} {:>5}",
        "provider", "tier", "asked", "answered", "429", "5xx", "cut"
    )));
    lines.extend(view.providers.iter().map(|(profile, seen)| provider(profile, seen, ink)));
    lines.push(String::new());
    lines
        .extend(Lane::ALL.iter().enumerate().map(|(place, lane)| bar(*lane, view.tally.lanes[place], view.tally, ink)));
    lines.push(String::new());
    lines.extend(figures(view.tally, ink));
    lines.push(String::new());
    lines
}

fn heading(view: &View<'_>, hint: Option<&str>, ink: &Ink) -> String {
    let time = match view.limit {
        Some(limit) => format!("{} of {} s", view.elapsed.min(limit).as_secs(), limit.as_secs()),
        None => format!("{} s", view.elapsed.as_secs()),
    };
    format!(
        " {}   {}   {time}   {}",
        ink.bold("pointsman demo"),
        ink.with("36", view.url),
        ink.dim(hint.unwrap_or_default())
    )
}

fn provider(profile: &Profile, seen: &ProviderCounts, ink: &Ink) -> String {
    let lane = match profile.tier {
        Tier::Primary => Lane::Primary,
        Tier::Fallback => Lane::Fallback,
    };
    let tier = ink.lane(lane, &format!("{:<9}", profile.tier.as_str()));
    let trouble = |count: u64| ink.trouble(count, 5);
    format!(
        " {:<11} {tier} {:>7} {:>9} {} {} {}  {}",
        profile.id,
        seen.requests,
        seen.answered,
        trouble(seen.rate_limited),
        trouble(seen.broken),
        trouble(seen.cut),
        ink.dim(profile.manner)
    )
}

fn bar(lane: Lane, count: u64, tally: &Totals, ink: &Ink) -> String {
    let all = tally.lanes.iter().sum::<u64>().max(1);
    let cells = (count as usize * BAR_CELLS).div_ceil(all as usize).min(BAR_CELLS);
    let bar = format!("{}{}", ink.lane(lane, &"█".repeat(cells)), ink.dim(&"░".repeat(BAR_CELLS - cells)));
    format!(" {:<11} {bar} {count:>7}  {:>3} %", lane.as_str(), (count * 100 + all / 2) / all)
}

fn figures(tally: &Totals, ink: &Ink) -> [String; 4] {
    let label = |word: &str| ink.dim(&format!(" {word:<11}"));
    let failed = if tally.failed == 0 {
        ink.with("32", "none failed")
    } else {
        ink.with("31", &format!("{} failed", tally.failed))
    };
    let waits = if tally.waited == 0 {
        "none yet".to_owned()
    } else {
        let (mean, longest) = (seconds(tally.waited_mean()), seconds(tally.waited_longest));
        format!("{} requests, {mean} on average, {longest} at most", tally.waited)
    };
    [
        format!("{} {} answered, {failed}, {} after another try", label("requests"), tally.answered, tally.retried),
        format!("{} {waits}", label("waited")),
        format!("{} {}", label("spent"), ink.bold(&usd(tally.spent_usd))),
        format!("{} {} without waiting", label("instead of"), usd(tally.without_waiting_usd)),
    ]
}

/// The moment in one line, for logs and pipes.
fn line(view: &View<'_>) -> String {
    let Totals { answered, failed, lanes: [primary, fallback, emergency], waited, .. } = view.tally;
    let limited: u64 = view.providers.iter().map(|(_, seen)| seen.rate_limited).sum();
    format!(
        "{:>4} s  answered {answered} (primary {primary}, fallback {fallback}, emergency {emergency}), failed {failed}, \
         waited {waited} ({} on average), 429s {limited}, spent {} instead of {} without waiting",
        view.elapsed.as_secs(),
        seconds(view.tally.waited_mean()),
        usd(view.tally.spent_usd),
        usd(view.tally.without_waiting_usd),
    )
}

/// Formats the summary that stays when the demo ends.
fn verdict(view: &View<'_>) -> Vec<String> {
    let sum = |count: fn(&ProviderCounts) -> u64| view.providers.iter().map(|(_, seen)| count(seen)).sum::<u64>();
    let (limited, broken, cut) = (sum(|s| s.rate_limited), sum(|s| s.broken), sum(|s| s.cut));
    let tally = view.tally;
    let errors = match (tally.failed, tally.cut_short) {
        (0, _) => "no error".to_owned(),
        (1, _) => "one error".to_owned(),
        (failed, 0) => format!("{failed} errors"),
        (failed, cut) => format!("{failed} errors, {cut} of them in streams that had begun"),
    };
    let seen = format!(
        "The providers refused {limited} times, broke {broken} times and cut {cut} streams; the clients saw {errors}."
    );
    let seen = match tally.failed {
        0 => seen,
        _ => format!(
            "{seen}\nMost errors are those of a storm, in which all providers refuse at once: a 503 that says when to retry."
        ),
    };
    if tally.waited == 0 {
        return vec![seen, "No request had to wait, so waiting saved nothing this time.".to_owned()];
    }
    let (saved, otherwise) = (tally.saved_usd(), tally.without_waiting_usd);
    let share = 100.0 * saved / otherwise.max(f64::MIN_POSITIVE);
    let hourly = usd(3_600.0 * saved / view.elapsed.as_secs_f64().max(1.0));
    vec![
        seen,
        format!(
            "Waiting saved {} of {} ({share:.0} %), {hourly} an hour at this pace: {} requests",
            usd(saved),
            usd(otherwise),
            tally.waited
        ),
        format!("waited {} on average for a free provider instead of paying at once.", seconds(tally.waited_mean())),
    ]
}

fn usd(amount: f64) -> String {
    if amount >= 10.0 { format!("${amount:.2}") } else { format!("${amount:.3}") }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::LINEUP;

    fn tally() -> Totals {
        Totals {
            answered: 200,
            lanes: [180, 19, 1],
            waited: 40,
            waited_total: Duration::from_secs(52),
            waited_longest: Duration::from_millis(3_900),
            retried: 30,
            spent_usd: 0.1,
            without_waiting_usd: 0.4,
            ..Totals::default()
        }
    }

    fn shown(live: bool, colour: bool, draws: usize) -> String {
        let tally = tally();
        let providers: Vec<(Profile, ProviderCounts)> = LINEUP
            .iter()
            .map(|p| (*p, ProviderCounts { requests: 50, answered: 40, rate_limited: 10, ..ProviderCounts::default() }))
            .collect();
        let view = View {
            elapsed: Duration::from_secs(12),
            limit: Some(Duration::from_secs(45)),
            url: "http://127.0.0.1:1/v1",
            providers: &providers,
            tally: &tally,
        };
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, live, colour);
        (0..draws).for_each(|_| screen.draw(&view).unwrap());
        screen.finish(&view).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_pipe_gets_plain_lines_and_the_table_at_the_end() {
        let text = shown(false, true, 2);
        assert!(!text.contains('\x1b'));
        assert_eq!(
            text.matches(
                "  12 s  answered 200 (primary 180, fallback 19, emergency 1), failed 0, waited 40 (1.3 s on average)"
            )
            .count(),
            2
        );
        assert!(text.contains("nvidia-1    primary        50        40    10     0     0"), "{text}");
        assert!(text.contains("the clients saw no error."));
        assert!(
            text.contains(
                "Waiting saved $0.300 of $0.400 (75 %), $90.00 an hour at this pace: 40 requests\n waited 1.3 s"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_terminal_is_painted_over_by_as_many_lines_as_there_are() {
        let text = shown(true, true, 1);
        let lines = text.split("\x1b[?7h").next().unwrap().matches('\n').count();
        assert!(text.contains(&format!("\x1b[{lines}A\r")), "{text:?}");
        assert!(text.contains("\x1b[32m"));
        assert!(!shown(true, false, 1).contains("\x1b[32m"));
    }

    #[test]
    fn lines_fit_a_usual_terminal() {
        for line in shown(false, false, 0).lines().filter(|line| !line.ends_with('.')) {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
