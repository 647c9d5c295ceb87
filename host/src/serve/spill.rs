//! Large bodies for which there is no memory, kept on disk until there is (`server.spill_dir`).
//!
//! The file has no name, so that it ends with the process. It is read whole again before anything looks at the body.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use pointsman_core::memory_budget::{Holder, NoRoom};
use tokio::task::spawn_blocking;

use super::connections::RequestBody;
use super::request_body::{BODY_IDLE, BodyProblem, Footprint, discard, is_small};
use crate::proxy::{Grant, Proxy, Snapshot};

/// Bytes of a body that are written at a time.
const PIECE_BYTES: usize = 128 << 10;

/// Memory for a body on its way to the disk, bytes: a piece that is written, and the next one.
const RECEIVING_BYTES: u64 = 3 * PIECE_BYTES as u64;

/// A body on disk.
pub(super) struct Spilled {
    file: File,
    length: u64,
    holder: Holder,
    /// Its part of the disk.
    _disk: Grant,
}

/// Returns true if a body may be spilled: its length is announced, and it is worth it.
pub(super) fn may_spill(snapshot: &Snapshot, body: &RequestBody) -> bool {
    snapshot.config.server.spill.is_some() && body.size_hint().exact().is_some() && !is_small(body)
}

/// Writes a body to the disk, within the bounds of it.
///
/// # Errors
/// [`BodyProblem`]; of a body for which there is no room on the disk either, the rest is read and thrown away.
pub(super) async fn write(
    proxy: &Proxy,
    snapshot: &Snapshot,
    mut body: RequestBody,
    holder: Holder,
    no_room: NoRoom,
) -> Result<Spilled, BodyProblem> {
    let (limit, length) = (snapshot.config.server.max_body_bytes, body.size_hint().exact().unwrap_or(u64::MAX));
    if length > limit {
        discard(body);
        return Err(BodyProblem::TooLarge);
    }
    let room = proxy.memory.take(holder.clone(), RECEIVING_BYTES).and_then(|memory| {
        let disk = proxy.disk.take(holder.clone(), length)?;
        Ok((memory, disk))
    });
    let file = match (&snapshot.config.server.spill, room) {
        (Some(spill), Ok((memory, disk))) => create(&spill.dir).await.map(|file| (file, memory, disk)),
        (_, Err(_)) | (None, _) => Err(None),
    };
    let (mut file, _memory, disk) = match file {
        Ok(file) => file,
        Err(error) => {
            if let Some(error) = error {
                tell(&error);
            }
            discard(body);
            return Err(BodyProblem::NoRoom(no_room));
        }
    };
    let mut piece = BytesMut::with_capacity(PIECE_BYTES);
    loop {
        let frame = tokio::time::timeout(BODY_IDLE, body.frame()).await.map_err(|_| BodyProblem::Slow)?;
        let is_last = match frame {
            None => true,
            Some(Ok(frame)) => {
                piece.extend_from_slice(&frame.into_data().unwrap_or_default());
                false
            }
            Some(Err(error)) => return Err(BodyProblem::Broken(error.to_string())),
        };
        if is_last || piece.len() >= PIECE_BYTES {
            let full = std::mem::replace(&mut piece, BytesMut::with_capacity(PIECE_BYTES));
            file = match blocking(move || file.write_all(&full).map(|()| file)).await {
                Ok(file) => file,
                Err(error) => {
                    tell(&error);
                    discard(body);
                    return Err(BodyProblem::NoRoom(no_room));
                }
            };
        }
        if is_last {
            return Ok(Spilled { file, length, holder, _disk: disk });
        }
    }
}

impl Spilled {
    /// Waits until there is memory for the body, and reads it back.
    ///
    /// # Errors
    /// It can never fit, or cannot be read.
    pub(super) async fn read(self, proxy: &Arc<Proxy>, footprint: Footprint) -> Result<(Bytes, Grant), BodyProblem> {
        let memory = proxy.memory.take_when_free(self.holder, footprint.with_body(self.length)).await;
        let memory = memory.map_err(BodyProblem::NoRoom)?;
        let (mut file, length) = (self.file, self.length);
        let read = blocking(move || {
            file.seek(SeekFrom::Start(0))?;
            let mut body = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            file.read_to_end(&mut body)?;
            Ok(body)
        });
        match read.await {
            Ok(body) => Ok((body.into(), memory)),
            Err(error) => {
                tell(&error);
                Err(BodyProblem::Broken(format!("it could not be read back from the disk: {error}")))
            }
        }
    }
}

async fn create(dir: &Path) -> Result<File, Option<io::Error>> {
    let dir = dir.to_owned();
    blocking(move || tempfile::tempfile_in(dir)).await.map_err(Some)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

fn tell(error: &io::Error) {
    tracing::warn!(%error, "a large request could not be kept on disk (server.spill_dir), and is refused as if there were none");
}
