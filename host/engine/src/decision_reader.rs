//! Decisions in core's types, read from the two sets of types that have the contract's shapes: the generated bindings and the
//! SDK's.

/// Makes `decision`, which reads a decision in the types of this module or crate; it is not validated yet.
macro_rules! decision_reader {
    ($types:ident) => {
        /// Reads a decision; it is not validated yet.
        pub(super) fn decision(decision: $types::Decision) -> pointsman_core::contract::Decision {
            use pointsman_core::contract::{Decision, Hold, Rejection};

            match decision {
                $types::Decision::Primary(d) => Decision::Primary(dispatch(d)),
                $types::Decision::Fallback(d) => Decision::Fallback(dispatch(d)),
                $types::Decision::Emergency(d) => Decision::Emergency(dispatch(d)),
                $types::Decision::Wait(hold) => {
                    Decision::Wait(Hold { max: millis(hold.max_ms), lane: lane(hold.lane) })
                }
                $types::Decision::Reject(r) => Decision::Reject(Rejection {
                    status: r.status,
                    kind: r.kind,
                    message: r.message,
                    retry_after: r.retry_after_ms.map(millis),
                }),
            }
        }

        fn dispatch(d: $types::Dispatch) -> pointsman_core::contract::Dispatch {
            use pointsman_core::contract::{Commit, Dispatch, Resume};

            Dispatch {
                backend: d.backend,
                model: d.model,
                first_byte: d.first_byte_ms.map(millis),
                first_token: d.first_token_ms.map(millis),
                idle: d.idle_ms.map(millis),
                total: d.total_ms.map(millis),
                commit: d.commit.map(|commit| match commit {
                    $types::Commit::Headers => Commit::Headers,
                    $types::Commit::FirstContent => Commit::FirstContent,
                    $types::Commit::Tokens(n) => Commit::Tokens(n),
                    $types::Commit::Complete => Commit::Complete,
                }),
                resume: d.resume.map(|resume| match resume {
                    $types::Resume::None => Resume::None,
                    $types::Resume::Splice => Resume::Splice,
                    $types::Resume::Prefill => Resume::Prefill,
                }),
            }
        }

        fn lane(lane: $types::Lane) -> pointsman_core::table::Lane {
            match lane {
                $types::Lane::Primary => pointsman_core::table::Lane::Primary,
                $types::Lane::Fallback => pointsman_core::table::Lane::Fallback,
                $types::Lane::Emergency => pointsman_core::table::Lane::Emergency,
            }
        }

        fn millis(ms: u32) -> std::time::Duration {
            std::time::Duration::from_millis(ms.into())
        }
    };
}

pub(super) use decision_reader;
