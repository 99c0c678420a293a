//! Family `/v1/client/fs/...`: list, stat, cat, readat, stream and logs of one allocation's files.
//!
//! Each operation checks its parameters and gives back a [`Machine`]; routes, rights and unknown allocations are settled before.
//! Order of checks: parameters, then the allocation's state, then the file (`spec/http-api.md` 5.4); the file is looked at before
//! any header is sent, so its errors have a real status. Texts and statuses: the table of section 5, decision 34.
//! Bounds: one read of `frame_bytes_max` at a time; a listing is encoded in pieces of [`PIECE_BYTES`].
//! Source: `spec/http-api.md` 5; upstream v1.3.1 command/agent/fs_endpoint.go, client/fs_endpoint.go (behaviour only).

mod follow;
mod whole;

use dunlin_hal::budget::Budget;
use dunlin_runtime::fs::path::AskedPath;
use dunlin_runtime::id::AllocId;
use dunlin_runtime::logs::follow::{Origin, Position};
use dunlin_runtime::logs::name::Stream;

use super::body::{FileError, Machine};
use super::error::ApiError;
use super::route::{Acl, Family, client};
use super::{Answer, Ask, Cx, unknown_alloc};
use crate::wire::go_text;
use follow::{Following, Source};
use whole::{Cat, Listing, Looked, Shape};

/// The routes.
pub const FAMILY: Family = Family {
    routes: &[
        client("/v1/client/fs/ls/{id}", Acl::ReadFs, |cx, ask| answer(cx, ask, ls)),
        client("/v1/client/fs/stat/{id}", Acl::ReadFs, |cx, ask| answer(cx, ask, stat)),
        client("/v1/client/fs/cat/{id}", Acl::ReadFs, |cx, ask| answer(cx, ask, cat)),
        client("/v1/client/fs/readat/{id}", Acl::ReadFs, |cx, ask| answer(cx, ask, readat)),
        client("/v1/client/fs/stream/{id}", Acl::ReadFs, |cx, ask| answer(cx, ask, stream)),
        client("/v1/client/fs/logs/{id}", Acl::ReadLogs, |cx, ask| answer(cx, ask, logs)),
        client("/v1/client/fs/{verb}", Acl::None, no_alloc),
        client("/v1/client/fs/{verb..}", Acl::None, no_verb),
    ],
};

/// Verbs that may stand without an allocation behind them.
const VERBS: &[&str] = &["ls", "stat", "cat", "readat", "stream", "logs"];

fn no_alloc(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    if VERBS.contains(&ask.id) { Err(ApiError::new(400, "must provide a valid alloc id")) } else { no_verb(cx, ask) }
}

fn no_verb(_: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Err(ApiError::new(404, "Invalid method"))
}

fn answer(cx: &mut Cx<'_>, ask: &Ask<'_>, make: fn(&Target<'_>, &Query, &Budget) -> Made) -> Result<Answer, ApiError> {
    if ask.id.is_empty() {
        return Err(ApiError::new(400, "must provide a valid alloc id"));
    }
    let alloc = cx.store.view().alloc(ask.client_alloc()?)?.ok_or_else(|| unknown_alloc(ask.id))?;
    let tasks: Vec<(String, bool)> = alloc.tasks.iter().map(|task| (task.name.clone(), !task.state.started_at.is_unset())).collect();
    let target = Target { alloc: alloc.id, tasks: &tasks, is_destroyed: alloc.is_destroyed };
    let machine = make(&target, ask.query.pairs(), cx.budget)?;
    Ok(Answer { stream_of: Some(alloc.id), ..Answer::machine(machine) })
}

/// Size at which a piece of a listing is sent.
const PIECE_BYTES: usize = 16 << 10;

/// The allocation whose files are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The allocation.
    pub alloc: AllocId,
    /// Its tasks, and whether each has ever started.
    pub tasks: &'a [(String, bool)],
    /// Its folder has been removed.
    pub is_destroyed: bool,
}

