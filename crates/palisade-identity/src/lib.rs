//! Who someone is, without HTTP: accounts, passwords, sessions, signed tokens, refresh families, API keys.
//!
//! Guide sections 1, 4 and 10. In two halves. [`token`], [`password`], [`opaque`] and [`refresh`] are functions of bytes
//! and a [`Timestamp`](palisade_base::Timestamp): no database, no async. [`service`] builds on them and on
//! `palisade-store`; its [`Identity`] is what endpoints, controls and commands call. [`rings`] keeps the keys that it signs
//! with. Endpoints and mail are built on top.
//!
//! Three habits run through it:
//! - **Evidence is a type.** A [`token::Signed`] exists only where a signature was checked, a [`token::Accepted`] only
//!   where issuer, audience, kind and time were checked too.
//! - **A secret has a type that does not print** and is stored as a hash; see [`opaque`].
//! - **Work whose amount a stranger chooses is bounded**: sizes before parsing, ceilings on the parameters of foreign
//!   password hashes, a [pool](password::pool) with a limit on threads, memory and queue.
//!
//! # Departures from the common choices
//! Tokens are not read by a JWT crate. The parsing of such crates is lenient where it must be strict (duplicate members,
//! `crit`, unknown `use` and `key_ops`, leading zeros, sets of mixed keys), so ours had to stand in front of it, and two
//! parsers of one token are a way for them to disagree. What is left for a crate after that is the signature itself,
//! and that is `aws-lc-rs` here as everywhere.

pub mod opaque;
pub mod password;
pub mod refresh;
pub mod rings;
pub mod service;
pub mod token;

pub use service::Identity;
