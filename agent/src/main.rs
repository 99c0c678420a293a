//! The one executable. Called as `dunlin-shim` it is the parent of one task; otherwise the agent or a verb of the command line.
//!
//! The shim runs once per task, so what it touches counts N times: its name is looked at before anything else is.

use std::process::ExitCode;

use dunlin_hal::linux::clock::KernelClock;
use dunlin_runtime::shim;

fn main() -> ExitCode {
    if let Some(dir) = shim::invoked() {
        let code = shim::main(&KernelClock, &dir);
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    dunlin::cli::main(std::env::args_os().skip(1))
}
