//! What the kernel keeps of a file in memory, and how to have it show what is on the disk.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// Has the kernel forget what it keeps of a file. After a failed sync it keeps pages as clean that the disk never got; what is still
/// on its way there is waited for first.
///
/// # Errors
/// The file cannot be opened, or the kernel refuses. That what was on its way could not be written is none: it is forgotten too.
pub fn uncache(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let _ = file.sync_data();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_still_there() {
        let path = std::env::temp_dir().join(format!("dunlin-uncache-{}", std::process::id()));
        std::fs::write(&path, [7; 100_000]).unwrap();
        uncache(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [7; 100_000]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(uncache(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
