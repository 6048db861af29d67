//! Strict HTTP/1.1 framing.
//!
//! Guide sections 20 and 21. A gateway and the app behind it must agree where each message ends; requests are smuggled
//! through messages that two parsers read differently. This crate refuses those, on both sides of a gateway, and shares
//! one judgement ([`head::check`]) between them:
//!
//! - [`client`] speaks to an upstream: one connection, polled in the task of the request, without channel or spawned task.
//! - [`guard`] stands between a client's connection and the HTTP library's server, which repairs some framing silently.
//! - [`Violation`] names what was wrong.
//!
//! Sources: RFC 9110, RFC 9112.

mod chunked;
pub mod client;
pub mod guard;
pub mod head;
mod scan;
mod violation;
mod wide;

pub use head::{Framing, HeadFacts, Limits};
pub use violation::Violation;