/// Decoded query parameters, in the order they were sent.
pub type Query = [(String, String)];

/// An operation's answer: a machine, or an error before any file was looked at.
pub type Made = Result<Box<dyn Machine>, ApiError>;

/// `ls`: the entries of a folder. `path` defaults to the allocation's folder.
pub fn ls(target: &Target<'_>, query: &Query, _budget: &Budget) -> Made {
    let path = match param(query, "path") {
        "" => "/",
        path => path,
    };
    let verb = Verb::List;
    check_path(verb, path)?;
    if target.is_destroyed {
        return Err(verb.refuse(&FileError::NotFound(path.to_owned())));
    }
    Ok(Box::new(Listing::new(target.alloc, path, Shape::of(query))))
}

/// `stat`: one entry with its content type.
pub fn stat(target: &Target<'_>, query: &Query, _budget: &Budget) -> Made {
    let path = file_name(query)?;
    let verb = Verb::Stat;
    check_path(verb, path)?;
    if target.is_destroyed {
        return Err(verb.refuse(&FileError::NotFound(path.to_owned())));
    }
    Ok(Box::new(Looked::new(target.alloc, path, Shape::of(query))))
}

/// `cat`: a whole file.
pub fn cat(target: &Target<'_>, query: &Query, budget: &Budget) -> Made {
    let path = file_name(query)?;
    check_there(target)?;
    check_path(Verb::Cat, path)?;
    Ok(Box::new(Cat::new(target.alloc, path, 0, None, budget.frame_bytes_max)))
}

/// `readat`: a part of a file.
pub fn readat(target: &Target<'_>, query: &Query, budget: &Budget) -> Made {
    let path = file_name(query)?;
    let failed = |name: &str, why: String| ApiError::new(500, format!("error parsing {name}: {why}"));
    let offset = parse_int(param(query, "offset")).map_err(|why| failed("offset", why))?;
    let limit = match param(query, "limit") {
        "" => 0,
        text => parse_int(text).map_err(|why| failed("limit", why))?,
    };
    check_there(target)?;
    check_path(Verb::Cat, path)?;
    let limit = u64::try_from(limit).ok().filter(|&limit| limit > 0);
    Ok(Box::new(Cat::new(target.alloc, path, seekable(path, offset)?, limit, budget.frame_bytes_max)))
}

/// `stream`: one file in frames; follows unless told otherwise.
pub fn stream(target: &Target<'_>, query: &Query, budget: &Budget) -> Made {
    let path = file_name(query)?;
    let is_follow = flag(query, "follow", true, 500)?;
    let is_plain = flag(query, "plain", false, 500)?;
    let offset = offset(query, 500)?;
    let origin = origin(query)?;
    check_there(target)?;
    check_path(Verb::Stream, path)?;
    let offset = if origin == Origin::Start { seekable(path, offset)? } else { u64::try_from(offset).unwrap_or(0) };
    let source = Source::File { path: path.to_owned() };
    Ok(Box::new(Following::new(target.alloc, source, Position { origin, offset }, is_follow, is_plain, budget.frame_bytes_max)))
}

/// `logs`: a task's output across its rotated files.
pub fn logs(target: &Target<'_>, query: &Query, budget: &Budget) -> Made {
    let task = param(query, "task");
    if task.is_empty() {
        return Err(ApiError::new(400, "must provide task name"));
    }
    let is_follow = flag(query, "follow", false, 400)?;
    let is_plain = flag(query, "plain", false, 400)?;
    let stream = Stream::parse(param(query, "type")).ok_or_else(|| ApiError::new(400, "must provide log type (stdout/stderr)"))?;
    let offset = u64::try_from(offset(query, 400)?).unwrap_or(0);
    let origin = origin(query)?;
    check_there(target)?;
    match target.tasks.iter().find(|(name, _)| name == task) {
        None => return Err(ApiError::new(400, format!("unknown task name {}", go_text::quote(task)))),
        Some((_, false)) => {
            let text = format!("task {} not started yet. No logs available", go_text::quote(task));
            return Err(ApiError::new(404, text));
        }
        Some((_, true)) => {}
    }
    let source = Source::Log { task: task.to_owned(), stream };
    Ok(Box::new(Following::new(target.alloc, source, Position { origin, offset }, is_follow, is_plain, budget.frame_bytes_max)))
}

