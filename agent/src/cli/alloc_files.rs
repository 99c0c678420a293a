//! `alloc logs` and `alloc fs`: what tasks have written.
//!
//! Logs and followed files arrive as frames (`spec/http-api.md` 5.4), one at a time, so memory stays at one frame; plain files
//! arrive as bytes. The bytes go to standard output as they are. Following both logs at once takes one thread each, with room for
//! one frame, and keeps them apart: standard output and standard error, as the task wrote them.
//! Source: upstream v1.10.5 command/alloc_logs.go, alloc_fs.go (behaviour only).

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use serde_json::Value;

use super::alloc::{TASK, VERBOSE, named_task, only_task};
use super::answer::{Answer as _, items};
use super::client::path;
use super::table::{Table, bytes, quoted, time};
use super::tail::{Cutter, Start, frames};
use super::{Cx, Exit, Failure, Verb, find};
use crate::config::flags::Flag;
use crate::wire::stream_frame::{Frame, Received};

/// Bytes copied at once from a plain file.
const COPY_BYTES: usize = 16 << 10;

const JOB: Flag = Flag::switch("job", "The first argument is a job: its newest running allocation");
const GROUP: Flag = Flag::value("group", "name", "With -job: an allocation of this task group");
const LINES: Flag = Flag::value("n", "lines", "Start so many lines before the end; implies -tail");
const BYTES: Flag = Flag::value("c", "bytes", "Start so many bytes before the end; implies -tail");

pub(super) const LOGS: Verb = Verb {
    name: "alloc logs",
    operands: "<allocation> [<task>]",
    synopsis: "Show what a task has logged",
    about: "Standard output unless -stderr is given. With -f alone both logs are followed from now on.\n\
            With -json the stream's frames are printed, one a line.",
    flags: &[
        Flag::switch("f", "Go on when the end is reached"),
        Flag::switch("stdout", "The task's standard output"),
        Flag::switch("stderr", "The task's standard error"),
        Flag::switch("tail", "Start 10 lines before the end"),
        LINES,
        BYTES,
        TASK,
        JOB,
        GROUP,
        VERBOSE,
    ],
    run: logs,
};

pub(super) const FS: Verb = Verb {
    name: "alloc fs",
    operands: "<allocation> [<path>]",
    synopsis: "List a folder of an allocation, or show a file",
    about: "The path starts at the allocation's folder.",
    flags: &[
        Flag::switch("H", "Sizes in bytes"),
        Flag::switch("stat", "Show what the file is instead of what is in it"),
        Flag::switch("f", "Go on when the end is reached"),
        Flag::switch("tail", "Start 10 lines before the end"),
        LINES,
        BYTES,
        JOB,
        GROUP,
        VERBOSE,
    ],
    run: fs,
};

/// The allocation the first operand names.
fn allocation(cx: &Cx<'_>, typed: &str) -> Result<Value, Failure> {
    if !cx.on("job") {
        return find::allocation(cx, typed);
    }
    let job = find::job(cx, typed)?;
    let params = [("namespace", job.namespace.as_str())];
    let list = cx.client.get(&path(&["job", &job.id, "allocations"]), &params).map_err(Failure::call("reading the job's allocations"))?;
    let group = cx.flags.value("group").unwrap_or("");
    let of_group = items(&list).iter().filter(|alloc| group.is_empty() || alloc.text("TaskGroup") == group);
    let newest = of_group.max_by_key(|alloc| (alloc.text("ClientStatus") == "running", alloc.int("CreateIndex")));
    match newest {
        Some(alloc) => cx.client.get(&path(&["allocation", alloc.text("ID")]), &params).map_err(Failure::call("reading the allocation")),
        None if group.is_empty() => Err(Failure::new(format!("Job {} has no allocations", quoted(&job.id)))),
        None => Err(Failure::new(format!("Job {} has no allocations in group {}", quoted(&job.id), quoted(group)))),
    }
}

fn start(cx: &Cx<'_>) -> Result<Start, Failure> {
    Start::of(cx.on("tail"), cx.number("n")?, cx.number("c")?).map_err(Failure::words)
}

