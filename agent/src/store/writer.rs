//! Makes rows durable. Runs on the store thread. One commit is one transaction, one phase, one fsync.

use std::sync::Arc;

use redb::Durability;

use super::backend::{Backend, TABLE};
use super::{Rows, StoreError};

/// The writing half of the store.
pub struct Writer {
    backend: Arc<Backend>,
}

impl Writer {
    /// The writer of a database.
    #[must_use]
    pub fn new(backend: Arc<Backend>) -> Self {
        Self { backend }
    }

    /// Writes rows as one transaction and returns when they are on the disk. A repeat of the same call is harmless.
    ///
    /// # Errors
    /// When nothing was made durable; the caller keeps the rows and tries again after [`Writer::recover`].
    pub fn commit(&self, rows: &Rows) -> Result<(), StoreError> {
        if self.backend.database().is_none() {
            // It could not be opened again after an error: perhaps now.
            self.backend.reopen()?;
        }
        let guard = self.backend.database();
        let Some(database) = guard.as_ref() else {
            return Err(StoreError::Io { text: "the database is closed after an error".to_owned() });
        };
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate).map_err(|error| StoreError::Io { text: error.to_string() })?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in rows {
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                    None => table.remove(key.as_slice())?,
                };
            }
        }
        transaction.commit()?;
        self.backend.measure();
        Ok(())
    }

    /// Gives up the room that is kept for a full disk; false: there is none, and a second try would end as the first.
    #[must_use]
    pub fn make_room(&self) -> bool {
        self.backend.give_up_reserve()
    }

    /// Tries to leave a latched I/O error behind.
    ///
    /// # Errors
    /// When the file still cannot be opened.
    pub fn recover(&self) -> Result<(), StoreError> {
        self.backend.reopen()
    }
}
