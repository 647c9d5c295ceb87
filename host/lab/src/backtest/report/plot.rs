//! Plots as SVG, drawn here; colours are the page's.

use std::fmt::Write;

/// A plot's size, in the units of its view box.
const WIDTH: f64 = 620.0;
const HEIGHT: f64 = 230.0;
/// Width left of the plot for labels, in SVG units.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;

/// A line and the class that has its colour.
pub(super) struct Line<'a> {
    pub class: &'a str,
    pub points: &'a [(f64, f64)],
}

/// Range and labels of an axis.
pub(super) struct Axis {
    /// Lower bound of the axis.
    pub from: f64,
    /// Upper bound of the axis.
    pub to: f64,
    /// Positions and texts of the labels.
    pub ticks: Vec<(f64, String)>,
    /// The axis is logarithmic.
    pub by_magnitude: bool,
}

impl Axis {
    /// From 0 to at least `most`, at round numbers.
    pub(super) fn up_to(most: f64, label: impl Fn(f64) -> String) -> Self {
        let step = round_step(most.max(1e-9) / 4.0);
        let steps = (most / step).ceil().max(1.0);
        let ticks = (0..=steps as usize).map(|n| n as f64 * step).map(|at| (at, label(at))).collect();
        Self { from: 0.0, to: steps * step, ticks, by_magnitude: false }
    }

    /// By magnitude, from `least` to `most`, with labels at powers of ten, and between them where there are few.
    pub(super) fn magnitudes(least: f64, most: f64, label: impl Fn(f64) -> String) -> Self {
        const ENOUGH: usize = 7;
        let (least, most) = (least.max(1.0), most.max(least.max(1.0) * 10.0));
        let powers = || (least.log10().floor() as i32..=most.log10().ceil() as i32).map(|power| 10f64.powi(power));
        let within = |at: &f64| (least..=most).contains(at);
        let mut ticks: Vec<f64> = powers().flat_map(|at| [at, at * 2.0, at * 5.0]).filter(within).collect();
        if ticks.len() > ENOUGH {
            ticks = powers().filter(within).collect();
        }
        let ticks = ticks.into_iter().map(|at| (at, label(at))).collect();
        Self { from: least, to: most, ticks, by_magnitude: true }
    }

    fn place(&self, value: f64) -> f64 {
        let scale = |x: f64| if self.by_magnitude { x.max(1e-9).ln() } else { x };
        let (from, to) = (scale(self.from), scale(self.to));
        if to > from { ((scale(value) - from) / (to - from)).clamp(0.0, 1.0) } else { 0.0 }
    }

    fn across(&self, value: f64) -> f64 {
        LEFT + self.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn down(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.place(value) * (HEIGHT - TOP - BOTTOM)
    }
}

/// 1, 2 or 5 times a power of ten, not less than `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= least * 0.999).unwrap_or(10.0 * power)
}

