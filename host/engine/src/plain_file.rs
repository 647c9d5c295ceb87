//! Plain files, read whole up to a bound: the one way in which Pointsman reads a file that an operator names.
//!
//! A pipe waits for its writer, a device has no end, and some files of the kernel wait for an event. None of them is
//! read: what is no plain file is refused before it is opened, and what took its place meanwhile is opened without
//! waiting and refused then.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// The reason why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is a directory, a pipe, a socket or a device.
    #[error("it is {0}; only a plain file is read")]
    NotPlain(&'static str),
    /// It has more bytes than it may have.
    #[error("it has {has} bytes or more, and at most {most} are read; is this the right file?")]
    TooLarge {
        /// Bytes that were seen, at least.
        has: u64,
        /// Largest file that is read, bytes.
        most: u64,
    },
    /// It is not UTF-8 text.
    #[error("line {line} is not UTF-8 text; save the file as UTF-8")]
    NotText {
        /// The first such line, from 1.
        line: usize,
    },
    /// Error of the operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Opens a plain file to be read; symbolic links are followed. Never waits.
///
/// # Errors
/// [`FileError::NotPlain`], or the system's.
pub fn open(path: &Path) -> Result<File, FileError> {
    // Asked first: to open some devices is to act on them.
    check(&std::fs::metadata(path)?)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

/// Reads a plain file of at most `max_bytes`. Its size is not believed beforehand: files of `/proc` say 0.
///
/// # Errors
/// [`FileError::NotPlain`], [`FileError::TooLarge`], or the system's.
pub fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, FileError> {
    let file = open(path)?;
    let said = file.metadata()?.len();
    if said > max_bytes {
        return Err(FileError::TooLarge { has: said, most: max_bytes });
    }
    // One more than it should have, so that its end is seen without another allocation.
    let mut bytes = Vec::with_capacity(said as usize + 1);
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(FileError::TooLarge { has: bytes.len() as u64, most: max_bytes });
    }
    Ok(bytes)
}

/// Reads a plain file of UTF-8 text of at most `max_bytes`.
///
/// # Errors
/// As [`read`]'s, and [`FileError::NotText`].
pub fn read_text(path: &Path, max_bytes: u64) -> Result<String, FileError> {
    String::from_utf8(read(path, max_bytes)?).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        FileError::NotText { line: before.iter().filter(|byte| **byte == b'\n').count() + 1 }
    })
}

fn check(meta: &Metadata) -> Result<(), FileError> {
    let kind = meta.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(FileError::NotPlain(what))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn refusal(path: &Path) -> String {
        read(path, 64).expect_err("it is no plain file").to_string()
    }

    #[test]
    fn only_plain_files_are_read_and_nothing_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, socket, link) = (dir.path().join("pipe"), dir.path().join("socket"), dir.path().join("link"));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        symlink(&pipe, &link).unwrap();
        assert!(refusal(&pipe).starts_with("it is a named pipe"));
        assert!(refusal(&link).starts_with("it is a named pipe"));
        assert!(refusal(&socket).starts_with("it is a socket"));
        assert!(refusal(dir.path()).starts_with("it is a directory"));
        assert!(refusal(Path::new("/dev/zero")).starts_with("it is a device"));
        assert!(refusal(&dir.path().join("none")).contains("No such file"));
    }

    #[test]
    fn the_bound_counts_what_is_read_and_not_what_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, large) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
        std::fs::write(&file, [b'x'; 64]).unwrap();
        symlink(&file, &link).unwrap();
        assert_eq!(read(&link, 64).unwrap().len(), 64);
        assert!(matches!(read(&link, 63), Err(FileError::TooLarge { has: 64, most: 63 })));
        File::create(&large).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(read(&large, 64), Err(FileError::TooLarge { most: 64, .. })));
        assert_eq!(read_text(Path::new("/proc/sys/kernel/ostype"), 64).unwrap(), "Linux\n");
        assert!(matches!(read(Path::new("/proc/self/status"), 64), Err(FileError::TooLarge { has: 65, most: 64 })));
        std::fs::write(&file, b"one\ntw\xffo").unwrap();
        assert!(matches!(read_text(&file, 64), Err(FileError::NotText { line: 2 })));
    }
}
