//! How a running gateway is operated: what `explain`, `report`, `set` and `init` ask of it.
//!
//! Guide section 16. Everything here is general: a control that refuses is explained and reported without saying a word
//! about itself, and says a better one through [`Check::remedy`](crate::control::Check::remedy).

mod explain;
mod overrides;
mod remedy;
mod report;
mod seen;

pub use explain::explain;
pub use overrides::{Switch, clear, list, restore, switch};
pub use report::{report, summary};
pub use seen::{FILE as SEEN_FILE, save as save_seen, seen};

use palisade_base::Timestamp;

/// A time as RFC 3339.
pub fn rfc3339(time: Timestamp) -> String {
    let mut out = Vec::with_capacity(24);
    crate::observe::event::time(&mut out, time);
    String::from_utf8(out).unwrap_or_default()
}
