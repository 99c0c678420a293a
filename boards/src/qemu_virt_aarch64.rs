//! QEMU's generic 64-bit ARM machine. It stands for a 64 MiB board, so it is held to that budget however much memory it was given.
//!
//! Source: the model is `qemu_fdt_setprop_string(fdt, "/", "model", ...)` in QEMU's hw/arm/virt.c (7.2), read in the guest; memory was
//! measured there: 34.8 MiB of 64 with Debian's arm64 kernel 6.1.

use crate::Board;
use dunlin_hal::budget;

/// The emulated board of the tests.
pub const QEMU_VIRT_AARCH64: Board = Board {
    name: "qemu-virt-aarch64",
    target: "aarch64-unknown-linux-musl",
    models: &["linux,dummy-virt"],
    ram_min_bytes: 32 << 20,
    budget: budget::SMALL_64,
};
