//! The simulated machine: every trait of this floor, driven by a test. Values are shared, so a test keeps a hand on what it
//! gave away. Nothing here asks the kernel.

pub mod clock;
pub mod console;
pub mod disk;
pub mod entropy;
pub mod facts;
pub mod volume;
pub mod zones;
