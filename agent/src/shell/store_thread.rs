//! The store thread: makes batches durable off the executor, because an fsync on an SD card can stall for long.
//!
//! Shape: batches in by a channel -> group commit -> [`Told`] out by another. Whatever queued during one fsync goes into the
//! next commit. After an error the batches are kept and tried again, waiting longer each time, until they are on the disk.
//! Bound: the core refuses writes at `Budget::batches_max`. The thread ends when the sender is dropped and all is durable.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use smol::channel::Sender as Teller;

use crate::store::writer::Writer;
use crate::store::{Batch, Seq};

/// Waits between tries after an error, seconds; the last repeats.
const RETRY_S: [u64; 5] = [1, 2, 5, 10, 30];

/// What the executor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Everything up to here is durable.
    Committed(Seq),
    /// Not durable; kept and tried again.
    Failed {
        /// The newest batch kept.
        seq: Seq,
        /// Why.
        text: String,
    },
}

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
        let thread =
            std::thread::Builder::new().name("store".to_owned()).stack_size(256 << 10).spawn(move || run(&writer, &receiver, &teller))?;
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

fn run(writer: &Writer, batches: &Receiver<Batch>, teller: &Teller<Told>) {
    let mut kept: Vec<Batch> = Vec::new();
    let mut tries = 0usize;
    loop {
        let is_closing = if kept.is_empty() {
            match batches.recv() {
                Ok(batch) => kept.push(batch),
                Err(_) => return,
            }
            false
        } else {
            let wait_s = RETRY_S[tries.saturating_sub(1).min(RETRY_S.len() - 1)];
            match batches.recv_timeout(Duration::from_secs(wait_s)) {
                Ok(batch) => {
                    kept.push(batch);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                // The agent is ending: one more try, then the loss is on record.
                Err(RecvTimeoutError::Disconnected) => true,
            }
        };
        kept.extend(batches.try_iter());
        let commit = || writer.commit(kept.iter().map(|batch| (batch.seq, &batch.rows)));
        let mut result = commit();
        if let Err(error) = &result
            && writer.make_room()
        {
            log::warn!("store: {error}; the room kept for this is given up, and no job is taken until there is room again");
            result = writer.recover().and_then(|()| commit());
        }
        let told = match result {
            Ok(Some(seq)) => {
                kept.clear();
                tries = 0;
                Told::Committed(seq)
            }
            Ok(None) => continue,
            Err(error) => {
                tries += 1;
                let text = match writer.recover() {
                    Ok(()) => error.to_string(),
                    Err(second) => format!("{error}; {second}"),
                };
                Told::Failed { seq: kept.last().map(|batch| batch.seq).unwrap_or_default(), text }
            }
        };
        if teller.send_blocking(told).is_err() || is_closing {
            return;
        }
    }
}
