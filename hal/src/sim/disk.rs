//! A disk that lies as disks do. What is not synced may be lost, torn or reordered when the power fails; it may be full or broken
//! for a while; and whoever writes may die between any two operations. Clones share it.
//!
//! Model: reads see what was written last (the kernel's cache). A cut leaves the synced bytes and, of the writes since, what
//! [`SimDisk::cut`] draws: nothing, all, a beginning, or any of their sectors. A sync that fails leaves the cache ahead of the medium
//! with nothing marked as dirty, as Linux does: later syncs do not write it again, and only [`Disk::uncache`] shows what is there.
//! Units: bytes; [`SECTOR`] is what is written whole or not at all, [`BLOCK`] what a file takes room in.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entropy::split_mix;
use crate::disk::{Disk, KeptRoom};
use crate::volume::{EIO, ENOSPC};

/// Bytes that a device writes whole or not at all.
pub const SECTOR: usize = 512;
/// Bytes a file takes at a time.
pub const BLOCK: usize = 4096;

/// One file on a simulated disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

/// What fails, and with which number of the kernel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Reads.
    pub read: Option<i32>,
    /// Writes and changes of length.
    pub write: Option<i32>,
    /// Syncs.
    pub sync: Option<i32>,
}

/// What a disk has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Writes.
    pub writes_n: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Syncs that succeeded.
    pub syncs_n: u64,
}

/// A change that is not durable.
enum Dirty {
    Write { at: usize, bytes: Vec<u8> },
    Len(usize),
}

struct State {
    cache: Vec<u8>,
    medium: Vec<u8>,
    /// Oldest first.
    dirty: Vec<Dirty>,
    /// Blocks that take room.
    taken: Vec<bool>,
    taken_n: usize,
    room_bytes: u64,
    reserve_bytes: u64,
    has_reserve: bool,
    faults: Faults,
    /// Operations until whoever writes is dead.
    ops_left: Option<u64>,
    word: u64,
    figures: Figures,
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} bytes, {} changes not synced", self.cache.len(), self.dirty.len())
    }
}

impl Default for SimDisk {
    /// A good disk without an end.
    fn default() -> Self {
        Self::new(0, 0)
    }
}

fn failed(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// A range of the file as indexes.
fn range(at: u64, len: usize, end: usize) -> io::Result<core::ops::Range<usize>> {
    let from = usize::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
    let to = from.checked_add(len).filter(|to| *to <= end).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(from..to)
}

impl SimDisk {
    /// A good disk without an end, on which `reserve_bytes` are kept for the day it is full (0: none are wanted). What cuts and
    /// failures leave is drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64, reserve_bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            cache: Vec::new(),
            medium: Vec::new(),
            dirty: Vec::new(),
            taken: Vec::new(),
            taken_n: 0,
            room_bytes: u64::MAX,
            reserve_bytes,
            has_reserve: reserve_bytes > 0,
            faults: Faults::default(),
            ops_left: None,
            word: seed,
            figures: Figures::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on so much more can be written before the disk is full; `None` = there is no end.
    pub fn fill(&self, free_bytes: Option<u64>) {
        let mut state = self.state();
        state.room_bytes = free_bytes.map_or(u64::MAX, |free| state.used_bytes().saturating_add(free));
    }

    /// What fails from now on.
    pub fn fail(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Whoever writes dies after `ops_n` more reads, writes and syncs: all that follow have no effect, until [`SimDisk::cut`] or
    /// [`SimDisk::revive`].
    pub fn stop_after(&self, ops_n: u64) {
        self.state().ops_left = Some(ops_n);
    }

    /// True when somebody died of [`SimDisk::stop_after`].
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().ops_left == Some(0)
    }

    /// Another process takes over: it sees all that was written, durable or not.
    pub fn revive(&self) {
        self.state().ops_left = None;
    }

    /// The power fails and comes back.
    pub fn cut(&self) {
        let mut state = self.state();
        let dirty = core::mem::take(&mut state.dirty);
        match state.draw(4) {
            0 => {}
            1 => dirty.iter().for_each(|change| state.reaches(change, |_| true)),
            2 => {
                let whole_n = state.draw(dirty.len() + 1);
                dirty.iter().take(whole_n).for_each(|change| state.reaches(change, |_| true));
                if let Some(change) = dirty.get(whole_n) {
                    let sectors_n = state.draw(9);
                    state.reaches(change, |sector| sector < sectors_n);
                }
            }
            _ => {
                for change in &dirty {
                    let mut word = state.word();
                    state.reaches(change, |_| {
                        word = word.rotate_right(1);
                        word & 1 == 0
                    });
                }
            }
        }
        let State { cache, medium, ops_left, .. } = &mut *state;
        cache.clone_from(medium);
        *ops_left = None;
    }

    /// What it has done so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.state().figures
    }
}

