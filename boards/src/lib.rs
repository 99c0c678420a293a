//! Floor 1: boards as data. Says which board this machine is and what it can afford; reads nothing, does nothing, knows no task.
//!
//! Shape: (device-tree model, memory) -> one `&'static Board`.   Units: bytes.   Errors: none, an unknown machine is a generic one.
//! Invariant: the worst case of a board's budget is at most one eighth of its least memory, checked when this crate is compiled.
//! One file a board. What builds and emulates it (compiler target, kernel, QEMU) is `boards/<name>/board.toml`, read by `boards/build`.
//! Source: `spec/boards.md` 8, `spec/http-api.md` 10, decision 33.

use dunlin_hal::budget::{Budget, worst_case_bytes};

mod generic_linux;
mod qemu_virt_aarch64;
mod small_linux;

pub use generic_linux::GENERIC_LINUX;
pub use qemu_virt_aarch64::QEMU_VIRT_AARCH64;
pub use small_linux::SMALL_LINUX;

/// One kind of machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Board {
    /// Its name in the node's attributes and of its folder under `boards/`.
    pub name: &'static str,
    /// The compiler target its releases are built for.
    pub target: &'static str,
    /// How its device tree's `model` begins. Empty: it is never known by its model.
    pub models: &'static [&'static str],
    /// The least memory Linux reports on it (`MemTotal`), bytes.
    pub ram_min_bytes: u64,
    /// Every bound of an agent that runs on it.
    pub budget: Budget,
}

/// Every board, the known models first, then the generic ones by falling memory.
pub const BOARDS: &[&Board] = &[&QEMU_VIRT_AARCH64, &GENERIC_LINUX, &SMALL_LINUX];

/// The board of a machine: the one that knows `device_tree_model` (`/proc/device-tree/model`, empty where there is none), else the
/// widest generic one that `ram_bytes` (`MemTotal`) affords. Never fails: the smallest board is the answer to all that is left.
#[must_use]
pub fn detect(device_tree_model: &str, ram_bytes: u64) -> &'static Board {
    let knows = |board: &&&Board| board.models.iter().any(|model| device_tree_model.starts_with(model));
    let affords = |board: &&&Board| board.models.is_empty() && ram_bytes >= board.ram_min_bytes;
    BOARDS.iter().find(knows).or_else(|| BOARDS.iter().find(affords)).copied().unwrap_or(&SMALL_LINUX)
}

/// True when the budget leaves seven eighths of the least memory to the system and its tasks.
const fn affordable(board: &Board) -> bool {
    // Widening: usize is 32 or 64 bits on every target.
    worst_case_bytes(&board.budget) as u64 <= board.ram_min_bytes / 8
}

const _: () = {
    let mut i = 0;
    while i < BOARDS.len() {
        assert!(affordable(BOARDS[i]));
        i += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detect_rows() {
        #[track_caller]
        fn check(model: &str, ram_mib: u64, expected: &Board) {
            assert_eq!(detect(model, ram_mib << 20).name, expected.name, "{model:?}, {ram_mib} MiB");
        }
        check("", 16 << 10, &GENERIC_LINUX);
        check("", 512, &GENERIC_LINUX);
        check("", 200, &GENERIC_LINUX);
        // A 128 MiB board, a 64 MiB board under a wide kernel, and a machine that could not be asked.
        check("", 100, &SMALL_LINUX);
        check("", 34, &SMALL_LINUX);
        check("", 0, &SMALL_LINUX);
        check("linux,dummy-virt", 34, &QEMU_VIRT_AARCH64);
        check("linux,dummy-virt", 16 << 10, &QEMU_VIRT_AARCH64);
        // As the kernel hands it out: NUL at the end.
        check("linux,dummy-virt\0", 64, &QEMU_VIRT_AARCH64);
        check("Linux,dummy-virt", 64, &SMALL_LINUX);
        check("linux", 1024, &GENERIC_LINUX);
        check("Raspberry Pi 3 Model B Rev 1.2\0", 900, &GENERIC_LINUX);
        check(&"x".repeat(1 << 20), 64, &SMALL_LINUX);
        assert_eq!(detect("", u64::MAX).name, GENERIC_LINUX.name);
    }

    #[test]
    fn names_are_unique_and_the_last_resort_is_last() {
        for (i, board) in BOARDS.iter().enumerate() {
            assert!(BOARDS[..i].iter().all(|other| other.name != board.name), "{}", board.name);
        }
        let rams: Vec<u64> = BOARDS.iter().filter(|board| board.models.is_empty()).map(|board| board.ram_min_bytes).collect();
        assert!(rams.is_sorted_by(|wide, small| wide > small), "{rams:?}");
        assert_eq!(BOARDS.last().map(|board| board.name), Some(SMALL_LINUX.name));
    }

    /// The value of `key` in `[section]` of a board.toml, as `boards/build` reads it: one key a line.
    fn toml<'a>(text: &'a str, section: &str, key: &str) -> Option<&'a str> {
        let mut at = "";
        text.lines().find_map(|line| {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                at = name;
            }
            let (name, value) = line.split_once(" = ")?;
            (at == section && name == key).then(|| value.trim_matches('"'))
        })
    }

    /// What is built for a board and what runs on it must agree.
    #[test]
    fn board_files_agree_with_the_code() {
        #[track_caller]
        fn check(board: &Board, text: &str) {
            assert_eq!(toml(text, "", "schema"), Some("1"));
            assert_eq!(toml(text, "", "name"), Some(board.name));
            assert_eq!(toml(text, "build", "target"), Some(board.target));
            // Linux reports less than there is: an arm64 kernel as Debian builds it keeps 29 MiB.
            let least_mib: u64 = toml(text, "memory", "min_mib").and_then(|mib| mib.parse().ok()).unwrap_or(0);
            assert!(least_mib << 20 >= board.ram_min_bytes, "{}: {least_mib} MiB", board.name);
        }
        check(&GENERIC_LINUX, include_str!("../generic-linux/board.toml"));
        check(&SMALL_LINUX, include_str!("../small-linux/board.toml"));
        check(&QEMU_VIRT_AARCH64, include_str!("../qemu-virt-aarch64/board.toml"));
    }

    /// Who builds with `cross` gets the same targets (the host's needs no container).
    #[test]
    fn cross_knows_every_arm_target() {
        let text = include_str!("../../cross.toml");
        let known: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("[target.")?.strip_suffix(']')).collect();
        assert_eq!(known, ["aarch64-unknown-linux-musl", "armv7-unknown-linux-musleabihf", "arm-unknown-linux-musleabihf"]);
        for board in BOARDS.iter().filter(|board| !board.target.starts_with("x86_64")) {
            assert!(known.contains(&board.target), "{}", board.target);
        }
    }
}
