//! The command line of the device: thin clients of the HTTP API, in the same binary as the agent.
//!
//! A verb is one row of [`VERBS`]: its words, its flags, its function. Shape: words typed -> API calls -> text on standard output,
//! faults on standard error. Exit status: 0 done, 1 fault, 2 a job was accepted and could not be placed in full; `job plan` has its own.
//! Never: colours, prompts when standard input is not asked for, templates (`-t`); every verb prints the API's answer with `-json`.
//! Verbs see the machine only through [`World`], so tests feed recorded answers and compare whole texts.
//! Source: names, flags and layout of the upstream CLI (v1.10.5 command/, behaviour only).

mod alloc;
mod alloc_files;
mod answer;
mod children;
pub mod client;
mod deployment;
mod diff;
mod eval;
mod find;
mod history;
mod job;
mod job_change;
mod monitor;
mod node;
mod plan;
mod status;
mod system;
mod table;
mod tail;
mod version;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;

use dunlin_hal::clock::{Clock, Wall};
use dunlin_hal::linux::clock::KernelClock;
use dunlin_hal::linux::zones::ZoneFiles;
use dunlin_hal::zones::Zones;
use serde::Serialize as _;
use serde_json::Value;

use crate::config::flags::{Flag, FlagError, Order, Parsed, parse, usage, words};
use crate::config::nearest::nearest;
use crate::shell::client as http;
use client::{CallError, Client, Transport};
use table::Ids;

/// The name the program is called by in its own texts.
const PROGRAM: &str = "dunlin";
/// Where the agent is when nobody says otherwise.
pub const ADDRESS_DEFAULT: &str = "http://127.0.0.1:4646";
/// What the agent's row says in the overview; `agent` reads its own flags (`shell::agent`).
const AGENT_SYNOPSIS: &str = "Run the agent";

/// All verbs but `agent`, in the order of the overview.
const VERBS: &[&Verb] = &[
    &alloc_files::FS,
    &alloc_files::LOGS,
    &alloc::RESTART,
    &alloc::SIGNAL,
    &alloc::STATUS,
    &alloc::STOP,
    &deployment::FAIL,
    &deployment::LIST,
    &deployment::PAUSE,
    &deployment::PROMOTE,
    &deployment::RESUME,
    &deployment::STATUS,
    &eval::LIST,
    &eval::STATUS,
    &children::DISPATCH,
    &job_change::EVAL,
    &history::HISTORY,
    &job::INSPECT,
    &children::FORCE,
    &plan::PLAN,
    &job_change::REVERT,
    &job::RUN,
    &job_change::SCALE,
    &job::STATUS,
    &job::STOP,
    &plan::VALIDATE,
    &node::STATUS,
    &status::STATUS,
    &system::GC,
    &version::VERSION,
];

/// Flags of every verb.
const GENERAL: &[Flag] = &[
    Flag::value("address", "url", "Agent to ask, http(s)://host:port or unix:///path (or NOMAD_ADDR)"),
    Flag::value("region", "name", "Region of the request (or NOMAD_REGION)"),
    Flag::value("namespace", "name", "Namespace of the request, * = all (or NOMAD_NAMESPACE)"),
    Flag::value("token", "secret", "ACL token of the request (or NOMAD_TOKEN)"),
    Flag::value("ca-cert", "file", "Authorities that may vouch for an https agent, PEM (or NOMAD_CACERT)"),
    Flag::value("client-cert", "file", "Certificate to show to it, PEM (or NOMAD_CLIENT_CERT)"),
    Flag::value("client-key", "file", "Key of that certificate, PEM (or NOMAD_CLIENT_KEY)"),
    Flag::value("tls-server-name", "name", "Name in its certificate, if not the address's (or NOMAD_TLS_SERVER_NAME)"),
    Flag::switch("json", "Print what the API answers, as JSON"),
    Flag::value("t", "template", ""),
    Flag::switch("no-color", ""),
    Flag::switch("force-color", ""),
];

