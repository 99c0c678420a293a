//! The database handle, shared by the executor (reads) and the store thread (commits).
//!
//! redb latches an I/O error: the handle answers errors from then on. So the handle can be replaced ([`Backend::reopen`]).
//! redb opens its file itself; in the simulation a [`Disk`] stands in for that ([`Backend::over`]).
//! Settings: decision 5 (one table, one-phase commit, no quick-repair, small cache).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use dunlin_hal::disk::{Disk, KeptRoom};
use dunlin_hal::linux::disk::uncache;
use dunlin_hal::linux::reserve::Reserve;
use dunlin_hal::sim::disk::SimDisk;
use redb::{Database, StorageBackend, TableDefinition};

use super::StoreError;

/// The one table.
pub(super) const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");

enum Place {
    File(PathBuf),
    Disk(Arc<dyn Disk>),
}

/// A database that can be closed and opened again.
pub struct Backend {
    place: Place,
    cache_bytes: usize,
    reserve: Arc<dyn KeptRoom>,
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
        let reserve = Arc::new(Reserve::new(path.with_extension("reserve"), reserve_bytes));
        Self::new(Place::File(path.to_owned()), cache_bytes, reserve)
    }

    /// Opens or makes a database on a disk that is not the kernel's.
    ///
    /// # Errors
    /// As [`Backend::file`].
    pub fn over<D: Disk + KeptRoom + 'static>(disk: Arc<D>, cache_bytes: usize) -> Result<Self, StoreError> {
        Self::new(Place::Disk(disk.clone()), cache_bytes, disk)
    }

    /// A database in memory, for tests.
    ///
    /// # Errors
    /// Never in practice; the type is redb's.
    pub fn memory() -> Result<Self, StoreError> {
        Self::over(Arc::new(SimDisk::default()), 1 << 20)
    }

    fn new(place: Place, cache_bytes: usize, reserve: Arc<dyn KeptRoom>) -> Result<Self, StoreError> {
        let database = match create(&place, cache_bytes) {
            // To open it after a power cut takes room.
            Err(StoreError::Io { .. }) if reserve.give_up() => create(&place, cache_bytes)?,
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
        // Without a store thread of its own nobody replaces it meanwhile.
        let wait = if matches!(self.place, Place::File(_)) { REOPEN_WAIT } else { Duration::ZERO };
        let waited = self.reopened.wait_timeout_while(counted, wait, |n| *n == seen_n);
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
        !self.reserve.is_missing()
    }

    /// Gives that room up; false: there was none.
    pub(crate) fn give_up_reserve(&self) -> bool {
        self.reserve.give_up()
    }

    /// Looks at the file's size, and for room to keep; called after each commit, on the store thread.
    pub(super) fn measure(&self) {
        self.reserve.keep();
        let bytes = match &self.place {
            Place::File(path) => fs::metadata(path).map(|meta| meta.len()),
            Place::Disk(disk) => disk.len(),
        };
        if let Ok(bytes) = bytes {
            self.file_bytes.store(bytes, Ordering::Relaxed);
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
    let Place::File(path) = place else { return open(place, cache_bytes) };
    if fs::metadata(path).is_ok_and(|meta| meta.len() > 0) {
        return open(place, cache_bytes);
    }
    let new = path.with_extension("redb.new");
    let _ = fs::remove_file(&new);
    let database = builder(cache_bytes).create(&new)?;
    // The open file keeps its descriptor under its new name.
    let named = fs::rename(&new, path).and_then(|()| path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all()));
    named.map_err(|error| StoreError::Io { text: error.to_string() })?;
    Ok(database)
}

/// Opens what must be there, as the disk has it: after a failed sync the kernel's cache shows what was never written, and a commit
/// that builds on that is lost with the power, and all before it too.
fn open(place: &Place, cache_bytes: usize) -> Result<Database, StoreError> {
    match place {
        Place::File(path) => {
            if let Err(error) = uncache(path) {
                log::warn!("{}: {error}", path.display());
            }
            Ok(builder(cache_bytes).open(path)?)
        }
        Place::Disk(disk) => {
            disk.uncache();
            Ok(builder(cache_bytes).create_with_backend(OnDisk(disk.clone()))?)
        }
    }
}

/// A [`Disk`] as redb wants it.
#[derive(Debug)]
struct OnDisk(Arc<dyn Disk>);

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(at, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write(at, bytes)
    }
}
