//! The `file` worker: one thread for all blocking work on folders, started when there is something to do and gone when idle.
//!
//! Shape: closures in, in order; results come back through a channel. Bounds: [`QUEUE_MAX`] closures wait, then who asks waits
//! (the connection stops reading, the core's effects stay where they are). Work that takes long, such as the removal of a folder, is cut
//! into slices: at most [`JOBS_PER_SLICE`] other closures run between two of them and none waits longer than one slice.
//! Source: decision 3; architecture.md "Spawn, Kill, garbage collection and all folder work run on the `file` worker".

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smol::channel;
use smol::lock::Semaphore;

/// Closures that may wait at once; as many sliced ones.
const QUEUE_MAX: usize = 64;
/// After so many closures a slice has its turn.
const JOBS_PER_SLICE: u32 = 4;
/// Without work for this long the thread ends.
const IDLE: Duration = Duration::from_secs(10);
/// Room for a start of a task, which is the deepest of the closures.
const STACK_BYTES: usize = 512 << 10;

type Job = Box<dyn FnOnce() + Send>;
/// True when there is more to do.
type Slice = Box<dyn FnMut() -> bool + Send>;

/// A handle to the worker; clones share it.
#[derive(Clone, Debug)]
pub struct FileWorker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    has_work: Condvar,
    job_room: Arc<Semaphore>,
    slice_room: Arc<Semaphore>,
    idle: Duration,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    slices: VecDeque<Slice>,
    /// Closures run since the last slice.
    jobs_n: u32,
    has_thread: bool,
}

impl core::fmt::Debug for Queue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Queue({} jobs, {} slices)", self.jobs.len(), self.slices.len())
    }
}

enum Turn {
    Job(Job),
    Slice(Slice),
}

impl Default for FileWorker {
    fn default() -> Self {
        Self::with_idle(IDLE)
    }
}

impl FileWorker {
    fn with_idle(idle: Duration) -> Self {
        let room = || Arc::new(Semaphore::new(QUEUE_MAX));
        Self(Arc::new(Shared { queue: Mutex::default(), has_work: Condvar::new(), job_room: room(), slice_room: room(), idle }))
    }

    /// Runs a closure and gives back what it returns. Waits for room first; once queued it runs even if nobody waits any more.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = channel::bounded(1);
        self.enqueue(move || {
            let _ = sender.try_send(job());
        })
        .await;
        receive(receiver).await
    }

    /// Queues a closure without waiting for its end. Closures that one caller queues one after the other run in that order.
    pub async fn enqueue(&self, job: impl FnOnce() + Send + 'static) {
        let room = self.0.job_room.acquire_arc().await;
        let job: Job = Box::new(move || {
            job();
            drop(room);
        });
        self.push(|queue| queue.jobs.push_back(job));
    }

    /// Calls `slice` until it gives a result, with other work in between. A call should take a few milliseconds at most.
    pub async fn run_slices<T: Send + 'static>(&self, mut slice: impl FnMut() -> Option<T> + Send + 'static) -> T {
        let room = self.0.slice_room.acquire_arc().await;
        let (sender, receiver) = channel::bounded(1);
        let slice: Slice = Box::new(move || {
            let _room = &room;
            match slice() {
                None => true,
                Some(result) => {
                    let _ = sender.try_send(result);
                    false
                }
            }
        });
        self.push(|queue| queue.slices.push_back(slice));
        receive(receiver).await
    }

    fn push(&self, add: impl FnOnce(&mut Queue)) {
        let mut queue = self.0.lock();
        add(&mut queue);
        if queue.has_thread {
            self.0.has_work.notify_one();
            return;
        }
        queue.has_thread = true;
        drop(queue);
        let shared = self.0.clone();
        let thread = std::thread::Builder::new().name("file".to_owned()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(move || shared.work(true)) {
            // No thread to be had: slow is better than never.
            log::warn!("file worker not started, working without it: error={error}");
            self.0.work(false);
        }
    }
}

