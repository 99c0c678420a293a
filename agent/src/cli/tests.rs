//! The verbs against recorded answers: whole output texts, exit status, and the requests that were made.
//!
//! `golden/recorded.json` holds answers of a real 1.1.2 agent to this project's own jobs and the project's own API examples, without
//! the members that are empty. A request it does not hold is answered 404, so an output also proves what was asked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use dunlin_hal::clock::{Clock, Mono, Now, Wall};
use serde_json::Value;

use super::client::{Exchange, Transport};
use super::{World, run};
use crate::shell::client::{Ask, ClientError};
use crate::wire::http::Method;

/// 2026-11-22T07:07:10Z: 93 seconds after the recorded jobs were registered.
const NOW: i64 = 1_795_331_230_000_000_000;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Now {
        Now { mono: Mono(0), wall: Wall(NOW) }
    }
}

/// Answers by method and target; an answer given as `{"status", "text"}` is sent with that status.
struct Recorded<'a> {
    answers: &'a BTreeMap<String, Value>,
    asked: &'a RefCell<Vec<String>>,
}

impl Transport for Recorded<'_> {
    fn exchange(&self, ask: &Ask<'_>) -> Result<Exchange, ClientError> {
        let method = match ask.method {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            _ => "?",
        };
        let asked = format!("{method} {}", ask.target);
        let answer = self.answers.get(&asked);
        let body = String::from_utf8_lossy(ask.body);
        let token = if ask.token.is_empty() { String::new() } else { format!(" token={}", ask.token) };
        self.asked.borrow_mut().push(format!("{asked}{token} {body}").trim_end().to_owned());
        let (status, bytes) = match answer {
            None => (404, b"not recorded".to_vec()),
            Some(Value::String(stream)) => (200, stream.clone().into_bytes()),
            Some(answer) => match (answer.get("status").and_then(Value::as_u64), answer.get("text").and_then(Value::as_str)) {
                (Some(status), Some(text)) => (u16::try_from(status).unwrap(), text.as_bytes().to_vec()),
                _ => (200, answer.to_string().into_bytes()),
            },
        };
        Ok(Exchange { status, body: Box::new(io::Cursor::new(bytes)) })
    }
}

/// What one run printed, returned and asked.
struct Ran {
    code: u8,
    out: String,
    err: String,
    asked: Vec<String>,
}

/// A run with more than the recorded answers.
#[derive(Default)]
struct Setup {
    answers: BTreeMap<String, Value>,
    env: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<&'static str, String>,
    input: &'static str,
}

impl Setup {
    fn answer(mut self, asked: &str, answer: impl Into<Value>) -> Self {
        self.answers.insert(asked.to_owned(), answer.into());
        self
    }

    fn run(self, line: &str) -> Ran {
        let mut answers: BTreeMap<String, Value> = serde_json::from_str(include_str!("golden/recorded.json")).unwrap();
        answers.extend(self.answers);
        let asked = RefCell::default();
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut world = World {
            env: &|name| self.env.get(name).map(|value| (*value).to_owned()),
            connect: &|address| match address.split_once("://") {
                Some(("http", "127.0.0.1:4646" | "other:1")) => Ok(Box::new(Recorded { answers: &answers, asked: &asked })),
                _ => Err(format!("cannot use {address}")),
            },
            open: &|name| match self.files.get(name) {
                Some(text) => Ok(Box::new(io::Cursor::new(text.clone().into_bytes()))),
                None => Err(io::ErrorKind::NotFound.into()),
            },
            input: &mut self.input.as_bytes(),
            out: &mut out,
            err: &mut err,
            clock: &Fixed,
        };
        let code = run(&words, &mut world);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code, out: text(out), err: text(err), asked: asked.take() }
    }
}

#[test]
fn scratch() {
    for line in [
        "job status", "job status tele", "job status -short telemetry", "job status -verbose telemetry", "alloc status 29fbd40e", "alloc status -verbose -stats 29fbd40e", "alloc status 273447b3", "alloc status -short 74a81ff7", "alloc status 27",
        "node status", "node status -verbose -allocs -os", "node status 0d1b", "node status -self -stats -verbose", "eval status 245543c9", "eval status -monitor 245543c9","alloc fs 29fbd40e", "alloc fs -stat 29fbd40e alloc/data/beat",
        "status 29fbd40e", "", "job", "jbo run", "run", "alloc log", "job run -h","version","job inspect -version 0 telemetry",
    ] {
        let ran = Setup::default().run(line);
        println!("$ dunlin {line}\n{}--{} {}\n", ran.out, ran.code, ran.err);
    }
}
