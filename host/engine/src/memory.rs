//! Memory that this process may use in all.

use std::path::Path;

use super::plain_file;

/// A file of the kernel that says a size is no longer.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The memory of the container, else of the machine, in bytes; none where the system does not say.
pub(super) fn total_bytes() -> Option<u64> {
    let number = |file: &str| plain_file::read_text(Path::new(file), MAX_FILE_BYTES).ok()?.trim().parse::<u64>().ok();
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let machine = || {
        let text = plain_file::read_text(Path::new("/proc/meminfo"), MAX_FILE_BYTES).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
    };
    container.into_iter().filter_map(number).chain(machine()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_machine_says_how_much_it_has() {
        assert!(total_bytes().is_some_and(|bytes| (16 << 20..1 << 50).contains(&bytes)));
    }
}