impl State {
    fn word(&mut self) -> u64 {
        split_mix(&mut self.word)
    }

    fn draw(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(1);
        usize::try_from(self.word() % end).unwrap_or(0)
    }

    /// Counts one operation; an error when its process is dead, or it fails.
    fn begin(&mut self, fault: Option<i32>) -> io::Result<()> {
        match &mut self.ops_left {
            Some(0) => return Err(failed(EIO)),
            Some(left) => *left -= 1,
            None => {}
        }
        fault.map_or(Ok(()), |errno| Err(failed(errno)))
    }

    fn used_bytes(&self) -> u64 {
        let reserve = if self.has_reserve { self.reserve_bytes } else { 0 };
        reserve.saturating_add(u64::try_from(self.taken_n * BLOCK).unwrap_or(u64::MAX))
    }

    fn resize(&mut self, len: usize) {
        self.cache.resize(len, 0);
        self.taken.resize(len.div_ceil(BLOCK), false);
        self.taken_n = self.taken.iter().filter(|is_taken| **is_taken).count();
    }

    /// Takes room for a range; how many bytes of it there is room for.
    fn take(&mut self, range: &core::ops::Range<usize>) -> usize {
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            if self.taken.get(block).copied().unwrap_or(true) {
                continue;
            }
            if self.used_bytes().saturating_add(u64::try_from(BLOCK).unwrap_or(0)) > self.room_bytes {
                return (block * BLOCK).saturating_sub(range.start);
            }
            if let Some(is_taken) = self.taken.get_mut(block) {
                *is_taken = true;
                self.taken_n += 1;
            }
        }
        range.len()
    }

    /// Of a change that was not synced these sectors reach the medium, numbered from its first.
    fn reaches(&mut self, change: &Dirty, mut takes: impl FnMut(usize) -> bool) {
        match change {
            Dirty::Len(len) => {
                if takes(0) {
                    self.medium.resize(*len, 0);
                }
            }
            Dirty::Write { at, bytes } => {
                let mut from = *at;
                let end = at + bytes.len();
                let mut n = 0;
                while from < end {
                    let to = ((from / SECTOR + 1) * SECTOR).min(end);
                    // Beyond a length that was lost there is no file.
                    if takes(n)
                        && let (Some(there), Some(new)) = (self.medium.get_mut(from..to), bytes.get(from - at..to - at))
                    {
                        there.copy_from_slice(new);
                    }
                    from = to;
                    n += 1;
                }
            }
        }
    }
}

