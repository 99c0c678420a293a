//! The machine's time zones, as bytes of their files (TZif, RFC 9636). Never: what they mean.

/// Where time zones come from.
pub trait Zones: core::fmt::Debug {
    /// The file of a zone by its name, `Europe/Berlin`. `None` = this machine has none of that name.
    fn zone(&self, name: &str) -> Option<Vec<u8>>;

    /// The file of the zone this machine is in. `None` = nobody has said; it is UTC then.
    fn local(&self) -> Option<Vec<u8>>;
}
