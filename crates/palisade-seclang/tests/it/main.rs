//! The engine against published rule sets, tests and vectors.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

mod crs;
mod differential;
mod robust;
mod support;
