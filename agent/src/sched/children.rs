//! Jobs that are made from jobs: what a slot makes of a periodic one, what a dispatch makes of a parameterized one. Pure.
//!
//! Shape: a parent as it is stored becomes its child. Never: ids that are taken (the caller looks), rows.
//! Source: upstream v1.10.0 nomad/periodic.go `deriveJob`, nomad/job_endpoint.go `Dispatch`, `validateDispatchRequest` (behaviour only).

use std::collections::BTreeMap;

use dunlin_hal::clock::Wall;

use crate::model::job::{Bytes, Job, Parameterized};

/// Longest payload of a dispatch.
const PAYLOAD_BYTES_MAX: usize = 16 << 10;

/// What a dispatch brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dispatch {
    /// For the task that wants it.
    pub payload: Vec<u8>,
    /// Laid over the parent's.
    pub meta: BTreeMap<String, String>,
    /// A dispatch with it is done once; empty = none.
    pub token: String,
    /// Comes before the time in the child's id; may be empty.
    pub id_prefix: String,
}

/// Beginning of the ids of a parameterized job's children.
#[must_use]
pub fn dispatch_prefix(parent: &str) -> String {
    format!("{parent}/dispatch-")
}

/// The id of the child of a slot.
#[must_use]
pub fn slot_id(parent: &str, slot: Wall) -> String {
    format!("{parent}/periodic-{}", slot.seconds())
}

/// The id of the child of a dispatch; `word` makes it one of a kind.
#[must_use]
pub fn dispatch_id(parent: &str, prefix: &str, at: Wall, word: u32) -> String {
    let dash = if prefix.is_empty() { "" } else { "-" };
    format!("{}{prefix}{dash}{}-{word:08x}", dispatch_prefix(parent), at.seconds())
}

/// Makes a job its own child: what it was is the parent's name.
fn become_child(job: &mut Job, id: String) {
    job.name = Some(id.clone());
    job.parent_id = core::mem::replace(&mut job.id, id);
}

/// Makes of a periodic job the child with an id of [`slot_id`].
pub fn of_slot(job: &mut Job, id: String) {
    become_child(job, id);
    job.periodic = None;
}

/// Makes of a parameterized job the child with an id of [`dispatch_id`]; the dispatch was checked.
pub fn of_dispatch(job: &mut Job, id: String, dispatch: Dispatch) {
    become_child(job, id);
    job.dispatched = true;
    job.dispatch_idempotency_token = dispatch.token;
    job.payload = Bytes(dispatch.payload);
    job.meta.extend(dispatch.meta);
}

