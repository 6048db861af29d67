//! Tests of the library from outside.

mod docs;
mod parity;
mod problems;
