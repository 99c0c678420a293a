//! One task: whether it starts again (`restart`), when its group lets it start (`lifecycle`), what it is doing (`machine`). All pure.

pub mod lifecycle;
pub mod machine;
pub mod restart;