fn logs(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, 2, "one or two arguments: <allocation> [<task>]")?;
    let start = start(cx)?;
    let (follows, stdout, stderr) = (cx.on("f"), cx.on("stdout"), cx.on("stderr"));
    let both = follows && !stdout && !stderr && start == Start::Beginning;
    if stdout && stderr {
        return Err(Failure::words("one log at a time: -stdout or -stderr (with -f alone both are followed)"));
    }
    let alloc = allocation(cx, operands.first().map_or("", String::as_str))?;
    let task = match named_task(cx, &alloc, operands.get(1))? {
        task if task.is_empty() => only_task(&alloc)?,
        task => task,
    };
    if both {
        return follow_both(cx, &alloc, &task);
    }
    let kind = if stderr { "stderr" } else { "stdout" };
    let stream = open_log(cx, &alloc, &task, kind, follows, start.offset())?;
    show_frames(cx, stream, start.cutter())
}

/// A framed log; `from_end` = so many bytes before its end.
fn open_log(
    cx: &Cx<'_>,
    alloc: &Value,
    task: &str,
    kind: &str,
    follows: bool,
    from_end: Option<u64>,
) -> Result<Box<dyn Read + Send>, Failure> {
    let (origin, offset) = place(from_end);
    let follow = if follows { "true" } else { "false" };
    let params = [("task", task), ("type", kind), ("follow", follow), ("origin", origin), ("offset", &offset)];
    let path = path(&["client", "fs", "logs", alloc.text("ID")]);
    cx.client.open(&path, &params).map_err(Failure::call(&format!("reading {kind} of task {}", quoted(task))))
}

/// Origin and offset as the API takes them.
fn place(from_end: Option<u64>) -> (&'static str, String) {
    from_end.map_or_else(|| ("start", "0".to_owned()), |bytes| ("end", bytes.to_string()))
}

/// Shows a framed stream until it ends.
fn show_frames(cx: &mut Cx<'_>, stream: Box<dyn Read + Send>, mut cutter: Cutter) -> Result<Exit, Failure> {
    for frame in frames(stream) {
        let frame = frame.map_err(broken)?;
        if cx.on("json") {
            say_frame(cx, &frame)?;
            continue;
        }
        tell(cx, &frame)?;
        // A heartbeat says that everything there was at the start has been sent.
        let shown = if frame.is_heartbeat() { cutter.flush() } else { cutter.push(frame.data) };
        cx.out.write_all(&shown)?;
        cx.out.flush()?;
    }
    cx.out.write_all(&cutter.flush())?;
    Ok(Exit::Done)
}

/// What happened to the file itself, when asked for: bytes that were purged before they were read are missing from the output.
fn tell(cx: &mut Cx<'_>, frame: &Received) -> io::Result<()> {
    if !frame.file_event.is_empty() && cx.on("verbose") {
        cx.note(format!("==> {}: {}", frame.file, frame.file_event))?;
    }
    Ok(())
}

/// The frame as it came, on a line of its own.
fn say_frame(cx: &mut Cx<'_>, frame: &Received) -> io::Result<()> {
    let mut line = Vec::new();
    Frame { data: &frame.data, file: &frame.file, event: &frame.file_event, offset: frame.offset }.encode(&mut line);
    line.push(b'\n');
    cx.out.write_all(&line)?;
    cx.out.flush()
}

fn broken(why: io::Error) -> Failure {
    Failure::new(format!("The stream broke off: {why}"))
}

/// The next frame of a log, and where it goes.
type Turn = (Target, Option<io::Result<Received>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Out,
    Err,
}

/// Follows both logs from their ends until both streams end.
fn follow_both(cx: &mut Cx<'_>, alloc: &Value, task: &str) -> Result<Exit, Failure> {
    let stdout = open_log(cx, alloc, task, "stdout", true, Some(0))?;
    let stderr = open_log(cx, alloc, task, "stderr", true, Some(0))?;
    // Dropping the receiver on a fault makes both threads end at their next frame; heartbeats come every second.
    let (sender, receiver) = sync_channel(1);
    let reads = [(Target::Out, stdout), (Target::Err, stderr)];
    for (target, stream) in reads {
        let sender = sender.clone();
        let spawned = thread::Builder::new().name(format!("log-{task}")).spawn(move || pass_on(target, stream, &sender));
        spawned.map_err(|why| Failure::new(format!("Error starting a reader: {why}")))?;
    }
    drop(sender);
    show_turns(cx, &receiver)
}

