//! What tasks can plant, in a real folder; both ways of resolving give the same answers.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::fs::path::AskedPath;

/// A temporary allocation folder, removed at the end, beside a file that must never be reached.
pub(in crate::fs) struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let base = std::env::temp_dir().join(format!("dunlin-fs-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        std::fs::create_dir_all(base.join("alloc-1")).unwrap();
        std::fs::write(base.join("outside"), "OUTSIDE").unwrap();
        Self(base)
    }

    pub fn root(&self) -> Root {
        Root::open(&self.0.join("alloc-1")).unwrap()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        let path = self.0.join("alloc-1").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    pub fn file(&self, path: &str, text: &str) {
        std::fs::write(self.path(path), text).unwrap();
    }

    pub fn link(&self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.path(path)).unwrap();
    }

    pub fn fifo(&self, path: &str) {
        nix::unistd::mkfifo(&self.path(path), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn read(root: &Root, path: &str) -> Result<String, String> {
    let path = AskedPath(path).resolve().map_err(|error| error.to_string())?;
    let (mut file, entry) = root.open_file(&path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| error.to_string())?;
    assert_eq!(entry.size, text.len() as u64);
    Ok(text)
}

#[track_caller]
fn check(folder: &Folder, path: &str, want: Result<&str, &str>) {
    assert_eq!(read(&folder.root(), path), want.map(str::to_owned).map_err(str::to_owned), "{path}");
    let path = AskedPath(path).resolve().unwrap();
    let by = |resolve: fn(BorrowedFd<'_>, &str) -> Result<OwnedFd, Errno>| folder.root().find_with(&path, resolve).map(|found| found.entry);
    assert_eq!(by(walk), by(super::resolve), "{path:?}");
}

const ESCAPES: Result<&str, &str> = Err("Path escapes the alloc directory");

#[test]
fn planted_links_stay_inside() {
    let folder = Folder::new("links");
    folder.file("alloc/data/f", "inside");
    folder.link("alloc/data/same", "f");
    folder.link("alloc/data/twice", "./same");
    folder.link("web/local/up", "../../alloc/data");
    folder.link("web/local/deep", "up/../data/./f");
    folder.link("web/root", "..");
    check(&folder, "alloc/data/f", Ok("inside"));
    check(&folder, "/alloc/data/same", Ok("inside"));
    check(&folder, "alloc/data/twice", Ok("inside"));
    check(&folder, "web/local/up/f", Ok("inside"));
    check(&folder, "web/local/deep", Ok("inside"));
    check(&folder, "web/root/alloc/data/f", Ok("inside"));

    let outside = folder.0.join("outside");
    folder.link("alloc/data/absolute", outside.to_str().unwrap());
    folder.link("alloc/data/relative", "../../../outside");
    folder.link("alloc/data/chain", "relative");
    folder.link("alloc/data/dir", "../../..");
    folder.link("alloc/data/into", "../../../alloc-1/alloc/data/f");
    folder.link("web/proc", "/proc/self/root");
    folder.link("web/self", folder.0.join("alloc-1/alloc/data/f").to_str().unwrap());
    for path in [
        "alloc/data/absolute",
        "alloc/data/relative",
        "alloc/data/chain",
        "alloc/data/dir/outside",
        "alloc/data/into",
        "web/proc/etc/passwd",
        "web/self",
    ] {
        check(&folder, path, ESCAPES);
    }

    folder.link("a", "b");
    folder.link("b", "a");
    folder.link("gone", "nowhere");
    check(&folder, "a", Err("a: Too many symbolic links encountered"));
    check(&folder, "gone", Err("gone: no such file or directory"));
    check(&folder, "alloc/data/f/x", Err("alloc/data/f/x: not a directory"));
    check(&folder, "alloc/data", Err("file \"alloc/data\" is a directory"));
    check(&folder, "/", Err("file \"/\" is a directory"));
    check(&folder, &"x".repeat(300), Err(&format!("{}: File name too long", "x".repeat(300))));
}

#[test]
fn pipes_and_devices_are_neither_opened_nor_waited_for() {
    let folder = Folder::new("kinds");
    folder.fifo("web/pipe");
    folder.link("web/link", "pipe");
    let _socket = std::os::unix::net::UnixListener::bind(folder.path("web/sock")).unwrap();
    check(&folder, "web/pipe", Err("file \"web/pipe\" is not a regular file"));
    check(&folder, "web/link", Err("file \"web/link\" is not a regular file"));
    check(&folder, "web/sock", Err("file \"web/sock\" is not a regular file"));
    // A writer would wait for a reader: it must still be waiting, because nobody opened the pipe.
    let pipe = OpenOptions::new().write(true).custom_flags(libc_flags()).open(folder.path("web/pipe"));
    assert_eq!(pipe.unwrap_err().raw_os_error(), Some(Errno::NXIO.raw_os_error()));
    if nix::unistd::geteuid().is_root() {
        let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRWXU);
        nix::sys::stat::mknod(&folder.path("web/zero"), kind, mode, nix::sys::stat::makedev(1, 5)).unwrap();
        check(&folder, "web/zero", Err("file \"web/zero\" is not a regular file"));
    }
}

#[test]
fn secrets_are_refused_by_name_and_by_place() {
    let folder = Folder::new("secrets");
    folder.file("web/secrets/key", "KEY");
    folder.file("web/private/key", "KEY");
    folder.file("alloc/secrets/key", "no secret");
    folder.link("alloc/data/link", "../../web/secrets/key");
    folder.link("alloc/data/dir", "../../web/private");
    folder.link("db/secrets", "../web/secrets");
    check(&folder, "web/secrets/key", Err("Reading secret file prohibited: web/secrets/key"));
    check(&folder, "web/secrets/none", Err("Reading secret file prohibited: web/secrets/none"));
    check(&folder, "web/private/key", Err("Reading private file prohibited: web/private/key"));
    check(&folder, "alloc/data/link", Err("Reading secret file prohibited: alloc/data/link"));
    check(&folder, "alloc/data/dir/key", Err("Reading private file prohibited: alloc/data/dir/key"));
    check(&folder, "db/secrets/key", Err("Reading secret file prohibited: db/secrets/key"));
    check(&folder, "web/secrets", Err("file \"web/secrets\" is a directory"));
    check(&folder, "alloc/secrets/key", Ok("no secret"));
}

#[test]
fn an_unlinked_file_is_read_to_its_end() {
    let folder = Folder::new("unlinked");
    folder.file("alloc/logs/web.stdout.0", "text");
    let path = AskedPath("alloc/logs/web.stdout.0").resolve().unwrap();
    let (mut file, entry) = folder.root().open_file(&path).unwrap();
    std::fs::remove_file(folder.path("alloc/logs/web.stdout.0")).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), entry.name.as_str()), ("text", "web.stdout.0"));
}

