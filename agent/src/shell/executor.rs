//! The one executor: smol's `LocalExecutor` on the main thread. Futures need not be `Send`, and nothing here starts a thread;
//! async-io adds its own helper at the first timer or socket (decision 3).
//!
//! Shape: futures -> their outputs. Never: `smol::unblock`, `smol::fs`, `smol::process`; blocking work belongs to the workers.
//! Source: decisions 2 and 3, `spec/dependencies.md` 4.

use std::fmt;
use std::future::Future;
use std::rc::Rc;

use smol::{LocalExecutor, Task};

/// A handle on the executor; clones name the same one.
#[derive(Clone, Default)]
pub struct Executor(Rc<LocalExecutor<'static>>);

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Executor")
    }
}

impl Executor {
    /// An executor without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task. Dropping the handle cancels it at its next turn; `detach` lets it run on.
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        self.0.spawn(future)
    }

    /// Runs `future` and all tasks on this thread until `future` is done.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        smol::block_on(self.0.run(future))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_task_runs_beside_the_main_future_and_ends_with_its_handle() {
        let exec = Executor::new();
        let seen = Rc::new(Cell::new(0));
        let in_task = seen.clone();
        let task = exec.spawn(async move {
            in_task.set(1);
            std::future::pending::<()>().await;
        });
        exec.run(smol::future::yield_now());
        exec.run(async {
            while seen.get() == 0 {
                smol::future::yield_now().await;
            }
        });
        assert_eq!(Rc::strong_count(&seen), 2);
        drop(task);
        exec.run(async {
            while Rc::strong_count(&seen) == 2 {
                smol::future::yield_now().await;
            }
        });
    }
}
