//! Do clients see what a real Nomad gives? A real agent against recorded answers, stock clients and rude ones.

mod bad_input;
mod children;
mod cli;
mod compare;
mod contract;
mod examples;
mod goclient;
mod lists;
mod live;
mod peer;
mod smoke;