/// The worker never drops a closure unrun, so the sender is never lost.
async fn receive<T>(receiver: channel::Receiver<T>) -> T {
    match receiver.recv().await {
        Ok(result) => result,
        Err(_) => smol::future::pending().await,
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until nothing is left, and then as long as `waits` says until nothing came for a while.
    fn work(&self, waits: bool) {
        let mut queue = self.lock();
        loop {
            match queue.turn() {
                Some(Turn::Job(job)) => {
                    drop(queue);
                    job();
                    queue = self.lock();
                }
                Some(Turn::Slice(mut slice)) => {
                    drop(queue);
                    let has_more = slice();
                    queue = self.lock();
                    if has_more {
                        queue.slices.push_back(slice);
                    }
                }
                None => {
                    let mut is_over = !waits;
                    if waits {
                        let (back, timeout) = self.has_work.wait_timeout(queue, self.idle).unwrap_or_else(PoisonError::into_inner);
                        queue = back;
                        is_over = timeout.timed_out() && queue.jobs.is_empty() && queue.slices.is_empty();
                    }
                    if is_over {
                        queue.has_thread = false;
                        return;
                    }
                }
            }
        }
    }
}

impl Queue {
    fn turn(&mut self) -> Option<Turn> {
        if self.jobs.is_empty() || self.jobs_n >= JOBS_PER_SLICE {
            self.jobs_n = 0;
            if let Some(slice) = self.slices.pop_front() {
                return Some(Turn::Slice(slice));
            }
        }
        self.jobs_n += 1;
        self.jobs.pop_front().map(Turn::Job)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn closures_run_in_order_on_another_thread() {
        let worker = FileWorker::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        smol::block_on(async {
            for i in 0..1000 {
                let seen = seen.clone();
                worker.enqueue(move || seen.lock().unwrap().push(i)).await;
            }
            let name = worker.run(|| std::thread::current().name().map(str::to_owned)).await;
            assert_eq!(name.as_deref(), Some("file"));
        });
        assert_eq!(*seen.lock().unwrap(), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_queue_makes_the_next_wait() {
        let worker = FileWorker::default();
        let (go, gate) = std::sync::mpsc::channel::<()>();
        smol::block_on(async {
            worker.enqueue(move || _ = gate.recv()).await;
            for _ in 1..QUEUE_MAX {
                worker.enqueue(|| ()).await;
            }
            assert_eq!(smol::future::poll_once(worker.enqueue(|| ())).await, None);
            go.send(()).unwrap();
            worker.run(|| ()).await;
        });
    }

    #[test]
    fn long_work_lets_others_in_between() {
        let worker = FileWorker::default();
        let slices_n = Arc::new(AtomicUsize::new(0));
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let counter = slices_n.clone();
        let slices = worker.run_slices(move || {
            let n = counter.fetch_add(1, Ordering::SeqCst) + 1;
            if n == 1 {
                let _ = gate.recv();
            }
            (n == 500).then_some(n)
        });
        let (told, tell) = std::sync::mpsc::channel();
        let result = smol::block_on(async {
            let mut slices = Box::pin(slices);
            assert!(smol::future::poll_once(&mut slices).await.is_none());
            worker.enqueue(move || told.send(slices_n.load(Ordering::SeqCst)).unwrap()).await;
            // Both are queued: the closure comes before the second slice.
            go.send(()).unwrap();
            slices.await
        });
        let before = tell.recv().unwrap();
        assert_eq!(result, 500);
        assert!(before <= 1, "{before} slices before a closure");
        // Many closures at once do not starve the slices either.
        let mut queue = Queue::default();
        queue.slices.push_back(Box::new(|| false));
        for _ in 0..100 {
            queue.jobs.push_back(Box::new(|| ()));
        }
        let slice_at = (0..100).find(|_| matches!(queue.turn(), Some(Turn::Slice(_))));
        assert_eq!(slice_at, Some(4));
    }

    #[test]
    fn an_idle_thread_ends_and_comes_back() {
        let worker = FileWorker::with_idle(Duration::ZERO);
        let id = |worker: &FileWorker| smol::block_on(worker.run(|| std::thread::current().id()));
        let first = id(&worker);
        while worker.0.lock().has_thread {
            std::thread::yield_now();
        }
        assert_ne!(id(&worker), first);
    }

    #[test]
    fn a_dropped_question_is_still_done() {
        let worker = FileWorker::default();
        let done = Arc::new(AtomicUsize::new(0));
        smol::block_on(async {
            let counter = done.clone();
            let asked = worker.run(move || counter.fetch_add(1, Ordering::SeqCst));
            let _ = smol::future::poll_once(asked).await;
            worker.run(|| ()).await;
        });
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }
}
