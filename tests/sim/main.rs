//! The simulation of a whole agent: seeds, each a life of its own with faults at every step, checked as they go (`docs/simulation.md`).
//!
//! Not libtest: one binary runs as many seeds as it is told, on all cores. A seed that fails prints one line that repeats it.
//! Environment: `SEEDS` (how many), `FROM` (the first), `SEED` (this one alone), `TRACE=1` (tell what happens), `SHRINK=1` (leave out
//! what a failure does not need), `STEPS=2,10,65` (these alone).

mod jobs;
mod scenario;
mod settle;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dunlin_hal::count::take_marks;
use dunlin_tests::world::last_event;

use scenario::{Outcome, STEPS_MAX, run};

/// Seeds of a run that is not told how many; `tests/run sim` tells.
const SEEDS: u64 = 40;
/// Every so many seeds one is run twice.
const TWICE: u64 = 16;
/// Failures after which no more seeds are begun.
const FAILURES_MAX: usize = 8;

thread_local! {
    /// What the last panic of this thread said, and where.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A seed that failed.
struct Failure {
    seed: u64,
    event: u64,
    text: String,
}

#[derive(Default)]
struct Sums {
    seeds_n: u64,
    events_n: u64,
    ends_n: [u64; 2],
    /// Seeds that reached a mark.
    marks: BTreeMap<&'static str, u64>,
    failures: Vec<Failure>,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    std::panic::set_hook(Box::new(|info| {
        let text = {
            let payload = info.payload();
            let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            text.unwrap_or("a panic without words").to_owned()
        };
        let place = info.location().map_or(String::new(), |at| format!(" ({}:{})", at.file(), at.line()));
        PANIC.set(format!("{}{place}", text.replace('\n', " ")));
    }));
    match number("SEED") {
        Some(seed) => one(seed),
        None => all(number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS)),
    }
}

/// Runs one seed.
fn attempt(seed: u64, without: &BTreeSet<u64>, is_told: bool) -> Result<Outcome, Failure> {
    take_marks();
    catch_unwind(AssertUnwindSafe(|| run(seed, without, is_told))).map_err(|_| Failure { seed, event: last_event(), text: PANIC.take() })
}

fn fails(seed: u64) -> Result<Outcome, Failure> {
    let outcome = attempt(seed, &BTreeSet::new(), false)?;
    if seed.is_multiple_of(TWICE) {
        let marks = take_marks();
        let again = attempt(seed, &BTreeSet::new(), false)?;
        if again.hash != outcome.hash {
            let text = "I2: two runs of one seed differ".to_owned();
            return Err(Failure { seed, event: outcome.events_n.min(again.events_n), text });
        }
        drop(marks);
    }
    Ok(outcome)
}

fn all(from: u64, seeds_n: u64) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let sums = Mutex::new(Sums::default());
    let threads_n = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads_n {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds_n || sums.lock().unwrap().failures.len() >= FAILURES_MAX {
                        return;
                    }
                    let result = fails(seed);
                    let marks = take_marks();
                    let mut sums = sums.lock().unwrap();
                    sums.seeds_n += 1;
                    match result {
                        Ok(outcome) => {
                            sums.events_n += outcome.events_n;
                            sums.ends_n.iter_mut().zip(outcome.ends_n).for_each(|(sum, n)| *sum += n);
                            marks.into_iter().for_each(|(mark, _)| *sums.marks.entry(mark).or_default() += 1);
                        }
                        Err(failure) => {
                            let Failure { seed, event, text } = &failure;
                            println!("SEED={seed} tests/run sim    # fails at event {event}: {text}");
                            sums.failures.push(failure);
                        }
                    }
                }
            });
        }
    });
    let sums = sums.into_inner().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    let Sums { seeds_n, events_n, ends_n: [kills_n, cuts_n], marks, failures } = &sums;
    for (mark, n) in marks {
        println!("mark {mark}: {n} seeds");
    }
    println!(
        "figure: sim: {seeds_n} seeds in {seconds:.0} s ({:.0} a second), {events_n} events, {kills_n} agents killed, {cuts_n} power cuts, {} marks",
        *seeds_n as f64 / seconds,
        marks.len()
    );
    let failed_n = failures.len() as u64;
    let word = if failed_n == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {} passed; {failed_n} failed; 0 ignored; 0 measured; 0 filtered out", seeds_n - failed_n);
    if failed_n == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the agent says of itself, among the lines of the trace.
struct Told;

impl log::Log for Told {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("      {} {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

/// Runs one seed for somebody who looks at it.
fn one(seed: u64) -> ExitCode {
    let is_told = number("TRACE").is_some_and(|n| n > 0);
    if is_told && log::set_logger(&Told).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    let without = if let Ok(steps) = std::env::var("STEPS") {
        let kept: BTreeSet<u64> = steps.split([',', ' ']).filter_map(|step| step.parse().ok()).collect();
        (0..STEPS_MAX).filter(|step| !kept.contains(step)).collect()
    } else if number("SHRINK").is_some_and(|n| n > 0) {
        shrink(seed)
    } else {
        BTreeSet::new()
    };
    let result = attempt(seed, &without, is_told);
    for (mark, n) in take_marks() {
        println!("mark {mark}: {n} times");
    }
    match result {
        Ok(Outcome { hash, events_n, steps_n, ends_n }) => {
            println!("seed {seed}: {steps_n} steps, {events_n} events, killed and cut {ends_n:?}, hash {hash:016x}");
            println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
            ExitCode::SUCCESS
        }
        Err(Failure { seed, event, text }) => {
            println!("SEED={seed} tests/run sim    # fails at event {event}: {text}");
            println!("test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
            ExitCode::FAILURE
        }
    }
}

/// The steps that a seed can be without and still fail of the same.
fn shrink(seed: u64) -> BTreeSet<u64> {
    let mut without = BTreeSet::new();
    let Err(first) = attempt(seed, &without, false) else { return without };
    // The same check at the same place.
    let kind = |text: &str| text.rfind(" (").map(|at| text[at..].to_owned());
    let wanted = kind(&first.text);
    let is_same = |without: &BTreeSet<u64>| attempt(seed, without, false).is_err_and(|failure| kind(&failure.text) == wanted);
    let steps_n = STEPS_MAX;
    let mut size = 64;
    while size > 0 {
        let mut at = 0;
        while at < steps_n {
            let more: BTreeSet<u64> = without.iter().copied().chain(at..at + size).collect();
            if more.len() > without.len() && is_same(&more) {
                without = more;
            }
            at += size;
        }
        size /= 2;
    }
    let kept: Vec<u64> = (0..steps_n).filter(|step| !without.contains(step)).collect();
    println!("needed of {steps_n} steps: {kept:?}");
    without
}
