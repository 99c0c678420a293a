//! Does the kernel agree? Real processes, killed at the worst moment.

mod smoke;
