//! The node's identity on the card: reads its four files, makes them at the first start, mends those that differ.
//!
//! Each file is written whole: new file, sync, rename, sync of the folder (`spec/runtime.md` 6.9).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use dunlin_hal::entropy::Rng;

use crate::node::Identity;
use crate::node::identity::FILE_NAMES;

/// Who this node is, by the files in `dir`.
///
/// # Errors
/// When files cannot be read or written, or none of them is whole.
pub fn load(dir: &Path, rng: &mut Rng) -> io::Result<Identity> {
    fs::create_dir_all(dir)?;
    let read = |name: &str| match fs::read(dir.join(name)) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    };
    let mut files = [None, None, None, None];
    for (slot, name) in files.iter_mut().zip(FILE_NAMES) {
        *slot = read(name)?;
    }
    let known = Identity::restore(&files).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why.to_string()))?;
    let identity = known.unwrap_or_else(|| Identity::fresh(rng));
    let sync = || File::open(dir)?.sync_all();
    let all: Vec<_> = files.iter().zip(identity.files()).zip(FILE_NAMES).collect();
    let (pair, copies) = all.split_at(2);
    // A copy holds the identity whole, half of the pair does not: whoever is cut short must not leave a damaged one.
    for part in [copies, pair] {
        let mut has_written = false;
        for ((held, wanted), name) in part {
            if held.as_deref().map(str::trim) != Some(wanted.trim()) {
                write(dir, name, wanted)?;
                has_written = true;
            }
        }
        if has_written {
            sync()?;
        }
    }
    Ok(identity)
}

fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, dir.join(name))
}
