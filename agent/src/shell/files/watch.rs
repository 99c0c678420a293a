//! Watches on folders for the followers of their files: one inotify descriptor, one watch a folder, shared by its followers.
//!
//! A watch fires once and is gone, so a task that writes costs no wake-up while nobody waits; a follower sets the next one before it
//! reads. Nobody reads the events but those who wait, each for all; whom another has read for is woken by the watch itself, as the
//! descriptor is silent again by then. Bounds: events in the kernel <= watches set since the last wait.
//! Without inotify (none left, or a folder that cannot be watched) every wait ends after [`POLL`]: the follower looks again.
//! Source: `spec/runtime.md` 4 (follow).

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::Duration;

use dunlin_runtime::fs::open::Root;
use dunlin_runtime::fs::path::AskedPath;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use smol::channel::{Receiver, Sender};
use smol::future::{BoxedLocal, FutureExt as _};
use smol::{Async, Timer};

/// How often a folder that cannot be watched is looked at.
const POLL: Duration = Duration::from_secs(1);

/// Watches of one executor.
#[derive(Debug, Default)]
pub struct Watcher(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    inotify: OnceCell<Async<Inotify>>,
    watches: RefCell<HashMap<WatchDescriptor, Weak<Watch>>>,
}

/// One watch of one folder; removed with the last follower that waits for it.
#[derive(Debug)]
struct Watch {
    inner: Weak<Inner>,
    descriptor: WatchDescriptor,
    /// Closed when the watch fires, which wakes all who hold the other end; nothing is ever sent.
    fire: Sender<()>,
    fired: Receiver<()>,
}

impl Watcher {
    /// Resolves when something in `folder` (relative to the allocation's folder `root`) changes, from this call on.
    pub fn changed(&self, root: &Path, folder: &str) -> BoxedLocal<()> {
        match self.0.watch(root, folder) {
            Ok(watch) => Box::pin(wait(self.0.clone(), watch)),
            Err(error) => {
                log::debug!("folder is polled, not watched: error={error}");
                Box::pin(async {
                    Timer::after(POLL).await;
                })
            }
        }
    }
}

async fn wait(inner: Rc<Inner>, watch: Rc<Watch>) {
    let told = async {
        let _closed = watch.fired.recv().await;
    };
    let read = async {
        while let (false, Some(inotify)) = (watch.fire.is_closed(), inner.inotify.get()) {
            if inotify.readable().await.is_err() || inner.take_events(inotify.get_ref()).is_err() {
                Timer::after(POLL).await;
                return;
            }
        }
    };
    told.or(read).await;
}

impl Inner {
    fn watch(self: &Rc<Self>, root: &Path, folder: &str) -> std::io::Result<Rc<Watch>> {
        // A link that leads out of the allocation is not watched: its changes are nobody's business here.
        let found = AskedPath(folder)
            .resolve()
            .and_then(|path| Root::open(root).map_err(|error| dunlin_runtime::fs::FileError::from_io(folder, &error))?.find(&path));
        let found = found.map_err(std::io::Error::other)?;
        let mask = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONESHOT
            | AddWatchFlags::IN_ONLYDIR;
        let descriptor = self.inotify()?.get_ref().add_watch(&found.handle(), mask)?;
        let mut watches = self.watches.borrow_mut();
        if let Some(watch) = watches.get(&descriptor).and_then(Weak::upgrade) {
            return Ok(watch);
        }
        let (fire, fired) = smol::channel::bounded(1);
        let watch = Rc::new(Watch { inner: Rc::downgrade(self), descriptor, fire, fired });
        watches.insert(descriptor, Rc::downgrade(&watch));
        Ok(watch)
    }

    fn inotify(&self) -> std::io::Result<&Async<Inotify>> {
        if let Some(inotify) = self.inotify.get() {
            return Ok(inotify);
        }
        let inotify = Async::new_nonblocking(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?)?;
        Ok(self.inotify.get_or_init(|| inotify))
    }

    /// Reads what has happened and tells those who wait.
    fn take_events(&self, inotify: &Inotify) -> nix::Result<()> {
        loop {
            match inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                            self.fire_all();
                        } else {
                            self.fire(event.wd);
                        }
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn fire(&self, descriptor: WatchDescriptor) {
        let watch = self.watches.borrow_mut().remove(&descriptor);
        if let Some(watch) = watch.and_then(|watch| watch.upgrade()) {
            watch.fire.close();
        }
    }

    fn fire_all(&self) {
        let watches = self.watches.take();
        for watch in watches.into_values().filter_map(|watch| watch.upgrade()) {
            watch.fire.close();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(inner) = self.inner.upgrade() else { return };
        if self.fire.is_closed() {
            return;
        }
        inner.watches.borrow_mut().remove(&self.descriptor);
        if let Some(inotify) = inner.inotify.get() {
            // Fired meanwhile: then the kernel has removed it already.
            let _ = inotify.get_ref().rm_watch(self.descriptor);
        }
    }
}

#[cfg(test)]
impl Watcher {
    /// Watches that are set.
    pub(super) fn len(&self) -> usize {
        self.0.watches.borrow().len()
    }
}
