//! Floor 0: what the machine gives. Traits and plain data; never a decision about tasks, jobs or the API.
//!
//! Each trait has two implementations with the same file name: `linux/` asks the kernel, `sim/` is driven by a test.
//! Nothing above this floor may ask the kernel for the time, for random bytes or for facts about the machine (invariant I2).

pub mod budget;
pub mod clock;
pub mod console;
pub mod count;
pub mod disk;
pub mod entropy;
pub mod facts;
pub mod linux;
pub mod sim;
pub mod volume;
pub mod zones;