/// The first value of a parameter; empty when it is absent.
fn param<'a>(query: &'a Query, name: &str) -> &'a str {
    query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

fn file_name(query: &Query) -> Result<&str, ApiError> {
    match param(query, "path") {
        "" => Err(ApiError::new(400, "must provide a file name")),
        path => Ok(path),
    }
}

fn flag(query: &Query, name: &str, default: bool, status: u16) -> Result<bool, ApiError> {
    match param(query, name) {
        "" => Ok(default),
        text => go_text::parse_bool(text).map_err(|why| ApiError::new(status, format!("failed to parse {name} field to boolean: {why}"))),
    }
}

fn offset(query: &Query, status: u16) -> Result<i64, ApiError> {
    match param(query, "offset") {
        "" => Ok(0),
        text => parse_int(text).map_err(|why| ApiError::new(status, format!("error parsing offset: {why}"))),
    }
}

fn origin(query: &Query) -> Result<Origin, ApiError> {
    match param(query, "origin") {
        "" | "start" => Ok(Origin::Start),
        "end" => Ok(Origin::End),
        _ => Err(ApiError::new(400, "origin must be start or end")),
    }
}

/// A decimal number as Go reads it; else Go's text.
fn parse_int(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let why = if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) { "invalid syntax" } else { "value out of range" };
    text.parse().map_err(|_| format!("strconv.ParseInt: parsing {}: {why}", go_text::quote(text)))
}

fn seekable(path: &str, offset: i64) -> Result<u64, ApiError> {
    u64::try_from(offset).map_err(|_| ApiError::new(500, format!("can't seek to offset {offset}: seek {path}: invalid argument")))
}

fn check_there(target: &Target<'_>) -> Result<(), ApiError> {
    if target.is_destroyed { Err(gone(target.alloc)) } else { Ok(()) }
}

/// What the path's text alone already forbids.
fn check_path(verb: Verb, path: &str) -> Result<(), ApiError> {
    match AskedPath(path).resolve() {
        Ok(_) => Ok(()),
        Err(error) => Err(verb.refuse(&error)),
    }
}

fn gone(alloc: AllocId) -> ApiError {
    ApiError::new(404, format!("state for allocation {alloc} not found on client"))
}

/// How an operation names itself in errors, and which statuses it gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    List,
    Stat,
    Cat,
    Stream,
}

impl Verb {
    /// The row of the table in `spec/http-api.md` 5.
    fn refuse(self, error: &FileError) -> ApiError {
        let looks_only = matches!(self, Self::List | Self::Stat);
        let status = match error {
            FileError::Permission(_) => 403,
            FileError::NotFound(_) if looks_only => 404,
            FileError::Secret(_) | FileError::Private(_) => 500,
            FileError::TooMany(..) | FileError::Io(..) => 500,
            _ if looks_only => 500,
            _ => 400,
        };
        let said = match self {
            Self::List | Self::Stream => "open",
            Self::Stat | Self::Cat => "stat",
        };
        let text = match error {
            FileError::NotFound(_) | FileError::NotDirectory(_) | FileError::TooMany(_) | FileError::Io(..) => format!("{said} {error}"),
            FileError::IsDirectory(path) => format!("file {} is a directory", go_text::quote(path)),
            _ => error.to_string(),
        };
        ApiError::new(status, text)
    }
}

#[cfg(test)]
mod tests;
