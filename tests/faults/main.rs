//! Does the kernel agree? Real processes: killed, stuck, out of memory, out of disk.

mod shim;
