//! The file `spec` of a runtime folder: all that one shim needs, written by the agent before the shim exists. Pure: bytes <-> [`Spec`].
//!
//! Shape: `[version u8][postcard]`. Texts handed to the kernel carry their final NUL, so the shim points into the file's bytes and
//! copies nothing. Bounds: [`SPEC_BYTES_MAX`]; a longer one is refused before the shim is started.
//! Source: `spec/runtime.md` 6.2.

use std::ffi::CStr;

use serde::{Deserialize, Serialize};

use crate::id::{AllocId, Inv};
use crate::spec::{KillPolicy, LogPolicy};

/// Version of the file. A changed struct is a new number: shims of another release read what their own agent wrote, but an agent
/// reads the files of two releases before.
pub const VERSION: u8 = 1;
/// Largest file. Full: the start is refused with a text.
pub const SPEC_BYTES_MAX: usize = 256 << 10;

/// One invocation as the shim sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec<'a> {
    /// The invocation.
    pub inv: Inv,
    /// The boot it belongs to.
    pub boot_id: [u8; 16],
    /// The allocation.
    pub alloc: AllocId,
    /// The task.
    pub task: &'a str,
    /// Version of the job, for a row rebuilt from this file.
    pub job_version: u64,
    /// What is executed. NUL-terminated, as all of the following.
    pub exec: &'a [u8],
    /// argv, `argv[0]` included.
    #[serde(borrow)]
    pub argv: Vec<&'a [u8]>,
    /// `KEY=value`.
    #[serde(borrow)]
    pub env: Vec<&'a [u8]>,
    /// Working directory.
    pub work_dir: &'a [u8],
    /// Who it runs as; `None` = who the agent is.
    pub user: Option<Ids>,
    /// `oom_score_adj` of the task.
    pub oom_score_adj: i32,
    /// Where it is confined.
    #[serde(borrow)]
    pub cgroup: Cgroup<'a>,
    /// The allocation's folder; output goes to `alloc/logs` below it.
    pub alloc_dir: &'a [u8],
    /// Its captured output.
    pub logs: LogPolicy,
    /// How the task is asked to end, for a row rebuilt from this file.
    pub kill: KillPolicy,
    /// Restarts in the current interval, for the slot.
    pub restart_n: u32,
    /// Start of that interval, nanoseconds since boot.
    pub interval_started_ns: u64,
    /// The agent's own bytes (events no commit holds yet); the shim does not look at them.
    pub note: &'a [u8],
}

/// User and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Control groups of one task. Paths are NUL-terminated; an empty slice = there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup<'a> {
    /// Folder in the v2 tree: joined at birth, killed as one.
    pub unified: &'a [u8],
    /// `cgroup.procs` files of the v1 trees the task joins.
    #[serde(borrow)]
    pub join: Vec<&'a [u8]>,
    /// Folder of the v1 freezer, for killing where there is no v2 tree.
    pub freezer: &'a [u8],
    /// File whose `oom_kill` line counts kills of this task only.
    pub oom: &'a [u8],
    /// `cgroup.procs` of the shims' own group.
    pub shims: &'a [u8],
}

/// Why a `spec` file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecError {
    /// More than [`SPEC_BYTES_MAX`].
    TooLong,
    /// Another release's.
    Version(u8),
    /// Cut short, damaged, or a text without its NUL.
    Malformed,
}

impl<'a> Spec<'a> {
    /// The file's bytes.
    ///
    /// # Errors
    /// [`SpecError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, SpecError> {
        let bytes = postcard::to_extend(self, vec![VERSION]).map_err(|_| SpecError::Malformed)?;
        if bytes.len() > SPEC_BYTES_MAX { Err(SpecError::TooLong) } else { Ok(bytes) }
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// See [`SpecError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, SpecError> {
        let spec: Self = match bytes.split_first() {
            _ if bytes.len() > SPEC_BYTES_MAX => return Err(SpecError::TooLong),
            Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|_| SpecError::Malformed)?,
            Some((&version, _)) => return Err(SpecError::Version(version)),
            None => return Err(SpecError::Malformed),
        };
        let Cgroup { unified, join, freezer, oom, shims } = &spec.cgroup;
        let needed = [spec.exec, spec.work_dir, spec.alloc_dir];
        let optional = [*unified, *freezer, *oom, *shims];
        let is_whole = spec.argv.iter().chain(&spec.env).chain(join).chain(&needed).all(|text| text_of(text).is_some())
            && optional.iter().all(|text| text.is_empty() || text_of(text).is_some())
            && !spec.argv.is_empty();
        if is_whole { Ok(spec) } else { Err(SpecError::Malformed) }
    }
}

/// The text of a NUL-terminated field; `None` when it is empty or holds another NUL.
#[must_use]
pub fn text_of(field: &[u8]) -> Option<&CStr> {
    CStr::from_bytes_with_nul(field).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Spec<'static> {
        Spec {
            inv: Inv(7),
            task: "web",
            exec: b"/bin/true\0",
            argv: vec![b"/bin/true\0", b"\0"],
            env: vec![b"A=b\0"],
            work_dir: b"/\0",
            alloc_dir: b"/a\0",
            user: Some(Ids { uid: 1, gid: 2, groups: vec![3] }),
            cgroup: Cgroup { unified: b"/sys/x\0", join: vec![b"/sys/y\0"], ..Cgroup::default() },
            ..Spec::default()
        }
    }

    #[test]
    fn round_trip_and_every_cut_is_refused() {
        let bytes = sample().encode().expect("fits");
        assert_eq!(Spec::decode(&bytes), Ok(sample()));
        for cut in 0..bytes.len() {
            assert!(Spec::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(Spec::decode(&[9, 0]), Err(SpecError::Version(9)));
    }

    #[test]
    fn texts_without_nul_are_refused() {
        for bad in [
            Spec { exec: b"/bin/true", ..sample() },
            Spec { exec: b"", ..sample() },
            Spec { argv: vec![], ..sample() },
            Spec { argv: vec![b"a\0b\0"], ..sample() },
            Spec { env: vec![b"A=b"], ..sample() },
            Spec { cgroup: Cgroup { oom: b"x", ..Cgroup::default() }, ..sample() },
            Spec { cgroup: Cgroup { join: vec![b""], ..Cgroup::default() }, ..sample() },
        ] {
            assert_eq!(Spec::decode(&bad.encode().expect("fits")), Err(SpecError::Malformed));
        }
    }

    #[test]
    fn too_long_is_refused_on_both_sides() {
        let note = vec![0; SPEC_BYTES_MAX];
        assert_eq!(Spec { note: &note, ..sample() }.encode(), Err(SpecError::TooLong));
        assert_eq!(Spec::decode(&vec![VERSION; SPEC_BYTES_MAX + 1]), Err(SpecError::TooLong));
    }
}
