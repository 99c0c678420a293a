//! The store thread: makes batches durable off the executor, because an fsync on an SD card can stall for long.
//!
//! Shape: batches in by a channel -> [`Group`] -> [`Told`] out by another. Whatever queued during one fsync goes into the next
//! commit. The thread ends when the sender is dropped and all is durable.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use smol::channel::Sender as Teller;

use crate::store::Batch;
use crate::store::group::{Group, Told};
use crate::store::writer::Writer;

/// The sending half; the thread ends after it is dropped.
#[derive(Debug)]
pub struct StoreThread {
    batches: Option<Sender<Batch>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl StoreThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the machine has no thread to give.
    pub fn start(writer: Writer, teller: Teller<Told>) -> std::io::Result<Self> {
        let (batches, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .stack_size(256 << 10)
            .spawn(move || run(Group::new(writer), &receiver, &teller))?;
        Ok(Self { batches: Some(batches), thread: Some(thread) })
    }

    /// Hands a batch over.
    pub fn commit(&self, batch: Batch) {
        if let Some(batches) = &self.batches
            && batches.send(batch).is_err()
        {
            log::error!("store thread is gone");
        }
    }

    /// Waits until all is durable and the thread has ended.
    pub fn join(mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("store thread ended badly");
        }
    }
}

fn run(mut group: Group, batches: &Receiver<Batch>, teller: &Teller<Told>) {
    loop {
        let next = match group.retry_s() {
            None => batches.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait_s) => batches.recv_timeout(Duration::from_secs(wait_s)),
        };
        let is_closing = match next {
            Ok(batch) => {
                group.take(batch);
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            // The agent is ending: one more try, then the loss is on record.
            Err(RecvTimeoutError::Disconnected) => true,
        };
        batches.try_iter().for_each(|batch| group.take(batch));
        if is_closing && group.newest().is_none() {
            return;
        }
        if let Some(told) = group.commit()
            && teller.send_blocking(told).is_err()
        {
            return;
        }
        if is_closing {
            return;
        }
    }
}
