//! The database handle, shared by the executor (reads) and the store thread (commits).
//!
//! redb latches an I/O error: the handle answers errors from then on. So the handle can be replaced ([`Backend::reopen`]).
//! Settings: decision 5 (one table, one-phase commit, no quick-repair, small cache).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{RwLock, RwLockReadGuard};

use redb::backends::InMemoryBackend;
use redb::{Database, TableDefinition};

use super::StoreError;

/// The one table.
pub(super) const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");

enum Place {
    File(PathBuf),
    Memory,
}

/// A database that can be closed and opened again.
pub struct Backend {
    place: Place,
    cache_bytes: usize,
    database: RwLock<Option<Database>>,
    file_bytes: AtomicU64,
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        Self::Io { text: error.to_string() }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}

from_redb!(redb::DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

impl Backend {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// When it cannot be opened, is locked by another agent, or is damaged.
    pub fn file(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        Self::new(Place::File(path.to_owned()), cache_bytes)
    }

    /// A database in memory, for tests.
    ///
    /// # Errors
    /// Never in practice; the type is redb's.
    pub fn memory() -> Result<Self, StoreError> {
        Self::new(Place::Memory, 1 << 20)
    }

    fn new(place: Place, cache_bytes: usize) -> Result<Self, StoreError> {
        let database = create(&place, cache_bytes)?;
        let backend = Self { place, cache_bytes, database: RwLock::new(Some(database)), file_bytes: AtomicU64::new(0) };
        backend.measure();
        Ok(backend)
    }

    /// Closes the handle and opens it again: the way out of a latched I/O error.
    ///
    /// # Errors
    /// When the file still cannot be opened; reads and commits fail until a later call succeeds.
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.database.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if matches!(self.place, Place::Memory) {
            return Ok(());
        }
        *slot = None;
        *slot = Some(create(&self.place, self.cache_bytes)?);
        Ok(())
    }

    /// The handle for one short use.
    pub(super) fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Bytes of the file when it was last measured.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    /// Looks at the file's size; called after each commit, on the store thread.
    pub(super) fn measure(&self) {
        if let Place::File(path) = &self.place
            && let Ok(meta) = std::fs::metadata(path)
        {
            self.file_bytes.store(meta.len(), Ordering::Relaxed);
        }
    }
}

fn create(place: &Place, cache_bytes: usize) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    Ok(match place {
        Place::File(path) => builder.create(path)?,
        Place::Memory => builder.create_with_backend(InMemoryBackend::new())?,
    })
}