/// One verb of the command line.
struct Verb {
    /// Its words, separated by one blank.
    name: &'static str,
    /// What follows the words, for the usage line.
    operands: &'static str,
    /// One line for the overview.
    synopsis: &'static str,
    /// What else a user should know; may be empty.
    about: &'static str,
    /// Its own flags.
    flags: &'static [Flag],
    /// Does it.
    run: fn(&mut Cx<'_>) -> Result<Exit, Failure>,
}

impl Verb {
    /// Exit status of a failure; after `job plan` a 1 is an answer.
    fn fault(&self) -> u8 {
        if self.name == plan::PLAN_NAME { 255 } else { 1 }
    }
}

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// As asked.
    Done,
    /// Not as asked; why was already printed.
    Failed,
    /// The job was accepted, but not all of it could be placed.
    Unplaced,
    /// Nothing was done, but something would be.
    Changes,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed | Self::Changes => 1,
            Self::Unplaced => 2,
        }
    }
}

/// Why a verb could not do what was asked.
#[derive(Debug)]
enum Failure {
    /// This is what to tell the user.
    Told(String),
    /// The words typed make no sense together; told with the way to the usage text.
    Words(String),
    /// Nobody reads our output any more: end quietly.
    OutputGone,
}

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self::Told(text.into())
    }

    fn words(text: impl Into<String>) -> Self {
        Self::Words(text.into())
    }

    /// A failed call: what was being done, and what came of it.
    fn call<'a>(doing: &'a str) -> impl FnOnce(CallError) -> Self + 'a {
        move |error| Self::of_call(doing, &error)
    }

    /// One copy, not one per call.
    #[cold]
    #[inline(never)]
    fn of_call(doing: &str, error: &CallError) -> Self {
        Self::Told(format!("Error {doing}: {error}"))
    }
}

/// Verbs use `?` on writes to their output and on nothing else that gives an `io::Error`.
impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::OutputGone
    }
}

/// Makes a way to reach the agent at an address; the error says what is wrong with the address or with the files for TLS.
pub type Connect<'a> = dyn Fn(&str, &http::Trust) -> Result<Box<dyn Transport + 'a>, String> + 'a;
/// Opens a file for reading.
pub type Open<'a> = dyn Fn(&str) -> io::Result<Box<dyn Read>> + 'a;

/// The machine around the command line.
pub struct World<'a> {
    /// Reads an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Reaches agents.
    pub connect: &'a Connect<'a>,
    /// Opens files.
    pub open: &'a Open<'a>,
    /// Standard input.
    pub input: &'a mut dyn BufRead,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// The time.
    pub clock: &'a dyn Clock,
    /// The time zones.
    pub zones: &'a dyn Zones,
}

/// What a verb works with.
struct Cx<'a> {
    client: Client<'a>,
    flags: Parsed,
    open: &'a Open<'a>,
    input: &'a mut dyn BufRead,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    clock: &'a dyn Clock,
    zones: &'a dyn Zones,
}

impl Cx<'_> {
    /// One block of output.
    fn say(&mut self, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// A heading after a blank line, then its block.
    fn section(&mut self, heading: &str, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.out, "\n{heading}\n{text}")
    }

    /// A remark that is not part of the output.
    fn note(&mut self, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.err, "{text}")
    }

    /// An answer as JSON.
    fn say_json(&mut self, value: &Value) -> io::Result<()> {
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut *self.out, indent))?;
        writeln!(self.out)
    }

    fn now(&self) -> Wall {
        self.clock.now().wall
    }

    fn on(&self, flag: &str) -> bool {
        self.flags.on(flag)
    }

    fn ids(&self) -> Ids {
        Ids::of(self.on("verbose"))
    }

    /// A flag that takes a number.
    fn number(&self, flag: &'static str) -> Result<Option<u64>, Failure> {
        self.flags.number(flag).map_err(|fault| Failure::words(fault.to_string()))
    }

    /// The operands, if there are between `min` and `max` of them; `usage` says what is right.
    fn operands(&self, min: usize, max: usize, usage: &str) -> Result<Vec<String>, Failure> {
        let given = self.flags.args.len();
        if (min..=max).contains(&given) {
            return Ok(self.flags.args.clone());
        }
        Err(Failure::words(format!("expected {usage}; got {given}")))
    }
}

