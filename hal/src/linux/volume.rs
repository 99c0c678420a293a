//! File systems as the kernel tells them: `statvfs`, the list of mounts, `fsync`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::facts::Files;
use crate::volume::mounts::{self, Mount};
use crate::volume::{Op, Space, Volume, VolumeError};

/// The mounted file systems.
#[derive(Clone, Debug)]
pub struct Mounted {
    /// Where `/proc` and `/sys` are looked for.
    files: Files,
}

impl Mounted {
    /// `root` is `/`, or a folder that holds a made-up `proc` and `sys` (tests).
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { files: Files::new(root) }
    }

    /// Statistics of one mount; `at` is any path on it.
    pub(super) fn of_mount(&self, mount: Option<&Mount>, at: &Path) -> Result<Space, VolumeError> {
        let stat = statvfs(at).map_err(|errno| VolumeError::new(Op::Space, at, errno as i32))?;
        #[allow(clippy::useless_conversion, reason = "the block size is a C long: 32 bits on armv7")]
        let (unit, size, free, available, inodes, inodes_free) = (
            u64::from(stat.fragment_size()),
            u64::from(stat.blocks()),
            u64::from(stat.blocks_free()),
            u64::from(stat.blocks_available()),
            u64::from(stat.files()),
            u64::from(stat.files_free()),
        );
        Ok(Space {
            device: mount.map(|mount| self.device(mount)).unwrap_or_default(),
            mountpoint: mount.map(|mount| mount.mountpoint.clone()).unwrap_or_default(),
            size: size.saturating_mul(unit),
            used: size.saturating_sub(free).saturating_mul(unit),
            available: available.saturating_mul(unit),
            inodes,
            inodes_used: inodes.saturating_sub(inodes_free),
        })
    }

    /// All mounts, oldest first; empty when the kernel's list cannot be read.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        self.files.read("proc/self/mountinfo").map(|bytes| mounts::parse(&bytes)).unwrap_or_default()
    }

    /// The device's own name where the kernel mounted the root itself and only says `/dev/root`.
    fn device(&self, mount: &Mount) -> String {
        if mount.source != "/dev/root" {
            return mount.source.clone();
        }
        let link = fs::read_link(self.files.path(&format!("sys/dev/block/{}", mount.number)));
        let name = link.ok().and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
        name.map_or_else(|| mount.source.clone(), |name| format!("/dev/{name}"))
    }
}

/// The deepest part of a path that exists, without links.
fn existing(path: &Path) -> io::Result<PathBuf> {
    for part in path.ancestors().filter(|part| !part.as_os_str().is_empty()) {
        match part.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    Path::new(".").canonicalize()
}

fn sync(op: Op, path: &Path) -> Result<(), VolumeError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| failed(op, path, &error))
}

fn failed(op: Op, path: &Path, error: &io::Error) -> VolumeError {
    VolumeError::new(op, path, error.raw_os_error().unwrap_or(0))
}

impl Volume for Mounted {
    fn space(&self, path: &Path) -> Result<Space, VolumeError> {
        let at = existing(path).map_err(|error| failed(Op::Space, path, &error))?;
        let mounts = self.mounts();
        self.of_mount(mounts::holding(&mounts, &at), &at)
    }

    fn sync_file(&self, path: &Path) -> Result<(), VolumeError> {
        sync(Op::SyncFile, path)
    }

    fn sync_dir(&self, path: &Path) -> Result<(), VolumeError> {
        sync(Op::SyncDir, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::facts::tests::Tree;

    #[test]
    fn this_machine() {
        let volume = Mounted::new("/");
        let root = volume.space(Path::new("/")).unwrap();
        assert_eq!(root.mountpoint, "/");
        assert!(root.size > 0 && root.used <= root.size && root.available <= root.size && root.inodes_used <= root.inodes);
        // A folder that is not made yet lies where its parent does.
        let here = std::env::temp_dir();
        let later = volume.space(&here.join("no/such/folder")).unwrap();
        assert_eq!(later.mountpoint, volume.space(&here).unwrap().mountpoint);
        assert!(volume.space(Path::new("not-here")).is_ok());
    }

    #[test]
    fn the_root_device_gets_its_name() {
        let tree = Tree::new("volume-root");
        tree.file("proc/self/mountinfo", "27 1 179:2 / / rw - ext4 /dev/root rw\n");
        assert_eq!(Mounted::new(tree.path()).space(Path::new("/")).unwrap().device, "/dev/root");
        tree.link("sys/dev/block/179:2", "../../devices/mmc0/block/mmcblk0/mmcblk0p2");
        assert_eq!(Mounted::new(tree.path()).space(Path::new("/")).unwrap().device, "/dev/mmcblk0p2");
    }

    #[test]
    fn no_mount_list_still_tells_the_space() {
        let space = Mounted::new("/no/such/root").space(Path::new("/")).unwrap();
        assert!(space.size > 0 && space.device.is_empty());
    }

    #[test]
    fn syncs() {
        let tree = Tree::new("volume-sync");
        tree.file("a/file", "bytes");
        let volume = Mounted::new("/");
        assert_eq!(volume.sync_file(&tree.path().join("a/file")), Ok(()));
        assert_eq!(volume.sync_dir(&tree.path().join("a")), Ok(()));
        let missing = volume.sync_file(&tree.path().join("b")).unwrap_err();
        assert_eq!((missing.op, missing.errno), (Op::SyncFile, 2));
    }
}
