//! Signal names, both ways. Pure.
//!
//! Shape: `SIGINT` <-> 2. The set is Nomad's (`spec/runtime.md` 2.3; v1.3.1 `consul-template/signals`, `SignalLookup`): SIGCHLD and SIGURG are
//! not in it, SIGNULL is 0. A name is exact; anything else is refused (decision 34).

use nix::libc;

/// Names a job or a request may use. Of two names for one number the first is shown.
const NAMES: [(&str, i32); 28] = [
    ("SIGNULL", 0),
    ("SIGABRT", libc::SIGABRT),
    ("SIGALRM", libc::SIGALRM),
    ("SIGBUS", libc::SIGBUS),
    ("SIGCONT", libc::SIGCONT),
    ("SIGFPE", libc::SIGFPE),
    ("SIGHUP", libc::SIGHUP),
    ("SIGILL", libc::SIGILL),
    ("SIGINT", libc::SIGINT),
    ("SIGIO", libc::SIGIO),
    ("SIGIOT", libc::SIGIOT),
    ("SIGKILL", libc::SIGKILL),
    ("SIGPIPE", libc::SIGPIPE),
    ("SIGPROF", libc::SIGPROF),
    ("SIGQUIT", libc::SIGQUIT),
    ("SIGSEGV", libc::SIGSEGV),
    ("SIGSTOP", libc::SIGSTOP),
    ("SIGSYS", libc::SIGSYS),
    ("SIGTERM", libc::SIGTERM),
    ("SIGTRAP", libc::SIGTRAP),
    ("SIGTSTP", libc::SIGTSTP),
    ("SIGTTIN", libc::SIGTTIN),
    ("SIGTTOU", libc::SIGTTOU),
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGUSR2", libc::SIGUSR2),
    ("SIGWINCH", libc::SIGWINCH),
    ("SIGXCPU", libc::SIGXCPU),
    ("SIGXFSZ", libc::SIGXFSZ),
];

/// The number of a name.
#[must_use]
pub fn number(name: &str) -> Option<i32> {
    NAMES.iter().find(|(known, _)| *known == name).map(|&(_, number)| number)
}

/// The name of a number; `None` for signals without one here (real-time ones, SIGCHLD).
#[must_use]
pub fn name(number: i32) -> Option<&'static str> {
    NAMES.iter().find(|(_, known)| *known == number).map(|&(name, _)| name)
}

/// All names (`os.signals` of the fingerprint).
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|&(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for (text, want) in [("SIGINT", Some(2)), ("SIGKILL", Some(9)), ("SIGNULL", Some(0)), ("SIGIOT", Some(6)), ("SIGWINCH", Some(28))] {
            assert_eq!(number(text), want, "{text}");
        }
        for bad in ["", "INT", "sigint", "SIGCHLD", "SIGURG", "SIGINT ", "2"] {
            assert_eq!(number(bad), None, "{bad}");
        }
        for text in names().filter(|text| *text != "SIGIOT") {
            assert_eq!(number(text).and_then(name), Some(text));
        }
        assert_eq!(name(6), Some("SIGABRT"));
        assert_eq!((name(17), name(34), name(-1)), (None, None, None));
    }
}
