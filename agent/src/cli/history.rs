//! `job history`: the versions of a job that the agent keeps, and what changed from one to the next.
//!
//! Source: upstream v1.10.0 command/job_history.go (behaviour only); `spec/http-api.md` 8.2.

use serde_json::Value;

use super::answer::Answer as _;
use super::client::path;
use super::table::{Pairs, quoted, time};
use super::{Cx, Exit, Failure, Verb, diff, find};
use crate::config::flags::Flag;

pub(super) const HISTORY: Verb = Verb {
    name: "job history",
    operands: "<job>",
    synopsis: "Show the kept versions of a job",
    about: "",
    flags: &[Flag::switch("p", "Show what changed from version to version"), Flag::value("version", "n", "Only this version")],
    run: history,
};

fn history(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, 1, "one argument: <job>")?;
    let (shows_diffs, wanted) = (cx.on("p"), cx.number("version")?);
    if shows_diffs && cx.on("json") {
        return Err(Failure::words("-json and -p exclude each other"));
    }
    let name = find::job(cx, operands.first().map_or("", |typed| typed.trim()))?;
    let params = [("namespace", name.namespace.as_str()), ("diffs", if shows_diffs { "true" } else { "" })];
    let answer = cx.client.get(&path(&["job", &name.id, "versions"]), &params).map_err(Failure::call("reading the job's versions"))?;
    let is_wanted = |job: &Value| wanted.is_none_or(|version| u64::try_from(job.int("Version")) == Ok(version));
    // The oldest has no diff.
    let diffs = answer.items("Diffs").iter().map(Some).chain(std::iter::repeat(None));
    let versions: Vec<(&Value, Option<&Value>)> = answer.items("Versions").iter().zip(diffs).filter(|(job, _)| is_wanted(job)).collect();
    match (wanted, versions.as_slice()) {
        (Some(version), []) => return Err(Failure::new(format!("Job {} has no version {version}", quoted(&name.id)))),
        (Some(_), [(job, _), ..]) if cx.on("json") => cx.say_json(job)?,
        _ if cx.on("json") => cx.say_json(answer.at("Versions"))?,
        (_, versions) => {
            let pages: Vec<String> = versions.iter().map(|(job, diff)| page(job, *diff)).collect();
            cx.say(pages.join("\n\n"))?;
        }
    }
    Ok(Exit::Done)
}

fn page(job: &Value, diff: Option<&Value>) -> String {
    let mut pairs = Pairs::default();
    pairs
        .add("Version", job.int("Version").to_string())
        .add("Stable", job.flag("Stable").to_string())
        .add("Submit Date", time(job.wall("SubmitTime")));
    match diff.filter(|diff| diff.text("Type") != "None") {
        Some(diff) => format!("{pairs}\nDiff        =\n{}", diff::text(diff, false)),
        None => pairs.to_string(),
    }
}
