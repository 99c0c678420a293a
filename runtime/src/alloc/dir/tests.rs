//! Layout and modes, planted links, templates, removal of hostile trees. Some rows need root (mounts, owners).

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

/// A folder of this test alone, removed at its end, mounts included.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dir-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("scratch folder");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        unmount_below(&self.0);
        let _ = fs::remove_dir_all(&self.0);
    }
}

const ALLOC: AllocId = AllocId([7; 16]);

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").permissions().mode() & 0o7777
}

#[test]
fn the_layout_and_its_modes() {
    let scratch = Scratch::new("layout");
    for round in 0..2 {
        let dir = make(&scratch.0, ALLOC, "web", Owners::of_system(None)).expect("made");
        assert_eq!(dir.path, scratch.0.join(ALLOC.to_string()).join("web"));
        for (path, want) in [
            ("", 0o755),
            ("alloc", 0o777),
            ("alloc/data", 0o777),
            ("alloc/logs", 0o777),
            ("alloc/tmp", 0o777),
            ("web", 0o777),
            ("web/local", 0o777),
            ("web/tmp", 0o1777),
            ("web/secrets", 0o777),
        ] {
            assert_eq!(mode(&dir.alloc_path.join(path)), want, "round {round}: {path}");
        }
        if is_root() {
            let owner = |path: &str| fs::metadata(dir.alloc_path.join(path)).expect("there").uid();
            assert_eq!((owner(""), owner("web/local"), owner("web/secrets")), (0, NOBODY, NOBODY));
            let is_mount = fs::metadata(dir.path.join("secrets")).expect("there").dev() != fs::metadata(&dir.path).expect("there").dev();
            assert!(is_mount);
        }
    }
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let mounts_n = mountinfo.lines().filter(|line| line.contains(&*scratch.0.to_string_lossy())).count();
    assert_eq!(mounts_n, usize::from(is_root()), "mounted once");
    remove(&scratch.0, ALLOC).expect("removed");
    assert!(!alloc_path(&scratch.0, ALLOC).exists());
    remove(&scratch.0, ALLOC).expect("nothing to do");
}

#[test]
fn strict_secrets_belong_to_the_task_alone() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("strict");
    let dir = make(&scratch.0, ALLOC, "web", Owners::of_system(Some((1234, 1235)))).expect("made");
    let secrets = fs::metadata(dir.path.join("secrets")).expect("there");
    assert_eq!((secrets.uid(), secrets.gid(), secrets.mode() & 0o7777), (1234, 1235, 0o700));
    remove(&scratch.0, ALLOC).expect("removed");
}

#[test]
fn names_that_are_no_folder_names_are_refused() {
    let scratch = Scratch::new("names");
    for task in ["", ".", "..", "a/b", "/a", "a/", "a\0b"] {
        assert!(make(&scratch.0, ALLOC, task, Owners::of_system(None)).is_err(), "{task:?}");
    }
    assert!(!alloc_path(&scratch.0, ALLOC).exists());
}

#[test]
fn a_planted_link_is_not_followed() {
    let scratch = Scratch::new("links");
    let outside = scratch.0.join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("file"), "mine").expect("written");
    let dir = make(&scratch.0, ALLOC, "web", Owners::of_system(None)).expect("made");
    symlink(&outside, dir.path.join("local/link")).expect("planted");
    symlink(outside.join("file"), dir.path.join("local/file")).expect("planted");

    for path in ["local/link/file", "local/link/new", "local/link/deep/new"] {
        assert!(write_file(dir.fd.as_fd(), Path::new(path), b"theirs", 0o644).is_err(), "{path}");
    }
    // A link in the file's own place is replaced, not written through.
    assert!(write_file(dir.fd.as_fd(), Path::new("local/file"), b"theirs", 0o644).expect("written"));
    assert_eq!(fs::read(outside.join("file")).expect("there"), b"mine");
    assert_eq!(fs::read_dir(&outside).expect("there").count(), 1);

    let names = |path: &'static str| names(Path::new(path)).expect("plain");
    for (path, is_open) in [("local", true), ("local/link", false), ("local/link/file", false), ("local/file", true), ("none", false)] {
        let flags = OFlags::PATH;
        assert_eq!(open_beneath(dir.fd.as_fd(), Path::new(path), flags, Mode::empty()).is_ok(), is_open, "{path}");
        assert_eq!(walk(dir.fd.as_fd(), &names(path), flags, Mode::empty()).is_ok(), is_open, "walk {path}");
    }
    for path in ["..", "local/../..", "/etc/passwd", ""] {
        assert!(open_beneath(dir.fd.as_fd(), Path::new(path), OFlags::RDONLY, Mode::empty()).is_err(), "{path}");
    }

    // Folders replaced by links between two starts: refused, and nothing beyond the link is touched.
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o700)).expect("own");
    for name in ["web/local", "alloc/logs"] {
        let path = dir.alloc_path.join(name);
        fs::rename(&path, path.with_extension("moved")).expect("moved");
        symlink(&outside, &path).expect("planted");
        let error = make(&scratch.0, ALLOC, "web", Owners::of_system(None)).expect_err("a link");
        assert!(error.to_string().contains(name), "{error}");
        fs::remove_file(&path).expect("link");
        fs::rename(path.with_extension("moved"), &path).expect("back");
    }
    assert_eq!(mode(&outside), 0o700);
    remove(&scratch.0, ALLOC).expect("removed");
    assert_eq!(fs::read(outside.join("file")).expect("still there"), b"mine");
}

#[test]
fn templates_are_whole_and_rewritten_only_when_they_differ() {
    let scratch = Scratch::new("template");
    let dir = make(&scratch.0, ALLOC, "web", Owners::of_system(None)).expect("made");
    let path = Path::new("local/etc/app.conf");
    let write = |bytes: &[u8], mode| write_file(dir.fd.as_fd(), path, bytes, mode).expect("written");
    assert!(write(b"one", 0o600));
    let inode = fs::metadata(dir.path.join(path)).expect("there").ino();
    assert!(!write(b"one", 0o600));
    assert_eq!(fs::metadata(dir.path.join(path)).expect("there").ino(), inode);
    assert!(write(b"one", 0o644));
    assert_eq!(mode(&dir.path.join(path)), 0o644);
    assert!(write(b"two", 0o644));
    assert_eq!(fs::read(dir.path.join(path)).expect("there"), b"two");
    assert!(write(b"", 0o644));
    assert_eq!(fs::read_dir(dir.path.join("local/etc")).expect("there").count(), 1, "no temporary file is left");
    assert!(write_file(dir.fd.as_fd(), Path::new("local"), b"x", 0o644).is_err(), "a folder is in the way");
    assert!(!dir.path.join(TEMPORARY).exists());
    remove(&scratch.0, ALLOC).expect("removed");
}

#[test]
fn a_tree_deeper_than_the_stack_and_wider_than_a_round_is_removed() {
    let scratch = Scratch::new("deep");
    let dir = make(&scratch.0, ALLOC, "web", Owners::of_system(None)).expect("made");
    let mut at = dir.fd.try_clone().expect("dup");
    for _ in 0..3_000 {
        mkdirat(&at, "d", Mode::from_raw_mode(0o755)).expect("made");
        at = openat(&at, "d", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("open");
    }
    drop(at);
    for i in 0..600 {
        fs::write(dir.path.join(format!("local/{i}")), "").expect("written");
        fs::write(dir.alloc_path.join(format!(".removed-{i}")), "").expect("names in the way");
    }
    remove(&scratch.0, ALLOC).expect("removed");
    assert!(!alloc_path(&scratch.0, ALLOC).exists());
}
