//! The engine against published rule sets, tests and vectors.

mod crs;
mod differential;
mod support;
