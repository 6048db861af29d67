//! What Palisade's tests stand on: a machine that has what they need, processes that end, clients that hide nothing,
//! upstreams that say exactly what arrived, and a browser.
//!
//! For tests only. It knows the binary `palisade` by its public interface (commands, flags, log lines) and does not
//! depend on the library, so that a test can't pass because both sides share a mistake.
//!
//! Nothing here sleeps until something is probably true. A condition is awaited with [`eventually`] or a `deadline`,
//! and what was missing is named when it did not come.

pub mod apt;
pub mod paths;
pub mod provision;
pub mod shell;
pub mod vectors;
pub mod ways;

#[cfg(feature = "net")]
pub mod browser;
#[cfg(feature = "net")]
pub mod ca;
#[cfg(feature = "net")]
pub mod client;
#[cfg(feature = "net")]
mod eventually;
#[cfg(feature = "net")]
pub mod frames;
#[cfg(feature = "net")]
pub mod juggle;
#[cfg(feature = "net")]
pub mod kept;
#[cfg(feature = "net")]
pub mod memory;
#[cfg(feature = "net")]
pub mod metrics;
#[cfg(feature = "net")]
mod output;
#[cfg(feature = "net")]
pub mod palisade;
#[cfg(feature = "net")]
pub mod ports;
#[cfg(feature = "net")]
pub mod postgres;
#[cfg(feature = "net")]
mod process;
#[cfg(feature = "net")]
pub mod python;
#[cfg(feature = "net")]
pub mod redis;
#[cfg(feature = "net")]
pub mod relay;
#[cfg(feature = "net")]
pub mod service;
#[cfg(feature = "net")]
pub mod tls;
#[cfg(feature = "net")]
pub mod upstream;
#[cfg(feature = "net")]
mod watchdog;
#[cfg(feature = "net")]
pub mod websocket;
#[cfg(feature = "net")]
pub mod wire;

pub use provision::{Need, need};
pub use vectors::{not_run, vectors};

#[cfg(feature = "net")]
pub use client::{Answer, Body, Client};
#[cfg(feature = "net")]
pub use eventually::{Met, eventually};
#[cfg(feature = "net")]
pub use frames::Frames;
#[cfg(feature = "net")]
pub use output::{Line, Output, Stream};
#[cfg(feature = "net")]
pub use palisade::Palisade;
#[cfg(feature = "net")]
pub use postgres::Postgres;
#[cfg(feature = "net")]
pub use process::{Process, killed};
#[cfg(feature = "net")]
pub use redis::Redis;
#[cfg(feature = "net")]
pub use relay::Relay;
#[cfg(feature = "net")]
pub use tls::Trust;
#[cfg(feature = "net")]
pub use upstream::Upstream;
#[cfg(feature = "net")]
pub use websocket::WebSocket;
#[cfg(feature = "net")]
pub use wire::Wire;
