//! One allocation: its folders (`dir`), its tasks together (`machine`), and whether they are healthy (`health`).

pub mod dir;
pub mod health;
pub mod machine;
