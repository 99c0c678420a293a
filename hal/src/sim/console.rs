//! A console that keeps what was written, so that a test can read it. Clones share the bytes.

use std::sync::{Arc, Mutex, PoisonError};

use embedded_io::{ErrorKind, ErrorType, Write};

/// Bytes kept; writing more is refused, as a full device would.
pub const BYTES_MAX: usize = 1 << 20;

/// Kept bytes.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    /// What was written so far, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl ErrorType for Kept {
    type Error = ErrorKind;
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = BYTES_MAX.saturating_sub(kept.len()).min(bytes.len());
        if room == 0 && !bytes.is_empty() {
            return Err(ErrorKind::OutOfMemory);
        }
        kept.extend_from_slice(&bytes[..room]);
        Ok(room)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Console;

    #[test]
    fn keeps_up_to_its_bound() {
        let kept = Kept::default();
        let mut console: Box<dyn Console> = Box::new(kept.clone());
        assert_eq!(console.write_all(b"one\n"), Ok(()));
        assert_eq!(kept.text(), "one\n");
        assert_eq!(console.write_all(&vec![b'x'; BYTES_MAX]), Err(ErrorKind::OutOfMemory));
        assert_eq!(kept.text().len(), BYTES_MAX);
        assert_eq!(console.write(b""), Ok(0));
    }
}
