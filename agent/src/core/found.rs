//! What a runtime folder tells the core at its start. Pure.

use dunlin_hal::clock::Wall;
use dunlin_runtime::shim::{self, news};
use dunlin_runtime::task::machine::News;

use super::Found;

impl Found {
    /// From a folder as it was scanned; of an orphan when its processes are gone. `None`: it does not say whose it is.
    #[must_use]
    pub fn of(folder: &shim::Found, now: Wall) -> Option<Self> {
        let (alloc, task) = folder.task.clone()?;
        let news = news::found(folder.fate(), folder.slot.as_ref(), now);
        let has_ended = news.last().is_some_and(|news| !matches!(news, News::Running { .. }));
        let is_alive = folder.is_alive && !has_ended;
        Some(Self { inv: folder.inv, alloc, task, window: folder.slot.as_ref().map(news::window), news, is_alive })
    }
}
