//! The reader on made-up boards, and on the machine that runs the tests.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// A folder that plays the root; gone when dropped.
pub(crate) struct Tree(PathBuf);

impl Tree {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dunlin-hal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn link(&self, path: &str, to: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, path).unwrap();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const ID: &str = "0d1b2c3d-0000-4000-8000-000000000001\n";

/// The two files without which there are no facts.
fn least(name: &str) -> Tree {
    let tree = Tree::new(name);
    tree.file(BOOT_ID, ID);
    tree.file(MEMINFO, "MemTotal: 51200 kB\nMemFree: 10240 kB\nMemAvailable: 20480 kB\n");
    tree
}

fn mhz(tree: &Tree) -> Vec<(u16, u32)> {
    let facts = Machine::new(tree.path()).facts(None).unwrap();
    facts.cpu.cores.iter().map(|core| (core.id, core.mhz)).collect()
}

#[test]
fn a_bare_kernel_still_has_compute() {
    let tree = least("bare");
    let facts = Machine::new(tree.path()).facts(None).unwrap();
    assert_eq!(facts.cpu.cores, [Core { id: 0, mhz: CORE_MHZ_DEFAULT }]);
    assert_eq!(facts.cpu.usable, [0]);
    assert_eq!((facts.memory_bytes, facts.boot_id[0], facts.link), (51200 * 1024, 0x0d, None));
    assert_eq!((facts.os, facts.board.as_str(), facts.hostname.as_str()), (Default::default(), "", ""));
}

#[test]
fn cores_without_cpufreq() {
    let tree = least("nofreq");
    tree.file("sys/devices/system/cpu/online", "0-1\n");
    assert_eq!(mhz(&tree), [(0, 1000), (1, 1000)]);
    // A driver that tells 0.
    tree.file("sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq", "0\n");
    assert_eq!(mhz(&tree), [(0, 1000), (1, 1000)]);
}

#[test]
fn cores_without_sysfs() {
    let tree = least("nosys");
    tree.file("proc/stat", "cpu  1 1 1 1\ncpu0 1 1 1 1\ncpu2 1 1 1 1\n");
    assert_eq!(mhz(&tree), [(0, 1000), (2, 1000)]);
}

#[test]
fn big_little() {
    let tree = least("biglittle");
    tree.file("sys/devices/system/cpu/online", "0-2,4\n");
    for (id, khz) in [(0, 1_416_000), (1, 1_416_000), (2, 1_416_000), (4, 1_800_000)] {
        tree.file(&format!("sys/devices/system/cpu/cpu{id}/cpufreq/cpuinfo_max_freq"), &format!("{khz}\n"));
    }
    tree.file("proc/self/status", "Cpus_allowed_list:\t1-7\n");
    assert_eq!(mhz(&tree), [(0, 1416), (1, 1416), (2, 1416), (4, 1800)]);
    // Of the allowed cores only those that are online count.
    assert_eq!(Machine::new(tree.path()).facts(None).unwrap().cpu.usable, [1, 2, 4]);
}

#[test]
fn a_raspberry_pi() {
    let tree = least("pi");
    tree.file("proc/device-tree/model", "Raspberry Pi 3 Model B Rev 1.2\0");
    tree.file("proc/cpuinfo", "model name\t: ARMv7 Processor rev 4 (v7l)\n");
    tree.file("proc/sys/kernel/osrelease", "6.1.21-v7+\n");
    tree.file("proc/sys/kernel/hostname", "edge-7\n");
    tree.file("usr/lib/os-release", "ID=raspbian\nVERSION_ID=\"11\"\n");
    tree.file("etc/machine-id", "\n");
    tree.file("var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n");
    tree.file("proc/net/route", "Iface\tDestination\tGateway\nnone0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n");
    tree.file("sys/class/net/none0/address", "b8:27:eb:00:00:01\n");
    tree.file("sys/class/net/none0/speed", "100\n");
    tree.file("sys/class/net/lo/speed", "-1\n");
    let facts = Machine::new(tree.path()).facts(None).unwrap();
    assert_eq!((facts.board.as_str(), facts.cpu.model.as_str()), ("Raspberry Pi 3 Model B Rev 1.2", "Raspberry Pi 3 Model B Rev 1.2"));
    assert_eq!((facts.kernel.as_str(), facts.hostname.as_str()), ("6.1.21-v7+", "edge-7"));
    assert_eq!((facts.os.name.as_str(), facts.os.version.as_str()), ("raspbian", "11"));
    assert_eq!(facts.machine_id, "0123456789abcdef0123456789abcdef");
    let link = facts.link.unwrap();
    assert_eq!((link.interface.as_str(), link.mac.as_str(), link.speed_mbits), ("none0", "b8:27:eb:00:00:01", Some(100)));
    assert!(link.addresses.is_empty());
    // The interface asked for wins; one that does not exist gives none; a name cannot leave the folder.
    assert_eq!(Machine::new(tree.path()).facts(Some("lo")).unwrap().link.unwrap().speed_mbits, None);
    assert_eq!(Machine::new(tree.path()).facts(Some("eth9")).unwrap().link, None);
    assert_eq!(Machine::new(tree.path()).facts(Some("../net/lo")).unwrap().link, None);
}

#[test]
fn facts_that_must_be_there() {
    let tree = Tree::new("missing");
    let boot_id = tree.path().join(BOOT_ID);
    tree.file(MEMINFO, "MemTotal: 1 kB\n");
    assert_eq!(Machine::new(tree.path()).facts(None), Err(FactsError::Unreadable { path: boot_id.clone() }));
    tree.file(BOOT_ID, "not an id\n");
    assert_eq!(Machine::new(tree.path()).boot_id(), Err(FactsError::Unexpected { path: boot_id }));
    tree.file(BOOT_ID, ID);
    tree.file(MEMINFO, "");
    assert!(matches!(Machine::new(tree.path()).facts(None), Err(FactsError::Unexpected { .. })));
    assert!(matches!(Machine::new(tree.path()).usage(Path::new("/")), Err(FactsError::Unexpected { .. })));
}

#[test]
fn shares_are_since_the_last_sample() {
    let tree = least("shares");
    let mut machine = Machine::new(tree.path());
    let mut sample = |stat: &str| {
        tree.file("proc/stat", stat);
        machine.usage(Path::new("/")).unwrap()
    };
    // user nice system idle
    let usage = sample("cpu0 10 0 10 80\n");
    assert_eq!(usage.cores, [CoreUsage { id: 0, user: 10.0, system: 10.0, idle: 80.0, busy: 20.0, mhz: 1000 }]);
    assert_eq!(usage.ticks(), 200.0);
    let usage = sample("cpu0 60 0 10 130\n");
    assert_eq!((usage.cores[0].user, usage.cores[0].system, usage.cores[0].busy), (50.0, 0.0, 50.0));
    // Nothing passed; then the core came back from offline with lower figures.
    assert_eq!(sample("cpu0 60 0 10 130\n").cores[0].busy, 0.0);
    assert_eq!(sample("cpu0 1 0 0 3\n").cores[0].busy, 25.0);
    // Idle time that runs backwards (kernels do that) stays within 0..=100.
    let odd = sample("cpu0 9 0 0 1\n").cores[0];
    assert_eq!((odd.idle, odd.busy), (0.0, 100.0));
}

#[test]
fn one_disk_a_device() {
    let tree = least("disks");
    let rows = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 /x /tmp rw - ext4 /dev/sda1 rw\n3 1 0:5 / /proc rw - proc proc rw\n\
        4 1 8:2 / /no/such/folder rw - ext4 /dev/sda2 rw\n";
    tree.file("proc/self/mountinfo", rows);
    let usage = Machine::new(tree.path()).usage(Path::new("/")).unwrap();
    assert_eq!(usage.disks.iter().map(|disk| (disk.device.as_str(), disk.mountpoint.as_str())).collect::<Vec<_>>(), [("/dev/sda1", "/")]);
    assert_eq!(usage.alloc_dir.device, "/dev/sda1");
    let many: String = (0..100).map(|i| format!("1 0 9:{i} / / rw - ext4 /dev/x{i} rw\n")).collect();
    tree.file("proc/self/mountinfo", &many);
    assert_eq!(Machine::new(tree.path()).usage(Path::new("/")).unwrap().disks.len(), DISKS_MAX);
}

#[test]
fn huge_files_are_cut_at_a_line() {
    let tree = least("huge");
    tree.file("big", &"abc\n".repeat(50_000));
    tree.file("one-line", &"x".repeat(100_000));
    let files = Files::new(tree.path());
    let big = files.read("big").unwrap();
    assert!(big.len() <= 64 << 10 && big.ends_with(b"abc"));
    assert_eq!(files.read("one-line"), Some(Vec::new()));
    assert_eq!(files.read("none"), None);
}

#[test]
fn this_machine() {
    let mut machine = Machine::new("/");
    let facts = machine.facts(None).unwrap();
    assert!(!facts.cpu.arch.is_empty() && !facts.kernel.is_empty() && !facts.hostname.is_empty());
    assert!(facts.memory_bytes > 1 << 20 && facts.cpu.cores.iter().all(|core| core.mhz > 0));
    assert_ne!(facts.boot_id, [0; 16]);
    let lo = machine.facts(Some("lo")).unwrap().link.unwrap();
    assert!(lo.addresses.iter().any(|address| address.is_loopback()), "{lo:?}");
    let usage = machine.usage(Path::new("/")).unwrap();
    assert!(usage.memory.total == facts.memory_bytes && usage.memory.available > 0 && usage.uptime_s > 0);
    assert!(!usage.cores.is_empty() && usage.alloc_dir.size > 0);
}
