//! What a process has used, as Linux counts it.

/// Processor time and memory of a process so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// In user and kernel, all threads, in milliseconds.
    pub cpu_ms: u64,
    /// The most memory it ever had resident (VmHWM), in bytes.
    pub peak_bytes: u64,
}

/// The kernel counts processor time for `/proc` in hundredths of a second (USER_HZ), on every architecture Rust runs on.
const MS_PER_TICK: u64 = 10;

impl Usage {
    /// Of the process with that id; `None` when it is gone or this is not Linux.
    pub fn of(process: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        Some(Self { cpu_ms: cpu_ms(&stat)?, peak_bytes: peak_bytes(&status)? })
    }
}

/// Fields 14 and 15 of proc_pid_stat(5); the program's name, field 2, may hold blanks and parentheses.
fn cpu_ms(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) * MS_PER_TICK)
}

fn peak_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 2563 0 1 0 123 45 0 0 20 0 5 0 99 1 2";
        assert_eq!(cpu_ms(stat), Some(1_680));
        assert_eq!(cpu_ms("42 (x) S 1"), None);
        assert_eq!(peak_bytes("Name:\tx\nVmHWM:\t   10240 kB\nVmRSS:\t 5 kB\n"), Some(10 << 20));
        assert_eq!(peak_bytes("Name:\tx\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_something() {
        let usage = Usage::of(std::process::id()).expect("Linux");
        assert!(usage.peak_bytes > 1 << 20, "{usage:?}");
    }
}
