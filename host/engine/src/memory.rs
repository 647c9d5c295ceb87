//! The memory that this process may use: what its container, its limits and its machine leave it.

use std::path::{Path, PathBuf};

use super::plain_file;

/// A file of the kernel that says a size is no longer.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// A version 1 group without a limit has nearly all of 63 bits.
const UNLIMITED: u64 = 1 << 60;

/// Files in which a group of version 2 has its limits; beyond the second it is only slowed down, but that nearly to a halt.
const UNIFIED_FILES: [&str; 2] = ["memory.max", "memory.high"];

/// The memory of the least of this process's groups and limits, else of the machine, bytes; none where the system does not say.
pub fn limit_bytes() -> Option<u64> {
    limit_under(Path::new("/")).into_iter().chain(resource_limit()).min()
}

/// The least of the limits that the files under `root` tell of.
fn limit_under(root: &Path) -> Option<u64> {
    let read = |path: &str| plain_file::read_text(&root.join(path), MAX_FILE_BYTES).ok();
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let files = groups.lines().filter_map(limit_files).flatten();
    let of_groups = files.filter_map(|file| read(&file)?.trim().parse().ok()).filter(|&limit| limit < UNLIMITED);
    of_groups.chain(read("proc/meminfo").as_deref().and_then(machine_memory)).min()
}

/// The files of limits of the group in a line of `/proc/self/cgroup`, and of those that it is in (cgroups(7)). In a container
/// they are often mounted as if its group were the highest, so that one is among them.
fn limit_files(line: &str) -> Option<Vec<String>> {
    let mut fields = line.splitn(3, ':');
    let (_number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
    let (mount, files) = match controllers {
        "" => ("sys/fs/cgroup", &UNIFIED_FILES[..]),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", &["memory.limit_in_bytes"][..])
        }
        _ => return None,
    };
    let group = PathBuf::from(group.trim_start_matches('/'));
    let groups = group.ancestors().map(|group| Path::new(mount).join(group));
    Some(groups.flat_map(|group| files.iter().map(move |file| group.join(file).display().to_string())).collect())
}

/// All memory of the machine, bytes.
fn machine_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The limits of this process (`ulimit -v`, `ulimit -d`).
fn resource_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    [Resource::As, Resource::Data].into_iter().filter_map(|resource| getrlimit(resource).current).min()
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
                    ("proc/self/cgroup", "0::/system.slice/pointsman.service\n"),
                    ("sys/fs/cgroup/system.slice/pointsman.service/memory.max", "1073741824\n"),
                    ("sys/fs/cgroup/system.slice/pointsman.service/memory.high", "805306368\n"),
                ],
                768 << 20,
            ),
            (vec![("proc/self/cgroup", "0::/../other\n"), ("sys/fs/cgroup/memory.max", "268435456\n")], 256 << 20),
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

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_says_how_much_it_has() {
        assert!(limit_bytes().is_some_and(|bytes| (16 << 20..1 << 50).contains(&bytes)));
    }
}
