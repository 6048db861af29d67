//! What makes evaluation cheap, and nothing of what it means.
//!
//! Rules that no request can influence are evaluated once ([`fold`]), those that do nothing anybody sees are left out
//! ([`prune`]). Each value is scanned once for all rules together, which decides what rules need not be evaluated on it
//! ([`filter`]); rules that look at something else sleep until it is there ([`wake`]). What comes again with other
//! requests is remembered ([`memory`]). The evaluator then does the rest exactly as without.

pub(crate) mod candidates;
pub(crate) mod chains;
pub(crate) mod filter;
pub(crate) mod fold;
mod group;
pub(crate) mod known;
mod look;
pub(crate) mod mask;
pub(crate) mod memory;
mod needs;
pub(crate) mod patterns;
pub(crate) mod prune;
pub(crate) mod touches;
pub(crate) mod wake;
