//! The engine against published rule sets, tests and vectors.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what supports tests is a test")]

mod asleep;
mod constructs;
mod crs;
mod differential;
mod robust;
mod support;
