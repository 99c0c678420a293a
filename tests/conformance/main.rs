//! Do clients see what a real Nomad gives? A real agent against recorded answers, stock clients and rude ones.

mod compare;
mod contract;
mod live;
mod smoke;
