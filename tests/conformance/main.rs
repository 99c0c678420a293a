//! Do clients see what a real Nomad gives? A real agent against recorded answers and rude clients.

mod smoke;
