//! End to end: real programs on ports the system chose. A module a subject.
//!
//! `cargo xtask test --only build,e2e` runs them; `--filter TEXT` picks some.

mod access_log;
mod apps_alone;
mod attack;
mod auth;
mod bodies;
mod browser_alone;
mod commands;
mod csrf;
mod demo;
mod deploy;
mod docs_commands;
mod docs_pages;
mod edge;
mod examples;
mod first_process;
mod greedy;
mod grpc;
mod guide;
mod guide_auth;
mod identity_commands;
mod instances;
mod keepalive;
mod keys;
mod moving;
mod odd_upstreams;
mod operate;
mod operations;
mod secrets;
mod semantics;
mod server;
mod shared_limits;
mod sinks;
mod static_files;
mod streaming;
mod supervise;
mod support;
mod terminal;
mod tools_alone;
mod upstream_tls;
mod upstreams;
mod waf;
mod waf_bodies;
mod websocket;