/// A task swaps a file for a link to the outside and back, as fast as it can: what is read is the file or nothing.
#[test]
fn a_swapped_link_never_leads_out() {
    let folder = Folder::new("swap");
    folder.file("web/x", "inside");
    folder.file("web/spare", "inside");
    folder.link("web/evil", "../../outside");
    folder.file("web/d/f", "inside");
    folder.link("web/e", "../..");
    std::fs::write(folder.0.join("f"), "OUTSIDE").unwrap();
    let (target, spare, evil) = (folder.path("web/x"), folder.path("web/spare"), folder.path("web/evil"));
    let (dir, away, dir_evil) = (folder.path("web/d"), folder.path("web/away"), folder.path("web/e"));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                for (from, to) in [
                    (&target, &spare),
                    (&evil, &target),
                    (&target, &evil),
                    (&spare, &target),
                    (&dir, &away),
                    (&dir_evil, &dir),
                    (&dir, &dir_evil),
                    (&away, &dir),
                ] {
                    std::fs::rename(from, to).unwrap();
                }
            }
        });
        let root = folder.root();
        for round in 0..4000 {
            for path in ["web/x", "web/d/f"] {
                if let Ok(text) = read(&root, path) {
                    assert_eq!(text, "inside", "{path}");
                }
                let walked = root.find_with(&AskedPath(path).resolve().unwrap(), walk);
                if let Ok(found) = walked {
                    let real = real_path(&found.file).unwrap();
                    assert!(real.starts_with(real_path(&root.0).unwrap()), "{real:?} in round {round}");
                }
            }
        }
        is_done.store(true, Ordering::Relaxed);
    });
}
