//! The real machine. With `runtime`'s edges the only code that asks the kernel (invariant I2).

pub mod clock;
pub mod console;
pub mod disk;
pub mod entropy;
pub mod facts;
pub mod reserve;
pub mod volume;
pub mod zones;
