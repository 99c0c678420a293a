//! This node: who it is ([`identity`]) and what it offers ([`mod@fingerprint`]). Pure: facts in, plain values out.

pub mod fingerprint;
pub mod identity;
pub mod this;

pub use fingerprint::{Fingerprint, fingerprint};
pub use identity::Identity;
pub use this::{Node, NodeNames};
