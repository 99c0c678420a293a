//! A machine made up by a test: an ARM board with four cores and 256 MiB. Clones share it.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::rc::Rc;

use crate::facts::{Core, CoreUsage, Cpu, Facts, FactsError, Link, Memory, Os, Pressure, Source, Usage};
use crate::volume::Space;

/// Facts and usage as set.
#[derive(Clone, Debug)]
pub struct SimMachine(Rc<RefCell<(Facts, Usage)>>);

impl Default for SimMachine {
    fn default() -> Self {
        Self(Rc::new(RefCell::new((board(), usage()))))
    }
}

impl SimMachine {
    /// Another board, another boot.
    pub fn set(&self, facts: Facts) {
        self.0.borrow_mut().0 = facts;
    }

    /// Other figures.
    pub fn set_usage(&self, usage: Usage) {
        self.0.borrow_mut().1 = usage;
    }
}

impl Source for SimMachine {
    fn facts(&mut self, _interface: Option<&str>) -> Result<Facts, FactsError> {
        Ok(self.0.borrow().0.clone())
    }

    fn usage(&mut self, _alloc_dir: &Path) -> Result<Usage, FactsError> {
        Ok(self.0.borrow().1.clone())
    }
}

/// A board with four cores of 1200 MHz, 256 MiB and one Ethernet link.
#[must_use]
pub fn board() -> Facts {
    Facts {
        cpu: Cpu {
            arch: "arm".into(),
            machine: "armv7l".into(),
            model: "Sim Board".into(),
            cores: (0..4).map(|id| Core { id, mhz: 1200 }).collect(),
            usable: vec![0, 1, 2, 3],
        },
        memory_bytes: 256 << 20,
        kernel: "6.1.0-sim".into(),
        os: Os { name: "poky".into(), version: "4.0.1".into() },
        hostname: "edge-7".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        boot_id: [7; 16],
        board: "Sim Board".into(),
        link: Some(Link {
            interface: "eth0".into(),
            mac: "02:00:00:00:00:01".into(),
            addresses: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))],
            speed_mbits: Some(100),
        }),
        landlock: 0,
    }
}

/// That board, nearly idle.
#[must_use]
pub fn usage() -> Usage {
    let disk = Space {
        device: "/dev/mmcblk0p2".into(),
        mountpoint: "/".into(),
        size: 8_000_000_000,
        used: 2_000_000_000,
        available: 6_000_000_000,
        inodes: 200,
        inodes_used: 7,
    };
    Usage {
        memory: Memory { total: 256 << 20, available: 180 << 20, used: 70 << 20, free: 90 << 20 },
        cores: (0..4).map(|id| CoreUsage { id, user: 5.0, system: 4.0, idle: 91.0, busy: 9.0, mhz: 1200 }).collect(),
        uptime_s: 193_520,
        disks: vec![disk.clone()],
        alloc_dir: disk,
        pressure: Pressure::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_machine() {
        let hand = SimMachine::default();
        let mut given = hand.clone();
        assert_eq!(given.facts(None), Ok(board()));
        hand.set(Facts { boot_id: [8; 16], ..board() });
        hand.set_usage(Usage { uptime_s: 1, ..usage() });
        assert_eq!(given.facts(None).map(|facts| facts.boot_id), Ok([8; 16]));
        assert_eq!(given.usage(Path::new("/")).map(|usage| usage.uptime_s), Ok(1));
    }
}
