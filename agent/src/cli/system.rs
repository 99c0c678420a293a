//! `system gc`: have the agent forget what is over.
//!
//! Source: upstream v1.10.0 command/system_gc.go (behaviour only); `spec/http-api.md` 8.2.

use super::{Cx, Exit, Failure, Verb};

pub(super) const GC: Verb = Verb {
    name: "system gc",
    operands: "",
    synopsis: "Forget at once what is over: jobs, evaluations, allocations, deployments",
    about: "Prints nothing; the agent's answer is empty.",
    flags: &[],
    run: gc,
};

fn gc(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    cx.operands(0, 0, "no arguments")?;
    cx.client.put("/v1/system/gc", &[], None).map_err(Failure::call("running the garbage collection"))?;
    Ok(Exit::Done)
}
