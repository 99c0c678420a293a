//! `version`: which build this is. Asks nobody.

use serde_json::json;

use super::{Cx, Exit, Failure, Verb};

pub(super) const VERSION: Verb =
    Verb { name: "version", operands: "", synopsis: "Show the version of this program", about: "", flags: &[], run: version };

/// Version of the package, which is that of the product.
const NUMBER: &str = env!("CARGO_PKG_VERSION");

fn version(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    cx.operands(0, 0, "no arguments")?;
    let target = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    if cx.on("json") {
        cx.say_json(&json!({ "Version": NUMBER, "Target": target }))?;
    } else {
        cx.say(format!("Dunlin v{NUMBER} ({target})"))?;
    }
    Ok(Exit::Done)
}
