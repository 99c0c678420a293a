//! What the operator wants: files and flags become one [`Config`] value that is passed down.

pub mod flags;
pub mod nearest;
