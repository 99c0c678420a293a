//! `status`: the status page of whatever an identifier names.
//!
//! Asks the lists of jobs, allocations, evaluations, nodes and deployments by prefix and shows the one match; an exact match wins.
//! Source: upstream v1.10.5 command/status.go (behaviour only; it asks `/v1/search`, which knows no more than these lists).

use serde_json::Value;

use super::answer::{Answer as _, items};
use super::table::quoted;
use super::{Cx, Exit, Failure, Verb, alloc, deployment, eval, find, job, node};
use crate::config::flags::Flag;

pub(super) const STATUS: Verb = Verb {
    name: "status",
    operands: "[<identifier>]",
    synopsis: "List jobs, or show the job, allocation, evaluation, node or deployment of this name",
    about: "",
    flags: &[Flag::switch("verbose", "Show whole identifiers and exact times")],
    run: status,
};

/// What an identifier can name: the heading, and the verb that shows it.
const KINDS: [(&str, &str, &Verb); 5] = [
    ("Jobs", "", &job::STATUS),
    ("Allocs", "/v1/allocations", &alloc::STATUS),
    ("Evals", "/v1/evaluations", &eval::STATUS),
    ("Nodes", "/v1/nodes", &node::STATUS),
    ("Deployments", "/v1/deployments", &deployment::STATUS),
];

fn status(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(0, 1, "at most one argument: <identifier>")?;
    let Some(typed) = operands.first() else { return job::status_of_all(cx) };
    let mut matches: Vec<(&str, &Verb, Vec<String>)> = Vec::new();
    for (heading, route, verb) in KINDS {
        let found = match route {
            "" => {
                let list = cx.client.get("/v1/jobs", &[("prefix", typed)]).map_err(Failure::call("looking for jobs"))?;
                identifiers(items(&list))
            }
            route if find::is_id_prefix(typed) => identifiers(&find::all(cx, route, "object", typed)?),
            _ => Vec::new(),
        };
        if found.contains(typed) {
            return (verb.run)(cx);
        }
        if !found.is_empty() {
            matches.push((heading, verb, found));
        }
    }
    match matches.as_slice() {
        [] => Err(Failure::new(format!("Nothing with prefix or ID {} found", quoted(typed)))),
        [(_, verb, found)] if found.len() == 1 => (verb.run)(cx),
        several => {
            let lists: String = several.iter().map(|(heading, _, found)| format!("\n\n{heading}:\n{}", found.join(", "))).collect();
            Err(Failure::new(format!("Prefix {} matched multiple objects{lists}", quoted(typed))))
        }
    }
}

fn identifiers(list: &[Value]) -> Vec<String> {
    list.iter().map(|item| item.text("ID").to_owned()).collect()
}
