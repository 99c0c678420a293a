//! Names of log files: `<task>.<stdout|stderr>.<n>`. Pure.
//!
//! Read from the right, because a task's name may hold dots and digits. Only the form that [`LogName`] writes is a log file;
//! whatever else lies in the folder is not ours. Source: `spec/runtime.md` 4.

use core::fmt;

/// Folder of all log files, relative to the allocation's.
pub const FOLDER: &str = "alloc/logs";

/// Which output of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The word in file names and queries.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// The stream of a word; case counts.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "stdout" => Some(Self::Stdout),
            "stderr" => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// One log file; `Display` writes its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogName<'a> {
    /// The task, not empty.
    pub task: &'a str,
    /// Which of its outputs.
    pub stream: Stream,
    /// Counts up with each rotation, from 0.
    pub index: u32,
}

impl<'a> LogName<'a> {
    /// Reads a file name; `None` when it is not a log file's.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        let (rest, index) = name.rsplit_once('.')?;
        let (task, stream) = rest.rsplit_once('.')?;
        let is_canonical = index.bytes().all(|c| c.is_ascii_digit()) && (index.len() == 1 || !index.starts_with('0'));
        if task.is_empty() || !is_canonical {
            return None;
        }
        Some(Self { task, stream: Stream::parse(stream)?, index: index.parse().ok()? })
    }
}

impl fmt::Display for LogName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.task, self.stream.as_str(), self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, want: Option<(&str, Stream, u32)>) {
        let want = want.map(|(task, stream, index)| LogName { task, stream, index });
        assert_eq!(LogName::parse(name), want, "{name}");
        if let Some(want) = want {
            assert_eq!(want.to_string(), name);
        }
    }

    #[test]
    fn names_are_read_from_the_right() {
        check("web.stdout.0", Some(("web", Stream::Stdout, 0)));
        check("a.stdout.1.stderr.12", Some(("a.stdout.1", Stream::Stderr, 12)));
        check("7.stdout.4294967295", Some(("7", Stream::Stdout, u32::MAX)));
        check("stdout.stdout.0", Some(("stdout", Stream::Stdout, 0)));
        check("..stdout.0", Some((".", Stream::Stdout, 0)));
    }

    #[test]
    fn all_else_is_not_a_log() {
        for name in [
            "",
            ".",
            "..",
            "0",
            "web",
            "web.stdout",
            "web.stdout.",
            "web.stdout.x",
            "web.stdout.+1",
            "web.stdout.-1",
            "web.stdout.01",
            "web.stdout.00",
            "web.stdout.4294967296",
            "web.stdout.0.gz",
            "web.STDOUT.0",
            "stdout.0",
            ".stdout.0",
            "web.stdin.0",
            ".web.stdout.fifo",
            "web.stdout.٣",
        ] {
            check(name, None);
        }
        check(&format!("{}.0", "9".repeat(100_000)), None);
    }
}
