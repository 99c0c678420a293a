//! The one executable. Called as `dunlin-shim` it is the parent of one task; otherwise the agent or a verb of the command line.
//!
//! The shim runs once per task, so what it touches counts N times: its name is looked at before anything else is.

use std::path::Path;
use std::process::ExitCode;

use dunlin_hal::linux::clock::KernelClock;
use dunlin_runtime::proc::spawn::SHIM_ARG0;
use dunlin_runtime::shim;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    if args.next().is_some_and(|program| program == SHIM_ARG0) {
        let Some(dir) = args.next() else { return ExitCode::FAILURE };
        let code = shim::main::main(&KernelClock, Path::new(&dir));
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    dunlin::cli::main(args)
}
