//! Tests of the library from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod docs;
mod parity;
mod problems;
