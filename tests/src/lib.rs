//! Floor 3: what the tests of the whole agent share: a real agent in a process ([`real`]), a plain HTTP client ([`http`]),
//! recorded answers ([`golden`]), and what a test says when it cannot run here ([`mod@skip`]); and a whole agent in one value ([`world`]).
//! Never a mock of anything of ours.

pub mod golden;
pub mod http;
pub mod real;
pub mod skip;
pub mod world;
