//! Identifiers. Parsed once at the edge; inside they are bytes, so a comparison is a comparison of 16 bytes.

use core::fmt;

/// Writes 16 bytes in the 8-4-4-4-12 form, lower case.
fn write_uuid(id: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, byte) in id.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

/// Reads the 36-character form; any case. `None` for anything else.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    if text.len() != 36 {
        return None;
    }
    let mut id = [0u8; 16];
    let mut nibble_n = 0;
    for (i, &c) in text.iter().enumerate() {
        if matches!(i, 8 | 13 | 18 | 23) {
            if c != b'-' {
                return None;
            }
            continue;
        }
        let digit = char::from(c).to_digit(16)?;
        let byte = id.get_mut(nibble_n / 2)?;
        *byte = (*byte << 4) | u8::try_from(digit).ok()?;
        nibble_n += 1;
    }
    Some(id)
}

macro_rules! uuid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Reads the 36-character form; `None` for anything else.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                parse_uuid(text).map(Self)
            }

            /// All zero: "none" where the wire has an empty string.
            #[must_use]
            pub fn is_nil(&self) -> bool {
                self.0 == [0; 16]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(&self.0, f)
            }
        }
    };
}

uuid_type!(
    /// An allocation: one placement of one task group.
    AllocId
);
uuid_type!(
    /// A node.
    NodeId
);
uuid_type!(
    /// An evaluation.
    EvalId
);
uuid_type!(
    /// A deployment.
    DeploymentId
);

/// One invocation of one task: random, new for every start. News of an older one is dropped (invariant I7).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Inv(pub u64);

impl Inv {
    /// Reads the 16 lower-case hex digits of a runtime folder's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let canonical = text.len() == 16 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        if canonical { u64::from_str_radix(text, 16).ok().map(Self) } else { None }
    }
}

impl fmt::Display for Inv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Inv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_text_round_trips_and_refuses_all_else() {
        let text = "29fbd40e-dc6c-9f86-343d-95c29ddd20f9";
        assert_eq!(AllocId::parse(text).map(|id| id.to_string()).as_deref(), Some(text));
        for bad in [
            "",
            "29fbd40e",
            "29fbd40e-dc6c-9f86-343d-95c29ddd20fg",
            "29fbd40e_dc6c-9f86-343d-95c29ddd20f9",
            "29fbd40edc6c9f86343d95c29ddd20f9ffff",
        ] {
            assert_eq!(AllocId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn invocation_names_are_canonical() {
        assert_eq!(Inv::parse("00000000000000ff"), Some(Inv(255)));
        for bad in ["ff", "00000000000000FF", "+0000000000000ff", "00000000000000fff"] {
            assert_eq!(Inv::parse(bad), None, "{bad}");
        }
    }
}
