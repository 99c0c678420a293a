//! Where log lines go. The words are made above this floor; here they only leave the process.
//!
//! Shape: bytes of whole lines -> a device. One device kind for the agent's log, so a board may give a serial port instead
//! of the inherited descriptor. Never: formats, filters, buffers.
//! Errors: an [`ErrorKind`], never fatal: who logs goes on without.

use embedded_io::{ErrorKind, Write};

/// A sink for log lines. `Send`, because any thread may log.
pub trait Console: Write<Error = ErrorKind> + Send {}

impl<T: Write<Error = ErrorKind> + Send> Console for T {}
