//! The one executable. Called as `dunlin-shim` it is the parent of one task; otherwise the agent or a verb of the command line.
//!
//! The shim runs once per task, so what it touches counts N times: its name is looked at before anything else is.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next();
    if program.is_some_and(|program| program == dunlin_runtime::proc::spawn::SHIM_ARG0) {
        return dunlin_runtime::shim::main::run(args);
    }
    dunlin::cli::main(args)
}
