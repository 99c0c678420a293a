//! A volume that is as full or as broken as a test says. Clones share it.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use super::facts::usage;
use crate::volume::{Op, Space, Volume, VolumeError};

/// One simulated file system for all paths.
#[derive(Clone, Debug)]
pub struct SimVolume(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    space: Space,
    /// What syncs fail with.
    fails: Option<i32>,
    syncs: usize,
}

impl Default for SimVolume {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(State { space: usage().alloc_dir, fails: None, syncs: 0 })))
    }
}

impl SimVolume {
    /// Other figures.
    pub fn set(&self, space: Space) {
        self.0.borrow_mut().space = space;
    }

    /// Nothing more can be written.
    pub fn fill(&self) {
        let space = &mut self.0.borrow_mut().space;
        (space.used, space.available) = (space.size, 0);
    }

    /// From now on each sync fails with `errno`; `None` = works again.
    pub fn fail(&self, errno: Option<i32>) {
        self.0.borrow_mut().fails = errno;
    }

    /// Syncs that succeeded.
    #[must_use]
    pub fn syncs(&self) -> usize {
        self.0.borrow().syncs
    }

    fn sync(&self, op: Op, path: &Path) -> Result<(), VolumeError> {
        let mut state = self.0.borrow_mut();
        match state.fails {
            Some(errno) => Err(VolumeError::new(op, path, errno)),
            None => {
                state.syncs += 1;
                Ok(())
            }
        }
    }
}

impl Volume for SimVolume {
    fn space(&self, _path: &Path) -> Result<Space, VolumeError> {
        Ok(self.0.borrow().space.clone())
    }

    fn sync_file(&self, path: &Path) -> Result<(), VolumeError> {
        self.sync(Op::SyncFile, path)
    }

    fn sync_dir(&self, path: &Path) -> Result<(), VolumeError> {
        self.sync(Op::SyncDir, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{EIO, ENOSPC};

    #[test]
    fn full_and_failing() {
        let hand = SimVolume::default();
        let (given, path) = (hand.clone(), Path::new("/x"));
        assert_eq!(given.sync_file(path), Ok(()));
        hand.fill();
        let space = given.space(path).unwrap();
        assert_eq!((space.available, space.used), (0, space.size));
        hand.fail(Some(ENOSPC));
        assert!(given.sync_file(path).unwrap_err().is_full());
        hand.fail(Some(EIO));
        assert_eq!(given.sync_dir(path), Err(VolumeError::new(Op::SyncDir, path, EIO)));
        hand.fail(None);
        assert_eq!((given.sync_dir(path), hand.syncs()), (Ok(()), 2));
    }
}
