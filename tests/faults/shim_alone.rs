//! The shim without the agent: an executable for fault tests (decision 23). It differs in one thing: from the shim's first reading of
//! the clock on, which is after READY, an allocation ends the process. So each fault test also proves that the shim allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use dunlin_hal::clock::{Clock, Now};
use dunlin_hal::linux::clock::KernelClock;
use dunlin_runtime::shim;

/// The shim is ready.
static IS_READY: AtomicBool = AtomicBool::new(false);

struct UntilReady;

// SAFETY: everything is passed on to the system's allocator as it is, or the process ends.
unsafe impl GlobalAlloc for UntilReady {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IS_READY.load(Ordering::Relaxed) {
            std::process::abort();
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: UntilReady = UntilReady;

struct MarkingClock;

impl Clock for MarkingClock {
    fn now(&self) -> Now {
        IS_READY.store(true, Ordering::Relaxed);
        KernelClock.now()
    }
}

fn main() -> ExitCode {
    match shim::invoked() {
        Some(dir) => ExitCode::from(u8::try_from(shim::main(&MarkingClock, &dir)).unwrap_or(1)),
        None => ExitCode::FAILURE,
    }
}
