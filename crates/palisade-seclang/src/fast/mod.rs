//! What makes evaluation cheap, and nothing of what it means.
//!
//! Two things: rules that no request can influence are evaluated once ([`fold`]), and each value is scanned once for
//! all rules together, which decides what rules need not be evaluated on it ([`filter`]). The evaluator then does the
//! rest exactly as without.

pub(crate) mod chains;
pub(crate) mod filter;
pub(crate) mod fold;
pub(crate) mod known;
pub(crate) mod mask;
pub(crate) mod memory;
mod needs;
mod patterns;
pub(crate) mod prune;
pub(crate) mod touches;
pub(crate) mod wake;
