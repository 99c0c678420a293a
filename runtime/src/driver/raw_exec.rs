//! `raw_exec`: a program of the host, as it is. No isolation; the agent's own user unless the task names one.
//!
//! Shape: a launch -> [`Prepared`]. Source: `spec/runtime.md` 3.2; upstream v1.3.1 drivers/shared/executor/executor.go (`lookupBin`,
//! `makeExecutable`) and executor_universal_linux.go (`setCmdUser`), behaviour only. Departures: a path with `..` is not looked for in
//! the task's folder; permission bits are never changed through a symbolic link there; all supplementary groups are set.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{User, getgrouplist};
use rustix::fs::{Mode, OFlags, fchmod, fstat};

use super::{Launch, LaunchError, Prepared};
use crate::alloc::dir::{TaskDir, open_beneath};
use crate::shim::spec::Ids;

/// Permission bits a program gets if it lacks them.
const EXECUTABLE: u32 = 0o555;

/// The user a task runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskUser {
    /// Numbers for the kernel.
    pub ids: Ids,
    /// USER, LOGNAME.
    pub name: String,
    /// HOME.
    pub home: String,
}

/// Looks a user up, by name or number; `None` for the agent's own.
///
/// # Errors
/// There is no such user.
pub fn user(asked: &str) -> Result<Option<TaskUser>, LaunchError> {
    if asked.is_empty() {
        return Ok(None);
    }
    let unknown = |why: String| LaunchError::of_job(format_args!("failed to identify user {asked}: {why}"));
    let by_name = User::from_name(asked).map_err(|error| unknown(error.to_string()))?;
    let by_number = || asked.parse().ok().and_then(|uid| User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten());
    let user = by_name.or_else(by_number).ok_or_else(|| unknown(format!("user: unknown user {asked}")))?;
    let groups = CString::new(user.name.as_str())
        .map_err(|error| unknown(error.to_string()))
        .and_then(|name| getgrouplist(&name, user.gid).map_err(|error| unknown(error.to_string())))?;
    let ids = Ids { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect() };
    Ok(Some(TaskUser { ids, name: user.name, home: user.dir.to_string_lossy().into_owned() }))
}

/// Finds the program and makes it executable.
///
/// # Errors
/// It is nowhere, or its permissions cannot be changed.
pub fn prepare(launch: &Launch, user: Option<TaskUser>, task: &TaskDir, path: &OsStr) -> Result<Prepared, LaunchError> {
    let command = &launch.command;
    let exec = match look_up(&task.path, command, path) {
        Some(Found::InTask(relative)) => {
            make_task_file_executable(task, &relative).map_err(|error| not_executable(&relative, &error))?;
            task.path.join(relative)
        }
        Some(Found::OnHost(program)) => {
            make_host_file_executable(&program).map_err(|error| not_executable(&program, &error))?;
            program
        }
        None => return Err(LaunchError::of_job(format_args!("binary {command:?} could not be found"))),
    };
    let env = user.as_ref().map_or_else(BTreeMap::new, |user| {
        [("USER", &user.name), ("LOGNAME", &user.name), ("HOME", &user.home)].map(|(key, value)| (key.to_owned(), value.clone())).into()
    });
    Ok(Prepared { exec, user: user.map(|user| user.ids), env })
}

fn not_executable(path: &Path, error: &std::io::Error) -> LaunchError {
    LaunchError::of_job(format_args!("error making {:?} executable: {error}", path.display().to_string()))
}

/// Where a program was found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// Relative to the task's folder.
    InTask(PathBuf),
    /// Absolute.
    OnHost(PathBuf),
}

/// `<task>/local/x`, `<task>/x`, absolute, then PATH for a bare name.
fn look_up(task: &Path, command: &str, path: &OsStr) -> Option<Found> {
    let inside = Path::new(command.trim_start_matches('/'));
    let is_plain = !command.is_empty() && inside.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let in_task = [Path::new("local").join(inside), inside.to_path_buf()];
    if is_plain && let Some(relative) = in_task.into_iter().find(|relative| task.join(relative).is_file()) {
        return Some(Found::InTask(relative));
    }
    let absolute = Path::new(command);
    if absolute.is_absolute() {
        return absolute.is_file().then(|| Found::OnHost(absolute.to_path_buf()));
    }
    if command.is_empty() || command.contains('/') {
        return None;
    }
    path.as_bytes()
        .split(|&byte| byte == b':')
        .map(|folder| Path::new(OsStr::from_bytes(folder)))
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(command))
        .find(|file| is_executable(file))
        .map(Found::OnHost)
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn make_task_file_executable(task: &TaskDir, relative: &Path) -> std::io::Result<()> {
    // A link is used as it is: its target may lie anywhere, and that file's bits are not the task's to change.
    let Ok(fd) = open_beneath(task.fd.as_fd(), relative, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) else { return Ok(()) };
    let mode = fstat(&fd)?.st_mode & 0o7777;
    if mode & EXECUTABLE != EXECUTABLE {
        fchmod(&fd, Mode::from_raw_mode(mode | EXECUTABLE))?;
    }
    Ok(())
}

