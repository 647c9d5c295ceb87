//! The memory that this process may use: what its container, its limits and its machine leave it.

use std::path::{Path, PathBuf};

/// The limit where nothing tells one.
const UNKNOWN_LIMIT: u64 = 2 << 30;

/// The smallest budget that a limit leads to.
const MIN_BUDGET: u64 = 16 << 20;

/// A version 1 group without a limit has nearly all of 63 bits.
const UNLIMITED: u64 = 1 << 60;

/// The budget for requests where the configuration has none: half of what the process may use, bytes. The other half is for
/// policies, the store and answers.
pub(super) fn default_budget() -> u64 {
    let limit = limit_under(Path::new("/")).into_iter().chain(resource_limit()).min().unwrap_or(UNKNOWN_LIMIT);
    (limit / 2).max(MIN_BUDGET)
}

/// The least of the limits that the files under `root` tell of.
fn limit_under(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let files = groups.lines().filter_map(limit_files).flatten();
    let of_groups = files.filter_map(|file| read(&file)?.trim().parse().ok()).filter(|&limit| limit < UNLIMITED);
    of_groups.chain(read("proc/meminfo").as_deref().and_then(machine_memory)).min()
}

/// The files of limits of the group in a line of `/proc/self/cgroup`, and of those that it is in. In a container they are often
/// mounted as if its group were the highest, so that one is among them.
fn limit_files(line: &str) -> Option<Vec<String>> {
    let mut fields = line.splitn(3, ':');
    let (_number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return None,
    };
    let group = PathBuf::from(group.trim_start_matches('/'));
    Some(group.ancestors().map(|group| Path::new(mount).join(group).join(file).display().to_string()).collect())
}

/// All memory of the machine, bytes.
fn machine_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The limits of this process (`ulimit -v`, `ulimit -d`).
#[cfg(unix)]
fn resource_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    [Resource::As, Resource::Data].into_iter().filter_map(|resource| getrlimit(resource).current).min()
}

#[cfg(not(unix))]
fn resource_limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemFree: 5 kB\nMemTotal:        8000000 kB\n");

    #[test]
    fn the_least_of_groups_and_machine_counts() {
        for (files, limit) in [
            (vec![], 8_192_000_000),
            (vec![("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "536870912\n")], 512 << 20),
            (vec![("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")], 8_192_000_000),
            (
                vec![
                    ("proc/self/cgroup", "0::/kube/pod1/c1\n"),
                    ("sys/fs/cgroup/kube/pod1/c1/memory.max", "max\n"),
                    ("sys/fs/cgroup/kube/pod1/memory.max", "1073741824\n"),
                ],
                1 << 30,
            ),
            (
                vec![
                    ("proc/self/cgroup", "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
                ],
                256 << 20,
            ),
            (
                vec![
                    ("proc/self/cgroup", "4:memory:/\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ],
                8_192_000_000,
            ),
        ] {
            let root = root(&[files.clone(), vec![MEMINFO]].concat());
            assert_eq!(limit_under(root.path()), Some(limit), "{files:?}");
        }
        assert_eq!(limit_under(root(&[]).path()), None);
    }
}
