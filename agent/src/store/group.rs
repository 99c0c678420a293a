//! Batches on their way to the disk: what is written together, and what follows when the disk takes nothing. No thread, no waiting:
//! whoever drives it says when (`shell/store_thread.rs`, the simulation).
//!
//! Shape: [`Group::take`] batches, then [`Group::commit`] makes all of them durable as one transaction and says what to tell. After an
//! error they are kept: commit again, with whatever came meanwhile, after [`Group::retry_s`].
//! Bound: the rows there are; of each only the newest is kept, however long the disk takes nothing.

use super::writer::Writer;
use super::{Batch, Rows, Seq};

/// Waits between tries after an error, seconds; the last repeats.
const RETRY_S: [u64; 5] = [1, 2, 5, 10, 30];

/// What the core is to be told.
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

/// Batches that are not durable, as one, and their writer.
pub struct Group {
    writer: Writer,
    rows: Rows,
    /// The newest of them; `None` = there are none.
    newest: Option<Seq>,
    tries: usize,
}

impl Group {
    /// No batches yet.
    #[must_use]
    pub fn new(writer: Writer) -> Self {
        Self { writer, rows: Rows::new(), newest: None, tries: 0 }
    }

    /// One more, newer than all before.
    pub fn take(&mut self, batch: Batch) {
        debug_assert!(self.newest < Some(batch.seq), "batches come in order");
        if self.newest.replace(batch.seq).is_none() {
            self.rows = batch.rows;
        } else {
            self.rows.extend(batch.rows);
        }
    }

    /// The newest batch that is not durable; `None` = all are.
    #[must_use]
    pub fn newest(&self) -> Option<Seq> {
        self.newest
    }

    /// After a failure: when to try again, seconds. `None` = nothing has failed.
    #[must_use]
    pub fn retry_s(&self) -> Option<u64> {
        self.tries.checked_sub(1).map(|n| RETRY_S[n.min(RETRY_S.len() - 1)])
    }

    /// Writes all there is as one transaction; returns when it is on the disk, or when the disk took none of it. `None`: there was
    /// nothing to write.
    pub fn commit(&mut self) -> Option<Told> {
        let newest = self.newest?;
        let commit = || self.writer.commit(&self.rows);
        let mut result = commit();
        if let Err(error) = &result
            && self.writer.make_room()
        {
            log::warn!("store: {error}; the room kept for this is given up, and no job is taken until there is room again");
            result = self.writer.recover().and_then(|()| commit());
        }
        match result {
            Ok(()) => {
                self.rows.clear();
                self.newest = None;
                self.tries = 0;
                Some(Told::Committed(newest))
            }
            Err(error) => {
                self.tries += 1;
                let text = match self.writer.recover() {
                    Ok(()) => error.to_string(),
                    Err(second) => format!("{error}; {second}"),
                };
                Some(Told::Failed { seq: newest, text })
            }
        }
    }
}
