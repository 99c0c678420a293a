//! The system's zone files: the folders other programs look into, and what `/etc/localtime` or `TZ` says of this machine.
//!
//! Bound: [`FILE_BYTES_MAX`]; the largest zone has 4 KiB. Blocking, but for some KiB of a file that is read when a job asks for it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::zones::Zones;

/// Longest zone file that is read.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Where zones are looked for, in this order.
const FOLDERS: &[&str] = &["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];
/// The zone of the machine, where `TZ` does not say otherwise.
const LOCAL: &str = "/etc/localtime";

/// The zones of a machine.
#[derive(Clone, Debug)]
pub struct ZoneFiles {
    folders: Vec<PathBuf>,
    /// `TZ`; `None` = not set.
    said: Option<String>,
}

impl ZoneFiles {
    /// This machine's. `said` is the value of `TZ`: a zone's name or an absolute path, after a colon or not; empty = UTC.
    #[must_use]
    pub fn new(said: Option<String>) -> Self {
        Self { folders: FOLDERS.iter().map(PathBuf::from).collect(), said }
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

impl Zones for ZoneFiles {
    fn zone(&self, name: &str) -> Option<Vec<u8>> {
        // A name is a place below the folders and nothing else.
        if name.is_empty() || Path::new(name).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return None;
        }
        self.folders.iter().find_map(|folder| read(&folder.join(name)))
    }

    fn local(&self) -> Option<Vec<u8>> {
        let Some(said) = &self.said else { return read(Path::new(LOCAL)) };
        let name = said.strip_prefix(':').unwrap_or(said);
        if name.starts_with('/') { read(Path::new(name)) } else { self.zone(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_below_their_folders_only() {
        let root = std::env::temp_dir().join(format!("dunlin-zones-{}", std::process::id()));
        std::fs::create_dir_all(root.join("one/Europe")).unwrap();
        std::fs::create_dir_all(root.join("two")).unwrap();
        std::fs::write(root.join("one/Europe/Berlin"), b"berlin").unwrap();
        std::fs::write(root.join("two/Here"), b"here").unwrap();
        std::fs::write(root.join("secret"), b"secret").unwrap();
        let folders = vec![root.join("none"), root.join("one"), root.join("two")];
        let of = |said: Option<&str>| ZoneFiles { folders: folders.clone(), said: said.map(str::to_owned) };
        for (name, want) in [
            ("Europe/Berlin", Some("berlin")),
            ("Here", Some("here")),
            ("Europe", None),
            ("Europe/Bonn", None),
            ("", None),
            ("../secret", None),
            ("Europe/../../secret", None),
            ("/etc/hostname", None),
            ("nul\0", None),
        ] {
            assert_eq!(of(None).zone(name).as_deref(), want.map(str::as_bytes), "{name}");
        }
        let absolute = root.join("two/Here").display().to_string();
        for (said, want) in [
            ("Here", Some("here")),
            (":Europe/Berlin", Some("berlin")),
            (absolute.as_str(), Some("here")),
            ("", None),
            ("EST5EDT,M3.2.0,M11.1.0", None),
        ] {
            assert_eq!(of(Some(said)).local().as_deref(), want.map(str::as_bytes), "{said}");
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
}