/// Holds a dispatch against what its job allows.
///
/// # Errors
/// The text of the answer.
pub fn check_dispatch(rules: &Parameterized, dispatch: &Dispatch) -> Result<(), String> {
    let bytes = dispatch.payload.len();
    match rules.payload.as_str() {
        "required" if bytes == 0 => return Err("Payload is not provided but required by parameterized job".to_owned()),
        "forbidden" if bytes > 0 => return Err("Payload provided but forbidden by parameterized job".to_owned()),
        _ => {}
    }
    if bytes > PAYLOAD_BYTES_MAX {
        return Err(format!("Payload exceeds maximum size; {bytes} > {PAYLOAD_BYTES_MAX}"));
    }
    let is_allowed = |key: &String| rules.meta_required.contains(key) || rules.meta_optional.contains(key);
    let unpermitted: Vec<&str> = dispatch.meta.keys().filter(|key| !is_allowed(key)).map(String::as_str).collect();
    if !unpermitted.is_empty() {
        return Err(format!("Dispatch request included unpermitted metadata keys: [{}]", unpermitted.join(" ")));
    }
    let mut missing: Vec<&str> = rules.meta_required.iter().filter(|key| !dispatch.meta.contains_key(*key)).map(String::as_str).collect();
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        return Err(format!("Dispatch did not provide required meta keys: [{}]", missing.join(" ")));
    }
    // The rules of any job's id, which upstream does not look at again.
    if let Some(what) = [(' ', "space"), ('\0', "null character")].iter().find(|(c, _)| dispatch.id_prefix.contains(*c)) {
        return Err(format!("Job ID contains a {}", what.1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::Periodic;

    fn parent() -> Job {
        Job {
            id: "p".to_owned(),
            name: Some("shown".to_owned()),
            periodic: Some(Periodic::default()),
            parameterized_job: Some(Parameterized { meta_required: vec!["a".to_owned()], ..Parameterized::default() }),
            meta: BTreeMap::from([("a".to_owned(), "job".to_owned()), ("b".to_owned(), "job".to_owned())]),
            ..Job::default()
        }
    }

    #[test]
    fn a_child_is_its_parent_with_another_name() {
        let at = Wall(1_795_331_160_999_999_999);
        let mut slot = parent();
        of_slot(&mut slot, slot_id("p", at));
        assert_eq!((slot.id.as_str(), slot.name(), slot.parent_id.as_str()), ("p/periodic-1795331160", "p/periodic-1795331160", "p"));
        assert!(slot.periodic.is_none() && slot.parameterized_job.is_some() && slot.meta == parent().meta);

        let mut job = parent();
        let dispatch = Dispatch {
            payload: vec![1],
            meta: BTreeMap::from([("a".to_owned(), "given".to_owned())]),
            token: "t".to_owned(),
            id_prefix: String::new(),
        };
        of_dispatch(&mut job, dispatch_id("p", "", at, 0x12), dispatch);
        assert_eq!((job.id.as_str(), job.name(), job.parent_id.as_str()), ("p/dispatch-1795331160-00000012", job.id.as_str(), "p"));
        assert_eq!((job.dispatched, job.payload.0, job.dispatch_idempotency_token.as_str()), (true, vec![1], "t"));
        assert_eq!(job.meta.values().map(String::as_str).collect::<Vec<_>>(), ["given", "job"]);
        assert!(job.parameterized_job.is_some() && job.periodic.is_some());
        assert_eq!(dispatch_id("p", "night", at, u32::MAX), "p/dispatch-night-1795331160-ffffffff");
    }

    #[track_caller]
    fn check(rules: [&str; 3], payload_bytes: usize, meta: &str, want: Option<&str>) {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rules = Parameterized { payload: rules[0].to_owned(), meta_required: words(rules[1]), meta_optional: words(rules[2]) };
        let meta = words(meta).into_iter().map(|key| (key, String::new())).collect();
        let dispatch = Dispatch { payload: vec![7; payload_bytes], meta, ..Dispatch::default() };
        assert_eq!(check_dispatch(&rules, &dispatch).err().as_deref(), want, "{rules:?}");
    }

    #[test]
    fn a_dispatch_is_held_against_its_job() {
        check(["optional", "", ""], 0, "", None);
        check(["optional", "", ""], PAYLOAD_BYTES_MAX, "", None);
        check(["required", "", ""], 1, "", None);
        check(["forbidden", "", ""], 0, "", None);
        check(["optional", "a b", "c"], 0, "b a", None);
        check(["required", "", ""], 0, "", Some("Payload is not provided but required by parameterized job"));
        check(["forbidden", "", ""], 1, "", Some("Payload provided but forbidden by parameterized job"));
        check(["optional", "", ""], PAYLOAD_BYTES_MAX + 1, "", Some("Payload exceeds maximum size; 16385 > 16384"));
        check(["optional", "a", ""], 0, "a z y", Some("Dispatch request included unpermitted metadata keys: [y z]"));
        check(["optional", "c a a b", ""], 0, "b", Some("Dispatch did not provide required meta keys: [a c]"));
        let prefixed = |id_prefix: &str| {
            check_dispatch(&Parameterized::default(), &Dispatch { id_prefix: id_prefix.to_owned(), ..Dispatch::default() }).err()
        };
        assert_eq!(prefixed("a b"), Some("Job ID contains a space".to_owned()));
        assert_eq!(prefixed("a\0"), Some("Job ID contains a null character".to_owned()));
    }
}
