//! What a test says beside passing or failing: that it cannot run here, and figures it measured. Written past the harness's capture,
//! one line each, so that `tests/run` finds it: `skipped: <test>: <why>` and `figure: <test>: <what>`.

use std::fmt::Display;
use std::io::Write;

/// Says why the test cannot run here, and leaves it.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        $crate::skip::say("skipped", format_args!($($why)*));
        return;
    }};
}

/// Prints a figure of the test.
#[macro_export]
macro_rules! figure {
    ($($what:tt)*) => { $crate::skip::say("figure", format_args!($($what)*)) };
}

/// One line. The name is the thread's: the harness runs each test in a thread named after it.
pub fn say(kind: &str, text: impl Display) {
    let thread = std::thread::current();
    let line = format!("{kind}: {}: {text}\n", thread.name().unwrap_or("test"));
    // Nobody reads: nothing to be done about it.
    let _ = std::io::stdout().write_all(line.as_bytes());
}

/// True for root.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
