//! Chat completions as neutral requests and answers, and back.

pub(in crate::dialect) mod read_answer;
pub(in crate::dialect) mod read_request;
pub(in crate::dialect) mod read_stream;
pub(in crate::dialect) mod read_turns;
pub(in crate::dialect) mod write_answer;
pub(in crate::dialect) mod write_request;
pub(in crate::dialect) mod write_stream;
