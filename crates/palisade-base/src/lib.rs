//! What every Palisade crate needs: the value types of the policy file, secrets, the clock, a reader of JSON.
//!
//! No I/O and no HTTP. Values are parsed once, when the policy is read, and mean the same everywhere after that.

mod cidr;
mod clock;
pub mod html;
mod interval;
pub mod json;
mod rate;
mod secret;
mod size;
mod text;

pub use cidr::{Cidr, canonical_ip};
pub use clock::{Clock, Timestamp};
pub use interval::Interval;
pub use rate::Rate;
pub use secret::{Secret, SecretRef};
pub use size::ByteSize;
pub use text::{BadValue, FORMATS, Format, TextValue};
