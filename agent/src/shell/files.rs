//! Files and folders of allocations for the bodies of answers: the work on the `file` worker, the watches on the executor.
//!
//! Shape: `api::body::Work` -> [`Done`] or a [`FileError`] with the path as asked. Paths are resolved beneath the allocation's
//! folder each time; an open file is handed to the connection that asked for it and read by offset.
//! Errors: none of its own; what means something to a client is decided in `api::client_fs`.

mod watch;
mod worker;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use dunlin_runtime::fs::list::list;
use dunlin_runtime::fs::open::Root;
use dunlin_runtime::fs::path::AskedPath;
use dunlin_runtime::id::AllocId;
use nix::errno::Errno;
use smol::future::BoxedLocal;

pub use self::watch::Watcher;
pub use self::worker::FileWorker;
use super::pump::{self, Done};
use crate::api::body::{Answer, FileError, Work};

/// Answers [`Work::Usage`] and [`Work::HostUsage`]; runs on the file worker.
pub type Sampler = Arc<dyn Fn(&Work) -> Result<Answer, FileError> + Send + Sync>;

/// Where allocations' files are, and who looks at them.
pub struct Files {
    worker: FileWorker,
    alloc_dir: Arc<Path>,
    sampler: Sampler,
    watcher: Rc<Watcher>,
}

impl Files {
    /// `alloc_dir` holds one folder for each allocation, named by its id.
    #[must_use]
    pub fn new(worker: FileWorker, alloc_dir: PathBuf, sampler: Sampler) -> Self {
        Self { worker, alloc_dir: alloc_dir.into(), sampler, watcher: Rc::new(Watcher::default()) }
    }
}

impl pump::Files for Files {
    fn work(&self, work: Work) -> BoxedLocal<Result<Done, FileError>> {
        let (worker, alloc_dir, sampler) = (self.worker.clone(), self.alloc_dir.clone(), self.sampler.clone());
        Box::pin(async move { worker.run(move || perform(&alloc_dir, &work, &sampler)).await })
    }

    fn read(&self, file: Arc<File>, at: u64, bytes_max: usize, mut buf: Vec<u8>) -> BoxedLocal<(Vec<u8>, Result<(), FileError>)> {
        let worker = self.worker.clone();
        Box::pin(async move {
            worker
                .run(move || {
                    let result = read_at(&file, at, bytes_max, &mut buf);
                    (buf, result)
                })
                .await
        })
    }

    fn changed(&self, alloc: AllocId, folder: &str) -> BoxedLocal<()> {
        self.watcher.changed(&self.alloc_dir.join(alloc.to_string()), folder)
    }
}

fn perform(alloc_dir: &Path, work: &Work, sampler: &Sampler) -> Result<Done, FileError> {
    let (alloc, asked) = match work {
        Work::Open { alloc, path } | Work::Stat { alloc, path } | Work::List { alloc, path } => (alloc, path),
        Work::Usage { .. } | Work::HostUsage => return sampler(work).map(|answer| Done { answer, file: None }),
    };
    let path = AskedPath(asked).resolve()?;
    let root = Root::open(&alloc_dir.join(alloc.to_string())).map_err(|error| FileError::from_io(asked, &error))?;
    let (answer, file) = match work {
        Work::Open { .. } => {
            let (file, entry) = root.open_file(&path)?;
            (Answer::Entry(entry), Some(Arc::new(file)))
        }
        Work::List { .. } => (Answer::Entries(list(&root, &path)?), None),
        _ => (Answer::Entry(root.find(&path)?.entry), None),
    };
    Ok(Done { answer, file })
}

/// One read into `buf`; what it held before is lost. Nothing read = end of the file for now.
fn read_at(file: &File, at: u64, bytes_max: usize, buf: &mut Vec<u8>) -> Result<(), FileError> {
    buf.clear();
    buf.resize(bytes_max, 0);
    let bytes_n = loop {
        match file.read_at(buf, at) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            answer => break answer,
        }
    };
    buf.truncate(*bytes_n.as_ref().unwrap_or(&0));
    // A descriptor has no path: the machine that asked knows it.
    bytes_n.map(|_| ()).map_err(|error: io::Error| FileError::Io(String::new(), error.raw_os_error().unwrap_or(Errno::EIO as i32)))
}

#[cfg(test)]
mod tests;
