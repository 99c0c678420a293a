//! The inherited standard error, unbuffered.

use std::io;

use embedded_io::{ErrorKind, ErrorType, Write};

/// Descriptor 2.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stderr;

impl ErrorType for Stderr {
    type Error = ErrorKind;
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        loop {
            match io::Write::write(&mut io::stderr(), bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return written.map_err(|_| ErrorKind::Other),
            }
        }
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}
