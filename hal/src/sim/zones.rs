//! Zones a test has put there.

use std::collections::BTreeMap;

use crate::zones::Zones;

/// A machine with these zones; without any it knows UTC alone.
#[derive(Clone, Debug, Default)]
pub struct SimZones {
    /// Files by name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The name of the zone it is in; empty = not set.
    pub local: String,
}

impl Zones for SimZones {
    fn zone(&self, name: &str) -> Option<Vec<u8>> {
        self.files.get(name).cloned()
    }

    fn local(&self) -> Option<Vec<u8>> {
        self.zone(&self.local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_knows_what_it_was_given() {
        let zones = SimZones { files: BTreeMap::from([("X".to_owned(), vec![1])]), local: "X".to_owned() };
        assert_eq!((zones.zone("X"), zones.zone("Y"), zones.local()), (Some(vec![1]), None, Some(vec![1])));
        assert_eq!(SimZones::default().local(), None);
    }
}