impl Disk for SimDisk {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state();
        state.begin(None)?;
        Ok(u64::try_from(state.cache.len()).unwrap_or(u64::MAX))
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.faults.read;
        state.begin(fault)?;
        let range = range(at, out.len(), state.cache.len())?;
        out.copy_from_slice(state.cache.get(range).unwrap_or_default());
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.faults.write;
        state.begin(fault)?;
        let range = range(at, bytes.len(), state.cache.len())?;
        let n = state.take(&range);
        let bytes_n = bytes.len();
        let bytes = bytes.get(..n).unwrap_or_default();
        if let Some(there) = state.cache.get_mut(range.start..range.start + n) {
            there.copy_from_slice(bytes);
        }
        state.dirty.push(Dirty::Write { at: range.start, bytes: bytes.to_vec() });
        state.figures.writes_n += 1;
        state.figures.written_bytes += u64::try_from(n).unwrap_or(0);
        if n < bytes_n { Err(failed(ENOSPC)) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.faults.write;
        state.begin(fault)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        state.resize(len);
        state.dirty.push(Dirty::Len(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.faults.sync;
        let begun = state.begin(fault);
        if state.ops_left == Some(0) && begun.is_err() {
            return begun;
        }
        let dirty = core::mem::take(&mut state.dirty);
        if let Err(error) = begun {
            for change in &dirty {
                let is_lost = state.draw(2) == 0;
                state.reaches(change, |_| !is_lost);
            }
            return Err(error);
        }
        let State { cache, medium, .. } = &mut *state;
        medium.resize(cache.len(), 0);
        for change in &dirty {
            if let Dirty::Write { at, bytes } = change {
                let range = *at..(at + bytes.len()).min(cache.len());
                if let (Some(there), Some(new)) = (medium.get_mut(range.clone()), cache.get(range)) {
                    there.copy_from_slice(new);
                }
            }
        }
        state.figures.syncs_n += 1;
        Ok(())
    }

    fn uncache(&self) {
        let mut state = self.state();
        let State { cache, medium, dirty, .. } = &mut *state;
        cache.clone_from(medium);
        for change in dirty {
            match change {
                Dirty::Len(len) => cache.resize(*len, 0),
                Dirty::Write { at, bytes } => {
                    let end = (*at + bytes.len()).min(cache.len());
                    if let (Some(there), Some(new)) = (cache.get_mut(*at..end), bytes.get(..end.saturating_sub(*at))) {
                        there.copy_from_slice(new);
                    }
                }
            }
        }
    }
}

impl KeptRoom for SimDisk {
    fn is_missing(&self) -> bool {
        let state = self.state();
        state.reserve_bytes > 0 && !state.has_reserve
    }

    fn keep(&self) {
        let mut state = self.state();
        if state.reserve_bytes > 0 && !state.has_reserve && state.ops_left != Some(0) {
            state.has_reserve = state.used_bytes().saturating_add(8 * state.reserve_bytes) <= state.room_bytes;
        }
    }

    fn give_up(&self) -> bool {
        let mut state = self.state();
        state.ops_left != Some(0) && core::mem::take(&mut state.has_reserve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of eight sectors of ones, durable; then one write of twos over all of it, which is not.
    fn half_written(seed: u64) -> SimDisk {
        let disk = SimDisk::new(seed, 0);
        disk.set_len(4096).unwrap();
        disk.write(0, &[1; 4096]).unwrap();
        disk.sync().unwrap();
        disk.write(0, &[2; 4096]).unwrap();
        disk
    }

    fn bytes(disk: &SimDisk) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(disk.len().unwrap()).unwrap()];
        disk.read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn a_cut_tears_at_sectors_and_spares_what_was_synced() {
        let mut kinds = [0; 3];
        for seed in 0..200 {
            let disk = half_written(seed);
            assert_eq!(bytes(&disk), [2; 4096]);
            disk.cut();
            let left = bytes(&disk);
            let new_n = left.chunks(SECTOR).filter(|sector| **sector == [2; SECTOR]).count();
            let old_n = left.chunks(SECTOR).filter(|sector| **sector == [1; SECTOR]).count();
            assert_eq!(new_n + old_n, 8, "a sector is written whole or not at all");
            kinds[if new_n == 0 { 0 } else { usize::from(old_n == 0) + 1 }] += 1;
            disk.cut();
            assert_eq!(bytes(&disk), left, "what a cut has left is durable");
        }
        assert!(kinds.iter().all(|n| *n > 20), "{kinds:?}");
    }

    #[test]
    fn a_length_that_was_not_synced_may_be_lost_with_all_beyond_it() {
        let lens: std::collections::BTreeSet<usize> = (0..50)
            .map(|seed| {
                let disk = half_written(seed);
                disk.set_len(8192).unwrap();
                disk.write(4096, &[3; 4096]).unwrap();
                disk.cut();
                bytes(&disk).len()
            })
            .collect();
        assert_eq!(lens.into_iter().collect::<Vec<_>>(), [4096, 8192]);
    }

    #[test]
    fn full_takes_what_fits_and_gives_the_kept_room_once() {
        let disk = SimDisk::new(1, 8 << 10);
        disk.set_len(64 << 10).unwrap();
        disk.fill(Some(8 << 10));
        disk.write(0, &[1; 8 << 10]).unwrap();
        let error = disk.write(8 << 10, &[1; 4096]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(ENOSPC));
        disk.write(0, &[2; 8 << 10]).unwrap();
        assert!(!disk.is_missing() && disk.give_up() && !disk.give_up() && disk.is_missing());
        disk.write(8 << 10, &[1; 8 << 10]).unwrap();
        assert!(disk.write(16 << 10, &[1]).is_err());
        disk.keep();
        assert!(disk.is_missing(), "there is too little room to keep some of it");
        disk.fill(None);
        disk.keep();
        assert!(!disk.is_missing());
    }

    #[test]
    fn a_failed_sync_leaves_the_cache_ahead_of_the_medium() {
        let mut lost_n = 0;
        for seed in 0..40 {
            let disk = half_written(seed);
            disk.fail(Faults { sync: Some(EIO), ..Faults::default() });
            assert_eq!(disk.sync().unwrap_err().raw_os_error(), Some(EIO));
            disk.fail(Faults::default());
            disk.sync().unwrap();
            assert_eq!(bytes(&disk), [2; 4096], "reads see what was written");
            disk.uncache();
            lost_n += usize::from(bytes(&disk) == [1; 4096]);
        }
        assert!((5..35).contains(&lost_n), "{lost_n}");
    }

    #[test]
    fn who_dies_writes_no_more() {
        let disk = half_written(1);
        disk.stop_after(1);
        disk.write(0, &[3; 512]).unwrap();
        assert!(disk.write(512, &[3; 512]).is_err() && disk.sync().is_err() && disk.is_stopped());
        disk.revive();
        assert_eq!((bytes(&disk)[0], bytes(&disk)[512]), (3, 2));
        assert_eq!(disk.figures(), Figures { writes_n: 3, written_bytes: 8704, syncs_n: 1 });
    }
}