/// The program: `args` are the words after its name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words = match words(args) {
        Ok(words) => words,
        Err(fault) => {
            // Nothing better than standard error is left to complain on.
            let _ = writeln!(io::stderr(), "{PROGRAM}: {fault}");
            return ExitCode::FAILURE;
        }
    };
    if let Some((first, rest)) = words.split_first()
        && first == "agent"
    {
        return crate::shell::agent::run(rest);
    }
    let mut world = World {
        env: &|name| std::env::var(name).ok(),
        connect: &|address, trust| match http::Client::new(address, trust) {
            Ok(client) => Ok(Box::new(client)),
            Err(why) => Err(why.to_string()),
        },
        open: &|name| Ok(Box::new(File::open(name)?)),
        input: &mut io::stdin().lock(),
        out: &mut io::stdout().lock(),
        err: &mut io::stderr().lock(),
        clock: &KernelClock,
        zones: &ZoneFiles::new(std::env::var("TZ").ok()),
    };
    ExitCode::from(run(&words, &mut world))
}

/// Does what the words after the program's name ask for; returns the exit status.
pub fn run(words: &[String], world: &mut World<'_>) -> u8 {
    let done = match choose(words) {
        Choice::Verb(verb, rest) => run_verb(verb, rest, world),
        Choice::Overview(family, asked) => {
            let text = overview(family);
            let (out, code) = if asked { (&mut *world.out, 0) } else { (&mut *world.err, 1) };
            out.write_all(text.as_bytes()).map(|()| code)
        }
        Choice::Unknown(text) => writeln!(world.err, "{text}").map(|()| 1),
    };
    done.and_then(|code| world.out.flush().map(|()| code)).unwrap_or(1)
}

/// What the words ask for.
enum Choice<'a> {
    /// This verb with the rest of the words.
    Verb(&'static Verb, &'a [String]),
    /// The list of all verbs or of one family; true = it was asked for, false = words are missing.
    Overview(&'a str, bool),
    /// No such verb.
    Unknown(String),
}

fn choose(words: &[String]) -> Choice<'_> {
    let Some((first, rest)) = words.split_first() else { return Choice::Overview("", false) };
    match first.as_str() {
        "-h" | "-help" | "--help" | "help" => return Choice::Overview("", true),
        "-v" | "-version" | "--version" => return Choice::Verb(&version::VERSION, rest),
        _ => {}
    }
    if let Some(verb) = VERBS.iter().find(|verb| verb.name == first) {
        return Choice::Verb(verb, rest);
    }
    if let [_, second, third, rest @ ..] = words
        && let Some(verb) = VERBS.iter().find(|verb| verb.name == format!("{first} {second} {third}"))
    {
        return Choice::Verb(verb, rest);
    }
    let mut family = VERBS.iter().filter_map(|verb| verb.name.split_once(' ')).filter(|(word, _)| *word == first);
    let is_family = family.clone().next().is_some();
    let Some((second, rest)) = rest.split_first().filter(|(second, _)| !second.starts_with('-')) else {
        return if is_family { Choice::Overview(first, !rest.is_empty()) } else { Choice::Unknown(unknown(first, None)) };
    };
    if family.any(|(_, word)| word == second) {
        let name = format!("{first} {second}");
        if let Some(verb) = VERBS.iter().find(|verb| verb.name == name) {
            return Choice::Verb(verb, rest);
        }
    }
    let second_is_verb = VERBS.iter().any(|verb| verb.name.split_once(' ').is_some_and(|(_, word)| word == second));
    Choice::Unknown(unknown(first, (is_family || second_is_verb).then_some(second)))
}

/// The fault for words that are no verb, with the nearest one that is.
fn unknown(first: &str, second: Option<&str>) -> String {
    let asked = second.map_or_else(|| first.to_owned(), |second| format!("{first} {second}"));
    let names = || VERBS.iter().map(|verb| verb.name).chain(["agent"]);
    // `dunlin run`: the second word alone says enough.
    let short = names().find(|name| name.split_once(' ').is_some_and(|(_, word)| word == asked));
    let families = VERBS.iter().filter_map(|verb| verb.name.split_once(' ')).map(|(family, _)| family);
    let near = short.or_else(|| nearest(&asked, names().chain(families)).map(|(near, _)| near)).unwrap_or("agent");
    format!("{PROGRAM}: there is no command {asked:?}; did you mean \"{PROGRAM} {near}\"? {PROGRAM} -h lists all")
}