/// Lines over two axes. `title` and `text` are for those who do not see it.
pub(super) fn lines(title: &str, text: &str, x: &Axis, y: &Axis, lines: &[Line<'_>]) -> String {
    let mut svg = frame(title, text, x, y);
    for line in lines {
        put(&mut svg, format_args!("<path class=\"line {}\" d=\"{}\"/>", line.class, path(x, y, line.points)));
    }
    svg + "</svg>"
}

/// Areas on top of each other; each has as many points as `x_of` has places.
pub(super) fn stacked(
    title: &str,
    text: &str,
    x: &Axis,
    y: &Axis,
    places: &[f64],
    areas: &[(&str, Vec<f64>)],
) -> String {
    let mut svg = frame(title, text, x, y);
    let mut floor = vec![0.0; places.len()];
    for (class, heights) in areas {
        let top: Vec<f64> = floor.iter().zip(heights).map(|(floor, height)| floor + height).collect();
        let point = |values: &[f64], i: usize| format!("{:.1} {:.1}", x.across(places[i]), y.down(values[i]));
        let up: Vec<String> = (0..places.len()).map(|i| point(&top, i)).collect();
        let back: Vec<String> = (0..places.len()).rev().map(|i| point(&floor, i)).collect();
        put(&mut svg, format_args!("<path class=\"area {class}\" d=\"M{} L{} Z\"/>", up.join(" L"), back.join(" L")));
        floor = top;
    }
    svg + "</svg>"
}

/// An interval on a line with zero in the middle, as a share of `most` to each side.
pub(super) fn whisker(low: f64, mean: f64, high: f64, most: f64, class: &str) -> String {
    const W: f64 = 120.0;
    let at = |value: f64| W / 2.0 + (value / most.max(1e-12)).clamp(-1.0, 1.0) * (W / 2.0 - 4.0);
    format!(
        "<svg class=\"whisker\" viewBox=\"0 0 {W} 16\" aria-hidden=\"true\"><path class=\"zero\" d=\"M{} 1 V15\"/>\
         <path class=\"reach {class}\" d=\"M{:.1} 8 H{:.1}\"/><circle class=\"{class}\" cx=\"{:.1}\" cy=\"8\" r=\"3.5\"/></svg>",
        W / 2.0,
        at(low),
        at(high),
        at(mean)
    )
}

fn frame(title: &str, text: &str, x: &Axis, y: &Axis) -> String {
    let mut svg = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}. {text}\"><title>{title}</title>"
    );
    for (at, label) in &y.ticks {
        let down = y.down(*at);
        let right = WIDTH - RIGHT;
        put(&mut svg, format_args!("<path class=\"grid\" d=\"M{LEFT} {down:.1} H{right}\"/>"));
        let (left, down) = (LEFT - 6.0, down + 3.5);
        put(
            &mut svg,
            format_args!("<text class=\"tick\" x=\"{left}\" y=\"{down:.1}\" text-anchor=\"end\">{label}</text>"),
        );
    }
    let bottom = HEIGHT - BOTTOM;
    for (at, label) in &x.ticks {
        let across = x.across(*at);
        let anchor = if across > WIDTH - RIGHT - 20.0 { "end" } else { "middle" };
        put(&mut svg, format_args!("<path class=\"grid\" d=\"M{across:.1} {bottom} v4\"/>"));
        let down = bottom + 17.0;
        put(
            &mut svg,
            format_args!("<text class=\"tick\" x=\"{across:.1}\" y=\"{down}\" text-anchor=\"{anchor}\">{label}</text>"),
        );
    }
    svg
}

fn path(x: &Axis, y: &Axis, points: &[(f64, f64)]) -> String {
    let point = |(at, value): &(f64, f64)| format!("{:.1} {:.1}", x.across(*at), y.down(*value));
    let all: Vec<String> = points.iter().map(point).collect();
    format!("M{}", all.join(" L"))
}

fn put(svg: &mut String, piece: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = svg.write_fmt(piece);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let axis = Axis::up_to(37.0, |n| format!("{n}"));
        assert_eq!((axis.to, axis.ticks.len()), (40.0, 5));
        assert_eq!(Axis::up_to(0.0, |n| format!("{n}")).ticks.len(), 2);
        let labels: Vec<String> =
            Axis::magnitudes(20.0, 30_000.0, |n| format!("{n}")).ticks.into_iter().map(|(_, l)| l).collect();
        assert_eq!(labels, ["100", "1000", "10000"]);
    }

    #[test]
    fn a_plot_says_in_words_what_it_shows() {
        let axis = || Axis::up_to(1.0, |n| format!("{n}"));
        let line = Line { class: "current", points: &[(0.0, 0.0), (1.0, 1.0)] };
        let svg = lines("Spend", "It rises.", &axis(), &axis(), &[line]);
        assert!(svg.contains("role=\"img\"") && svg.contains("aria-label=\"Spend. It rises.\""));
        assert!(svg.contains("M52.0 204.0 L610.0 10.0"), "{svg}");
    }
}
