//! The database handle, shared by the executor (reads) and the store thread (commits).
//!
//! redb latches an I/O error: the handle answers errors from then on. So the handle can be replaced ([`Backend::reopen`]).
//! Settings: decision 5 (one table, one-phase commit, no quick-repair, small cache).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use dunlin_hal::linux::reserve::Reserve;
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
    /// `None` in memory.
    reserve: Option<Reserve>,
    database: RwLock<Option<Database>>,
    /// How often it was opened again, and who waits for that.
    reopened_n: Mutex<u64>,
    reopened: Condvar,
    file_bytes: AtomicU64,
}

/// Longest time a reader waits until the store thread has replaced a handle that answers nothing but errors.
const REOPEN_WAIT: Duration = Duration::from_millis(200);

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
    pub fn file(path: &Path, cache_bytes: usize, reserve_bytes: u64) -> Result<Self, StoreError> {
        let reserve = Reserve::new(path.with_extension("reserve"), reserve_bytes);
        Self::new(Place::File(path.to_owned()), cache_bytes, Some(reserve))
    }

    /// A database in memory, for tests.
    ///
    /// # Errors
    /// Never in practice; the type is redb's.
    pub fn memory() -> Result<Self, StoreError> {
        Self::new(Place::Memory, 1 << 20, None)
    }

    fn new(place: Place, cache_bytes: usize, reserve: Option<Reserve>) -> Result<Self, StoreError> {
        let give_up = || reserve.as_ref().is_some_and(Reserve::give_up);
        let database = match create(&place, cache_bytes) {
            // To open it after a power cut takes room.
            Err(StoreError::Io { .. }) if give_up() => create(&place, cache_bytes)?,
            created => created?,
        };
        let backend = Self {
            place,
            cache_bytes,
            reserve,
            database: RwLock::new(Some(database)),
            reopened_n: Mutex::new(0),
            reopened: Condvar::new(),
            file_bytes: AtomicU64::new(0),
        };
        backend.measure();
        Ok(backend)
    }

    /// Closes the handle and opens it again: the way out of a latched I/O error.
    ///
    /// # Errors
    /// When the file still cannot be opened; reads and commits fail until a later call succeeds.
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(self.place, Place::Memory) {
            return Ok(());
        }
        *slot = None;
        *slot = Some(open(&self.place, self.cache_bytes)?);
        *self.reopened_n.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.reopened.notify_all();
        Ok(())
    }

    /// How often the handle was replaced so far. Ask with the handle in hand.
    pub(super) fn reopened_n(&self) -> u64 {
        *self.reopened_n.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when the handle seen at `seen_n` was replaced, or is so in a moment: what failed may be tried again.
    pub(super) fn was_reopened(&self, seen_n: u64) -> bool {
        let counted = self.reopened_n.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.reopened.wait_timeout_while(counted, REOPEN_WAIT, |n| *n == seen_n);
        *waited.unwrap_or_else(PoisonError::into_inner).0 != seen_n
    }

    /// The handle for one short use.
    pub(super) fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the file when it was last measured.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    /// True while the room kept for a full disk is not given up.
    pub(crate) fn has_room(&self) -> bool {
        !self.reserve.as_ref().is_some_and(Reserve::is_missing)
    }

    /// Gives that room up; false: there was none.
    pub(crate) fn give_up_reserve(&self) -> bool {
        self.reserve.as_ref().is_some_and(Reserve::give_up)
    }

    /// Looks at the file's size, and for room to keep; called after each commit, on the store thread.
    pub(super) fn measure(&self) {
        if let Some(reserve) = &self.reserve {
            reserve.keep();
        }
        if let Place::File(path) = &self.place
            && let Ok(meta) = std::fs::metadata(path)
        {
            self.file_bytes.store(meta.len(), Ordering::Relaxed);
        }
    }
}

fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    builder
}

/// Opens what is there, or makes it whole: an agent that dies while it makes its store leaves none.
fn create(place: &Place, cache_bytes: usize) -> Result<Database, StoreError> {
    let Place::File(path) = place else { return Ok(builder(cache_bytes).create_with_backend(InMemoryBackend::new())?) };
    if fs::metadata(path).is_ok_and(|meta| meta.len() > 0) {
        return Ok(builder(cache_bytes).open(path)?);
    }
    let new = path.with_extension("redb.new");
    let _ = fs::remove_file(&new);
    let database = builder(cache_bytes).create(&new)?;
    // The open file keeps its descriptor under its new name.
    let named = fs::rename(&new, path).and_then(|()| path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all()));
    named.map_err(|error| StoreError::Io { text: error.to_string() })?;
    Ok(database)
}

/// Opens what must be there.
fn open(place: &Place, cache_bytes: usize) -> Result<Database, StoreError> {
    match place {
        Place::File(path) => Ok(builder(cache_bytes).open(path)?),
        Place::Memory => create(place, cache_bytes),
    }
}