fn pass_on(target: Target, stream: Box<dyn Read + Send>, sender: &SyncSender<Turn>) {
    for frame in frames(stream) {
        if sender.send((target, Some(frame))).is_err() {
            return;
        }
    }
    // The other end may be gone already; then nobody asks.
    let _ = sender.send((target, None));
}

fn show_turns(cx: &mut Cx<'_>, turns: &Receiver<Turn>) -> Result<Exit, Failure> {
    while let Ok((target, turn)) = turns.recv() {
        let Some(frame) = turn else { continue };
        let frame = frame.map_err(broken)?;
        if cx.on("json") {
            say_frame(cx, &frame)?;
            continue;
        }
        tell(cx, &frame)?;
        let out = if target == Target::Out { &mut *cx.out } else { &mut *cx.err };
        out.write_all(&frame.data)?;
        out.flush()?;
    }
    Ok(Exit::Done)
}

fn fs(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, 2, "one or two arguments: <allocation> [<path>]")?;
    let start = start(cx)?;
    let alloc = allocation(cx, operands.first().map_or("", String::as_str))?;
    let (id, asked) = (alloc.text("ID"), operands.get(1).map_or("/", String::as_str));
    let doing = format!("reading {}", quoted(asked));
    let route = |verb: &str| path(&["client", "fs", verb, id]);
    let entry = cx.client.get(&route("stat"), &[("path", asked)]).map_err(Failure::call(&doing))?;
    if cx.on("stat") {
        return show_entries(cx, &entry, std::slice::from_ref(&entry), true);
    }
    if entry.flag("IsDir") {
        let list = cx.client.get(&route("ls"), &[("path", asked)]).map_err(Failure::call(&doing))?;
        return show_entries(cx, &list, items(&list), false);
    }
    if cx.on("json") {
        return Err(Failure::words("-json shows folders, and files with -stat; the bytes of a file have no JSON form"));
    }
    if cx.on("f") {
        let (origin, offset) = place(start.offset());
        let params = [("path", asked), ("origin", origin), ("offset", &offset)];
        let stream = cx.client.open(&route("stream"), &params).map_err(Failure::call(&doing))?;
        return show_frames(cx, stream, start.cutter());
    }
    let stream = match start.offset() {
        None => cx.client.open(&route("cat"), &[("path", asked)]),
        Some(from_end) => {
            let size = u64::try_from(entry.int("Size")).unwrap_or(0);
            cx.client.open(&route("readat"), &[("path", asked), ("offset", &size.saturating_sub(from_end).to_string())])
        }
    };
    copy(cx, stream.map_err(Failure::call(&doing))?, start.cutter())
}

/// Shows a plain stream of bytes until it ends.
fn copy(cx: &mut Cx<'_>, mut stream: Box<dyn Read + Send>, mut cutter: Cutter) -> Result<Exit, Failure> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            Err(why) => return Err(broken(why)),
        };
        let shown = cutter.push(buffer.get(..read).unwrap_or_default().to_vec());
        cx.out.write_all(&shown)?;
    }
    cx.out.write_all(&cutter.flush())?;
    Ok(Exit::Done)
}

fn show_entries(cx: &mut Cx<'_>, answer: &Value, entries: &[Value], with_type: bool) -> Result<Exit, Failure> {
    if cx.on("json") {
        cx.say_json(answer)?;
    } else {
        let table = entry_table(entries, cx.on("H"), with_type);
        cx.say(table)?;
    }
    Ok(Exit::Done)
}

fn entry_table(entries: &[Value], exact: bool, with_type: bool) -> Table {
    let mut table = Table::new(if with_type { "Mode|Size|Modified Time|Content Type|Name" } else { "Mode|Size|Modified Time|Name" });
    for entry in entries {
        let size = entry.int("Size");
        let mut row =
            vec![entry.text("FileMode").to_owned(), if exact { size.to_string() } else { bytes(size) }, time(entry.stamp("ModTime"))];
        if with_type {
            row.push(entry.text("ContentType").to_owned());
        }
        row.push(format!("{}{}", entry.text("Name"), if entry.flag("IsDir") { "/" } else { "" }));
        table.push(row);
    }
    table
}
