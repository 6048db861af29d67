//! End to end: real programs on ports the system chose. A module a subject.
//!
//! `cargo xtask test --only build,e2e` runs them; `--filter TEXT` picks some.

mod apps_alone;
mod browser_alone;
mod demo;
mod deploy;
mod server;
mod supervise;
mod tools_alone;
