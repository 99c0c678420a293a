//! One allocation: its folders (`dir`) and its tasks together (`machine`).

pub mod dir;
pub mod machine;
