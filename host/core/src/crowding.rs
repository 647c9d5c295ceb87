//! Connections that give way to a new one where a listener has as many as it may.
//!
//! A connection without a request costs its owner nothing, so it is the first to go: an idle one, and one that never sends
//! the whole of a head, the longest waiting first. A client that sends its body so slowly that it can only be meant to hold
//! the place comes after. One whose answers are complete here and only wait for the peer to take them counts as idle. Requests
//! that wait for an answer, or whose answer is still coming, never give way.

use std::time::Duration;

/// One in so many connections gives way at a time, so that a flood of new ones does not cost a search each.
const PORTION: usize = 32;

/// Time that a body has before its pace is looked at.
const BODY_GRACE: Duration = Duration::from_secs(5);

/// Bytes a second below which a body is held back, on average since its first.
const MIN_BODY_BYTES_PER_SECOND: u64 = 4_096;

/// Time that a peer has to take the next piece of an answer that is complete here. Its window is open, or opens after a round
/// trip, where it wants the answer.
const UNTAKEN_GRACE: Duration = Duration::from_secs(2);

/// An open connection, as a candidate for giving way.
#[derive(Clone, Copy, Debug)]
pub struct Occupant {
    /// Number of the connection.
    pub id: u64,
    /// Present activity of the connection.
    pub activity: Activity,
}

/// Activity of a connection, by which it is chosen to give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It has had no request in hand for so long.
    Idle(Duration),
    /// The bodies of all its requests are still to come.
    Receiving {
        /// Time since the first of these bodies began.
        since: Duration,
        /// Bytes of them that came.
        bytes: u64,
    },
    /// The answers to all its requests are complete, and the peer has taken nothing of them for so long.
    Untaken(Duration),
    /// A request of it waits for an answer, or is answered.
    Serving,
}

impl Activity {
    /// Time since the connection waits for nobody but its peer.
    fn idle_since(self) -> Option<Duration> {
        match self {
            Activity::Idle(since) => Some(since),
            Activity::Untaken(since) if since >= UNTAKEN_GRACE => Some(since),
            Activity::Untaken(_) | Activity::Receiving { .. } | Activity::Serving => None,
        }
    }

    /// Returns true where a connection that is to end answers its requests first.
    pub fn is_to_finish(self) -> bool {
        match self {
            Activity::Serving => true,
            Activity::Untaken(since) => since < UNTAKEN_GRACE,
            Activity::Idle(_) | Activity::Receiving { .. } => false,
        }
    }
}

/// Chooses those that give way, by their ids; none where all are in use.
pub fn give_way(occupants: &[Occupant]) -> Vec<u64> {
    let mut idle: Vec<(Duration, u64)> = occupants
        .iter()
        .filter_map(|occupant| occupant.activity.idle_since().map(|since| (since, occupant.id)))
        .collect();
    if idle.is_empty() {
        return occupants.iter().filter(|occupant| is_held_back(occupant.activity)).map(|held| held.id).collect();
    }
    let chosen = (occupants.len() / PORTION).clamp(1, idle.len());
    idle.sort_unstable_by(|a, b| b.cmp(a));
    idle.truncate(chosen);
    idle.into_iter().map(|(_, id)| id).collect()
}

/// Returns true for a body that comes so slowly that its client is not taken to want an answer.
fn is_held_back(activity: Activity) -> bool {
    match activity {
        Activity::Receiving { since, bytes } => {
            since >= BODY_GRACE && bytes < MIN_BODY_BYTES_PER_SECOND.saturating_mul(since.as_secs())
        }
        Activity::Idle(_) | Activity::Untaken(_) | Activity::Serving => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(activities: &[Activity]) -> Vec<Occupant> {
        (0..).zip(activities).map(|(id, &activity)| Occupant { id, activity }).collect()
    }

    fn idle(seconds: u64) -> Activity {
        Activity::Idle(Duration::from_secs(seconds))
    }

    fn receiving(seconds: u64, bytes: u64) -> Activity {
        Activity::Receiving { since: Duration::from_secs(seconds), bytes }
    }

    #[test]
    fn the_longest_idle_goes_first_and_who_is_served_never() {
        assert_eq!(give_way(&all(&[idle(1), Activity::Serving, idle(3), idle(2)])), [2]);
        assert_eq!(give_way(&all(&[Activity::Serving; 4])), [0; 0]);
        assert_eq!(give_way(&all(&[idle(0)])), [0], "also one that has just come");
    }

    #[test]
    fn bodies_that_are_held_back_go_where_nobody_is_idle() {
        let slow = [receiving(6, 100), Activity::Serving, receiving(600, 4_096 * 599)];
        assert_eq!(give_way(&all(&slow)), [0, 2]);
        let fair = [receiving(4, 0), receiving(60, 4_096 * 60), receiving(5, 60 << 20)];
        assert_eq!(give_way(&all(&fair)), [0; 0]);
        assert_eq!(give_way(&all(&[receiving(6, 100), idle(0)])), [1]);
    }

    #[test]
    fn answers_that_nobody_takes_hold_no_place() {
        let untaken = |ms| Activity::Untaken(Duration::from_millis(ms));
        assert_eq!(give_way(&all(&[Activity::Serving, untaken(2_000), untaken(3_000)])), [2]);
        assert_eq!(give_way(&all(&[untaken(1_999), Activity::Serving])), [0; 0], "a round trip is no refusal");
        assert_eq!(give_way(&all(&[untaken(5_000), idle(9), receiving(600, 1)])), [1], "the longest idle of both");
        assert_eq!(give_way(&all(&[untaken(120_000); 416])).len(), 13);
        assert_eq!([untaken(0), untaken(2_000), idle(0)].map(Activity::is_to_finish), [true, false, false]);
    }

    fn any_activity() -> impl Strategy<Value = Activity> {
        prop_oneof![
            (0..100u64).prop_map(idle),
            (0..100u64, 0..1_000_000u64).prop_map(|(since, bytes)| receiving(since, bytes)),
            (0..100u64).prop_map(|since| Activity::Untaken(Duration::from_secs(since))),
            Just(Activity::Serving),
        ]
    }

    proptest! {
        #[test]
        fn few_go_at_a_time_and_none_that_is_younger(activities in proptest::collection::vec(any_activity(), 1..300)) {
            let all = all(&activities);
            let gone = give_way(&all);
            let idle_for = |o: &Occupant| o.activity.idle_since();
            let (left, went): (Vec<&Occupant>, Vec<&Occupant>) = all.iter().partition(|o| !gone.contains(&o.id));
            prop_assert!(went.iter().all(|o| o.activity != Activity::Serving));
            if all.iter().any(|o| idle_for(o).is_some()) {
                prop_assert!(!went.is_empty() && went.len() <= (all.len() / PORTION).max(1));
                let youngest = went.iter().map(|o| idle_for(o).expect("only idle ones go")).min();
                prop_assert!(left.iter().filter_map(|o| idle_for(o)).max() <= youngest);
            }
        }
    }
}