/// The list of verbs, of all or of one family.
fn overview(family: &str) -> String {
    let mut text = match family {
        "" => format!("Usage: {PROGRAM} <command> [options] [arguments]\n\nCommands:\n  {:20}{AGENT_SYNOPSIS}\n", "agent"),
        family => format!("Usage: {PROGRAM} {family} <command> [options] [arguments]\n\nCommands:\n"),
    };
    for verb in VERBS.iter().filter(|verb| family.is_empty() || verb.name.split_once(' ').is_some_and(|(word, _)| word == family)) {
        text.push_str(&format!("  {:20}{}\n", verb.name, verb.synopsis));
    }
    text.push_str(&format!("\n{PROGRAM} <command> -h explains one of them.\n"));
    text
}

/// The usage text of one verb.
fn explain(verb: &Verb) -> String {
    let mut text = format!("Usage: {PROGRAM} {} [options] {}\n\n  {}.\n", verb.name, verb.operands, verb.synopsis);
    for line in verb.about.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    if !verb.flags.is_empty() {
        text.push_str(&format!("\nOptions:\n{}", usage(verb.flags)));
    }
    text.push_str(&format!("\nGeneral options:\n{}", usage(GENERAL)));
    text
}

fn run_verb(verb: &Verb, words: &[String], world: &mut World<'_>) -> io::Result<u8> {
    let known: Vec<Flag> = verb.flags.iter().chain(GENERAL).copied().collect();
    let flags = match parse(&known, Order::Mixed, words) {
        Ok(flags) => flags,
        Err(FlagError::Help) => return world.out.write_all(explain(verb).as_bytes()).map(|()| 0),
        Err(fault) => return complain(verb, &fault.to_string(), world.err),
    };
    if flags.value("t").is_some() {
        return complain(verb, "templates (-t) are not supported; use -json", world.err);
    }
    let setting = |flag: &str, variable: &str| {
        let given = flags.value(flag).map(str::to_owned).or_else(|| (world.env)(variable));
        given.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let address = setting("address", "NOMAD_ADDR").unwrap_or_else(|| ADDRESS_DEFAULT.to_owned());
    let trust = http::Trust {
        ca: setting("ca-cert", "NOMAD_CACERT").unwrap_or_default(),
        cert: setting("client-cert", "NOMAD_CLIENT_CERT").unwrap_or_default(),
        key: setting("client-key", "NOMAD_CLIENT_KEY").unwrap_or_default(),
        server_name: setting("tls-server-name", "NOMAD_TLS_SERVER_NAME").unwrap_or_default(),
    };
    let transport = match (world.connect)(&address, &trust) {
        Ok(transport) => transport,
        Err(why) => return complain(verb, &why, world.err),
    };
    let client = Client {
        transport: &*transport,
        token: setting("token", "NOMAD_TOKEN").unwrap_or_default(),
        region: setting("region", "NOMAD_REGION").unwrap_or_default(),
        namespace: setting("namespace", "NOMAD_NAMESPACE").unwrap_or_default(),
    };
    let (open, clock, zones) = (world.open, world.clock, world.zones);
    let mut cx = Cx { client, flags, open, input: &mut *world.input, out: &mut *world.out, err: &mut *world.err, clock, zones };
    match (verb.run)(&mut cx) {
        Ok(exit) => Ok(exit.code()),
        Err(Failure::Told(text)) => writeln!(world.err, "{text}").map(|()| verb.fault()),
        Err(Failure::Words(fault)) => complain(verb, &fault, world.err),
        Err(Failure::OutputGone) => Ok(verb.fault()),
    }
}

/// A fault in the words themselves: say it, and where help is.
fn complain(verb: &Verb, fault: &str, err: &mut dyn Write) -> io::Result<u8> {
    writeln!(err, "{PROGRAM} {name}: {fault}\n{PROGRAM} {name} -h explains the command", name = verb.name).map(|()| verb.fault())
}
