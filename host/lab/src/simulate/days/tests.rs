//! The default policy waits when waiting is served, and pays at once when it is not.

use super::*;

fn day(load: f64, seconds: u64, arrivals: Arrivals, storms: Vec<Storm>) -> Day {
    let phases = vec![Phase { length: Duration::from_secs(seconds), load }];
    Day { seed: 3, rpm: vec![20, 20, 15], phases, storms, arrivals }
}

fn under_default(day: &Day) -> DayResult {
    day.under(&Policy::Native).expect("the default policy takes any table")
}

/// The share of the requests that the keys cannot take.
fn excess(day: &Day, result: &DayResult) -> f64 {
    let minutes = day.phases.iter().map(|phase| phase.length.as_secs_f64() / 60.0).sum::<f64>();
    1.0 - f64::from(day.capacity()) * minutes / result.requests as f64
}

#[test]
fn in_steady_overload_only_the_excess_is_paid_for_and_nobody_stands_in_a_long_line() {
    for load in [1.1, 1.5] {
        for arrivals in [Arrivals::Even, Arrivals::Random] {
            // What is random is averaged over some days.
            let seeds = if arrivals == Arrivals::Even { 1 } else { 5 };
            let (mut beyond, mut p50_ms) = (0.0, 0.0);
            for seed in 0..seeds {
                let day = Day { seed, ..day(load, 1_800, arrivals, Vec::new()) };
                let result = under_default(&day);
                beyond += 100.0 * (result.paid_share() - excess(&day, &result)) / seeds as f64;
                p50_ms += f64::from(result.quantile_ms(0.5)) / seeds as f64;
                assert_eq!(result.failed, 0);
            }
            assert!(beyond <= 2.0, "{load} x, {arrivals:?}: {beyond:.1} points more than the excess were paid for");
            assert!(p50_ms <= 3_000.0, "{load} x, {arrivals:?}: p50 {p50_ms:.0} ms");
        }
    }
}

#[test]
fn a_storm_with_calm_behind_it_is_waited_out() {
    let storm = Storm { from: Duration::from_secs(300), length: Duration::from_secs(60), keys: 3 };
    let day = day(0.7, 900, Arrivals::Random, vec![storm]);
    let result = under_default(&day);
    // Of the storm's 39 requests those of its last 30 s can be waited for, and that is what the fixed rule does.
    let fixed = day.under_fixed_rule();
    assert!(result.paid <= fixed.paid + 6, "{} paid for, {} by the fixed rule", result.paid, fixed.paid);
    assert!(result.mean_ms() < fixed.mean_ms());
    assert_eq!(result.failed, 0);
}

#[test]
fn no_day_is_worse_in_money_and_time_than_under_the_fixed_rule() {
    let (mut mean_ms, mut fixed_mean_ms) = (0.0, 0.0);
    for seed in 1..=20 {
        let compared = compare(seed, &Policy::Native).expect("the default policy takes any table");
        let Compared { policy, fixed, .. } = &compared;
        let more = 100.0 * (policy.paid_share() - fixed.paid_share());
        assert!(!compared.is_worse_in_both() && more <= 5.0, "seed {seed}: {more:.1} points more were paid for");
        assert_eq!(policy.failed, 0, "seed {seed}");
        mean_ms += policy.mean_ms() / 20.0;
        fixed_mean_ms += fixed.mean_ms() / 20.0;
    }
    assert!(mean_ms < fixed_mean_ms / 2.0, "{mean_ms:.0} ms on average, {fixed_mean_ms:.0} ms under the fixed rule");
}

#[test]
fn the_same_seed_is_the_same_day() {
    let one = compare(4, &Policy::Native).expect("the default policy takes any table");
    assert_eq!(one, compare(4, &Policy::Native).expect("the default policy takes any table"));
}
