//! A whole answer of one API as an answer of another. Read leniently: what nobody asked for is left out, or refused when a
//! client would miss it.

use bytes::Bytes;

use super::{Answers, Untranslatable};
use crate::time::Timestamp;

pub(super) fn translate(answers: &Answers, body: &[u8], now: Timestamp) -> Result<Bytes, Untranslatable> {
    let (backend, client) = (answers.translation.target(), answers.translation.source());
    let mut answer = backend.read_answer(body, client.api())?;
    answers.ids.fill(&mut answer, client.id_prefix());
    answers.names.restore(&mut answer);
    Ok(client.write_answer(&answer, &answers.model, now))
}
