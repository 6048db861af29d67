//! Tests of the library from outside.

mod docs;
mod problems;
