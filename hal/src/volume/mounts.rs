//! The kernel's list of mounts, read. Pure: bytes of `/proc/self/mountinfo` -> [`Mount`]s.
//!
//! Bound: the bytes given. Broken lines are skipped. Source: proc_pid_mountinfo(5).

use std::path::Path;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of the file system.
    pub number: String,
    /// Where it is mounted.
    pub mountpoint: String,
    /// Type, such as `ext4`.
    pub kind: String,
    /// Device or name, as mounted.
    pub source: String,
}

/// All mounts, oldest first.
#[must_use]
pub fn parse(bytes: &[u8]) -> Vec<Mount> {
    bytes.split(|&byte| byte == b'\n').filter_map(line).collect()
}

/// The mount that `path` (absolute, without links) lies on: the deepest one; of equals the newest, which hides the older.
#[must_use]
pub fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.iter().filter(|mount| path.starts_with(&mount.mountpoint)).max_by_key(|mount| mount.mountpoint.trim_end_matches('/').len())
}

/// `id parent major:minor root mountpoint options [tags] - type source superoptions`.
fn line(line: &[u8]) -> Option<Mount> {
    let text = core::str::from_utf8(line).ok()?;
    let (left, right) = text.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let (number, _root, mountpoint) = (left.next()?, left.next()?, left.next()?);
    let mut right = right.split(' ');
    let (kind, source) = (right.next()?, right.next()?);
    Some(Mount { number: number.to_owned(), mountpoint: unescape(mountpoint), kind: kind.to_owned(), source: unescape(source) })
}

/// The kernel writes space, tab, line feed and backslash as `\` and three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, tail)) = rest.split_once('\\') {
        out.push_str(plain);
        match tail.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &tail[3..];
            }
            None => {
                out.push('\\');
                rest = tail;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: &[u8] = b"\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 179:2 / / rw,noatime - ext4 /dev/root rw
30 27 179:1 / /boot rw shared:3 master:1 - vfat /dev/mmcblk0p1 rw
31 27 0:30 / /run rw - tmpfs tmpfs rw,size=2048k
33 27 8:1 / /mnt/usb\\040stick rw - ext4 /dev/sda1 rw
34 33 179:3 / /mnt/usb\\040stick rw - ext4 /dev/mmcblk0p3 rw
broken
35 27 0:9 / - x
\xff\xfe - a b
";

    #[track_caller]
    fn check(path: &str, want: &str) {
        assert_eq!(holding(&parse(BOARD), Path::new(path)).map_or("", |mount| mount.source.as_str()), want, "{path}");
    }

    #[test]
    fn finds_the_holding_mount() {
        check("/", "/dev/root");
        check("/var/lib/dunlin", "/dev/root");
        check("/boot", "/dev/mmcblk0p1");
        check("/bootstrap", "/dev/root");
        check("/run/dunlin/x", "tmpfs");
        check("/mnt/usb stick/a", "/dev/mmcblk0p3");
        check("relative", "");
        assert_eq!(holding(&[], Path::new("/")), None);
    }

    #[test]
    fn fields() {
        let mounts = parse(BOARD);
        assert_eq!(mounts.len(), 6);
        let want = Mount { number: "179:1".into(), mountpoint: "/boot".into(), kind: "vfat".into(), source: "/dev/mmcblk0p1".into() };
        assert_eq!(mounts[2], want);
    }

    #[test]
    fn escapes() {
        for (text, want) in [("a\\040b", "a b"), ("a\\134", "a\\"), ("\\9", "\\9"), ("\\377x", "\\377x"), ("\\é1", "\\é1"), ("\\", "\\")]
        {
            assert_eq!(unescape(text), want, "{text}");
        }
    }
}