fn make_host_file_executable(file: &Path) -> std::io::Result<()> {
    let mode = fs::metadata(file)?.permissions().mode() & 0o7777;
    if mode & EXECUTABLE != EXECUTABLE {
        fs::set_permissions(file, fs::Permissions::from_mode(mode | EXECUTABLE))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::alloc::dir::{self, Owners};
    use crate::id::AllocId;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = dir::remove(&self.0, AllocId::default());
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn scratch(name: &str) -> (Scratch, TaskDir) {
        let root = std::env::temp_dir().join(format!("raw-exec-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let task = dir::make(&root, AllocId::default(), "web", Owners { nobody: None, secrets: None }).expect("made");
        (Scratch(root), task)
    }

    fn put(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().expect("below")).expect("folder");
        fs::write(path, "#!/bin/sh\n").expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("own");
    }

    #[test]
    fn programs_are_looked_for_in_this_order() {
        let (root, task) = scratch("order");
        let bin = root.0.join("bin");
        put(&bin.join("tool"), 0o755);
        put(&bin.join("plain"), 0o644);
        put(&task.path.join("both"), 0o755);
        put(&task.path.join("local/both"), 0o755);
        put(&task.path.join("rooted"), 0o755);
        put(&task.path.join("local/bin/sh"), 0o755);
        let in_task = |path: &str| Some(Found::InTask(path.into()));
        let tool = bin.join("tool");
        for (command, want) in [
            ("both", in_task("local/both")),
            ("rooted", in_task("rooted")),
            ("/bin/sh", in_task("local/bin/sh")),
            ("bin/sh", in_task("local/bin/sh")),
            ("/bin/cat", Some(Found::OnHost("/bin/cat".into()))),
            ("tool", Some(Found::OnHost(tool.clone()))),
            (tool.to_str().expect("text"), Some(Found::OnHost(tool.clone()))),
            ("plain", None),
            ("local", None),
            ("./../bin/tool", None),
            ("../web/rooted", None),
            ("no/such", None),
            ("", None),
            ("/", None),
        ] {
            assert_eq!(look_up(&task.path, command, bin.as_os_str()), want, "{command}");
        }
    }

    #[test]
    fn what_is_not_found_is_told_in_these_words() {
        let (_root, task) = scratch("missing");
        for command in ["/no/such/binary", "nope", ""] {
            let launch = Launch { command: command.to_owned(), ..Launch::default() };
            let error = prepare(&launch, None, &task, OsStr::new("/bin")).expect_err("missing");
            assert_eq!(error.text, format!("failed to launch command: binary \"{command}\" could not be found"));
            assert!(!error.is_recoverable);
        }
    }

    #[test]
    fn a_program_is_made_executable_but_not_through_a_link() {
        let (root, task) = scratch("bits");
        put(&task.path.join("local/app"), 0o600);
        let outside = root.0.join("outside");
        put(&outside, 0o600);
        symlink(&outside, task.path.join("local/link")).expect("planted");
        for (command, file, want) in [("app", task.path.join("local/app"), 0o755), ("link", outside, 0o600)] {
            let launch = Launch { command: command.to_owned(), ..Launch::default() };
            let prepared = prepare(&launch, None, &task, OsStr::new("")).expect("found");
            assert_eq!(prepared.exec, task.path.join("local").join(command));
            assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o7777, want, "{command}");
        }
    }

    #[test]
    fn users() {
        assert_eq!(user("").expect("own"), None);
        for name in ["root", "0"] {
            let root = user(name).expect("known").expect("a user");
            assert_eq!((root.ids.uid, root.name.as_str(), root.home.as_str()), (0, "root", "/root"));
            assert!(root.ids.groups.contains(&0));
        }
        let error = user("no-such-user").expect_err("unknown");
        assert_eq!(error.text, "failed to launch command: failed to identify user no-such-user: user: unknown user no-such-user");
    }
}
