//! The entries of a folder, looked at without following links. An edge.
//!
//! Bounds: [`ENTRIES_MAX`] entries; beyond that the folder is refused as a whole, because a part of it would look like all.
//! Not atomic: what comes or goes meanwhile is in the list or not.

use super::FileError;
use super::open::Root;
use super::path::AllocPath;
use super::stat::Entry;

/// Entries of one listing; about 1 MiB with the longest names.
pub const ENTRIES_MAX: usize = 4096;

/// Lists a folder, sorted by name.
pub fn list(root: &Root, path: &AllocPath) -> Result<Vec<Entry>, FileError> {
    let found = root.find(path)?;
    if !found.entry.is_dir {
        return Err(FileError::NotDirectory(path.asked().to_owned()));
    }
    let failed = |error: std::io::Error| FileError::from_io(path.asked(), &error);
    let mut entries = Vec::new();
    for item in std::fs::read_dir(found.handle()).map_err(failed)? {
        let item = item.map_err(failed)?;
        match item.metadata() {
            Ok(_) if entries.len() == ENTRIES_MAX => return Err(FileError::TooMany(path.asked().to_owned())),
            Ok(metadata) => entries.push(Entry::new(item.file_name().to_string_lossy().into_owned(), &metadata)),
            // Gone since its name was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::open::tests::Folder;
    use crate::fs::path::AskedPath;

    fn names(folder: &Folder, path: &str) -> Result<Vec<String>, String> {
        let path = AskedPath(path).resolve().unwrap();
        let entries = list(&folder.root(), &path).map_err(|error| error.to_string())?;
        Ok(entries.into_iter().map(|entry| format!("{} {}", entry.name, entry.mode_text().chars().next().unwrap_or('?'))).collect())
    }

    #[test]
    fn entries_are_sorted_and_links_are_not_followed() {
        let folder = Folder::new("list");
        folder.file("alloc/data/b", "x");
        folder.file("alloc/data/a.json", "{}");
        folder.link("alloc/data/etc", "/etc");
        folder.link("alloc/data/dangling", "nowhere");
        folder.link("alloc/in", "data");
        folder.fifo("alloc/data/pipe");
        let want = vec!["a.json -".to_owned(), "b -".into(), "dangling L".into(), "etc L".into(), "pipe p".into()];
        assert_eq!(names(&folder, "/alloc/data"), Ok(want.clone()));
        assert_eq!(names(&folder, "alloc/in"), Ok(want));
        assert_eq!(names(&folder, "/"), Ok(vec!["alloc d".to_owned()]));
        assert_eq!(names(&folder, "alloc/data/etc"), Err("Path escapes the alloc directory".into()));
        assert_eq!(names(&folder, "alloc/data/b"), Err("alloc/data/b: not a directory".into()));
        assert_eq!(names(&folder, "nope"), Err("nope: no such file or directory".into()));
        assert_eq!(names(&folder, "alloc/data/pipe"), Err("alloc/data/pipe: not a directory".into()));
    }

    #[test]
    fn a_huge_folder_is_refused() {
        let folder = Folder::new("huge");
        for i in 0..ENTRIES_MAX {
            folder.link(&format!("d/{i}"), "x");
        }
        assert_eq!(names(&folder, "d").map(|names| names.len()), Ok(ENTRIES_MAX));
        folder.link("d/more", "x");
        assert_eq!(names(&folder, "d"), Err("d: more than 4096 entries".into()));
    }
}
