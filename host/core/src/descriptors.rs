//! Division of the process's file descriptors between its uses, so that none of them can take another's.

/// Connections of clients at a time, where the limit of descriptors allows more.
pub const MAX_DOWNSTREAM: u32 = 10_000;

/// Descriptors for everything but connections: the store, logs, watched files, the runtime, name resolution.
const OWN: u64 = 64;

/// More descriptors than this are not divided.
const MAX_DIVIDED: u64 = 1 << 20;

/// Descriptors that each side may have for its connections; at least 1 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorShares {
    /// Connections of the operator's listener.
    pub admin: u32,
    /// Connections of clients at a time.
    pub downstream: u32,
    /// Connections to backends at a time.
    pub upstream: u32,
}

impl DescriptorShares {
    /// Divides `limit` descriptors. The admin listener has `max_admin`, but at most an eighth; of what is left a client's
    /// connection usually needs a second one to a backend, so clients have one half by default, and at most three quarters
    /// where `max_downstream` asks for more.
    pub fn of(limit: u64, max_admin: u32, max_downstream: Option<u32>) -> Self {
        let limit = limit.min(MAX_DIVIDED);
        let own = OWN.min(limit / 4);
        let admin = u64::from(max_admin).min(limit / 8).max(1);
        let rest = limit.saturating_sub(own + admin);
        let downstream = match max_downstream {
            Some(asked) => u64::from(asked).min(rest - rest / 4),
            None => u64::from(MAX_DOWNSTREAM).min(rest / 2),
        };
        let downstream = downstream.max(1);
        let upstream = rest.saturating_sub(downstream).max(1);
        // All of them are at most `MAX_DIVIDED`.
        let share = |share: u64| u32::try_from(share).unwrap_or(u32::MAX);
        Self { admin: share(admin), downstream: share(downstream), upstream: share(upstream) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_limits_are_divided_like_this() {
        let shares = |limit, max| {
            let DescriptorShares { admin, downstream, upstream } = DescriptorShares::of(limit, 128, max);
            (admin, downstream, upstream)
        };
        assert_eq!(shares(1_024, None), (128, 416, 416));
        assert_eq!(shares(256, None), (32, 80, 80), "macOS");
        assert_eq!(shares(1_048_576, None), (128, 10_000, 1_038_384));
        assert_eq!(shares(u64::MAX, Some(50_000)), (128, 50_000, 998_384));
        assert_eq!(shares(1_024, Some(100)), (128, 100, 732));
        assert_eq!(shares(1_024, Some(10_000)), (128, 624, 208), "backends keep a quarter");
    }

    proptest! {
        #[test]
        fn no_use_can_take_anothers(limit in 16..u64::MAX, admin in 1..100_000u32, asked in proptest::option::of(1..u32::MAX)) {
            let DescriptorShares { admin, downstream, upstream } = DescriptorShares::of(limit, admin, asked);
            prop_assert!(admin >= 1 && downstream >= 1 && upstream >= 1);
            let connections = u64::from(admin) + u64::from(downstream) + u64::from(upstream);
            let own = limit.saturating_sub(connections);
            prop_assert!(own >= OWN.min(limit / 4), "{own} of {limit} are left");
            prop_assert!(u64::from(upstream) >= (limit.min(MAX_DIVIDED) - own.min(limit.min(MAX_DIVIDED))) / 8);
        }
    }
}
