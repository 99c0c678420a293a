//! Counters that an operator can read, and marks that a test can read.
//!
//! A [`Counter`] is a static of the file that counts; it enters one fixed table when it first counts, without allocating.
//! Full table ([`COUNTERS_MAX`]): the counter counts on, but is not listed. Counting costs two relaxed loads and one add.
//!
//! [`hit!`](crate::hit) marks a subtle branch, so that the one test that proves it can see that it was taken. Marks are kept
//! per thread and only in builds with debug assertions; in release builds the macro is an empty expression.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::cell::RefCell;
use std::sync::OnceLock;

/// Places in the table.
pub const COUNTERS_MAX: usize = 64;

/// A place of the table.
type Place = OnceLock<&'static Counter>;

static TABLE: [Place; COUNTERS_MAX] = [const { OnceLock::new() }; COUNTERS_MAX];

/// A number that only grows, from the start of the process.
#[derive(Debug)]
pub struct Counter {
    /// Name in metrics, such as `edge.storage.commits`.
    pub name: &'static str,
    value: AtomicU64,
    listed: AtomicBool,
}

impl Counter {
    /// For a `static`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, value: AtomicU64::new(0), listed: AtomicBool::new(false) }
    }

    /// Adds `n`; wraps after 2^64.
    pub fn add(&'static self, n: u64) {
        self.value.fetch_add(n, Ordering::Relaxed);
        if !self.listed.load(Ordering::Relaxed) && !self.listed.swap(true, Ordering::Relaxed) {
            self.enter(&TABLE);
        }
    }

    /// Takes the first free place; whoever loses the race for one takes the next. False = the table is full.
    fn enter(&'static self, table: &[Place]) -> bool {
        table.iter().any(|place| place.set(self).is_ok())
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// All counters that have counted, in the order of their first time.
pub fn counters() -> impl Iterator<Item = &'static Counter> {
    TABLE.iter().map_while(|place| place.get().copied())
}

thread_local! {
    static MARKS: RefCell<Vec<(&'static str, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Marks that this line was reached: `hit!("late_exit_dropped")`. Empty in release builds.
#[macro_export]
macro_rules! hit {
    ($name:literal) => {
        $crate::count::mark($name)
    };
}

/// Use [`hit!`](crate::hit).
#[doc(hidden)]
#[inline]
pub fn mark(name: &'static str) {
    if cfg!(debug_assertions) {
        MARKS.with_borrow_mut(|marks| match marks.iter_mut().find(|(known, _)| *known == name) {
            Some((_, n)) => *n += 1,
            None => marks.push((name, 1)),
        });
    }
}

/// How often this thread reached the mark.
#[must_use]
pub fn hits(name: &str) -> u64 {
    MARKS.with_borrow(|marks| marks.iter().find(|(known, _)| *known == name).map_or(0, |(_, n)| *n))
}

/// All marks this thread has reached, and how often, in the order of their first time; they are forgotten.
pub fn take_marks() -> Vec<(&'static str, u64)> {
    MARKS.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_list_themselves_once() {
        static FIRST: Counter = Counter::new("test.first");
        static NEVER: Counter = Counter::new("test.never");
        FIRST.add(2);
        FIRST.add(3);
        let values: Vec<_> = counters().filter(|counter| counter.name.starts_with("test.first")).map(Counter::get).collect();
        assert_eq!(values, [5]);
        assert!(counters().all(|counter| !core::ptr::eq(counter, &NEVER)));
        assert_eq!(NEVER.get(), 0);
    }

    #[test]
    fn counts_from_many_threads() {
        static SHARED: Counter = Counter::new("test.shared");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| SHARED.add(1)));
            }
        });
        assert_eq!(SHARED.get(), 4000);
        assert_eq!(counters().filter(|counter| counter.name == "test.shared").count(), 1);
    }

    #[test]
    fn a_full_table_refuses() {
        static ONE: Counter = Counter::new("test.one");
        let table: [Place; 2] = [const { OnceLock::new() }; 2];
        assert_eq!([ONE.enter(&table), ONE.enter(&table), ONE.enter(&table)], [true, true, false]);
        assert_eq!(table[1].get().map(|counter| counter.name), Some("test.one"));
    }

    #[test]
    fn marks_belong_to_the_thread() {
        assert_eq!(hits("test_mark"), 0);
        hit!("test_mark");
        hit!("test_mark");
        assert_eq!(hits("test_mark"), 2);
        assert_eq!(std::thread::spawn(|| hits("test_mark")).join().unwrap(), 0);
    }
}
