//! Reads `palisade.toml`: one snapshot of all files, a check against a schema, and problems that point at the text.
//!
//! Guide section 22. This crate knows no control and no HTTP: what a policy may say is a JSON Schema, which the caller
//! makes from its own types with `schemars`.
//!
//! ```
//! use palisade_policy::Snapshot;
//!
//! let schema = serde_json::json!({
//!     "properties": { "cors": { "properties": { "origins": { "type": "array", "items": { "type": "string" } } } } },
//! });
//! let mut snapshot = Snapshot::from_text("example", "[cors]\norgins = [\"https://app.example.com\"]").unwrap();
//! let mut problems = snapshot.problems();
//! snapshot.check(&schema, &[], &mut problems);
//! problems.set_guides([("cors", 9, "09-cors/cors.html")]);
//! assert_eq!(problems.render(false), "\
//! error: unknown key `orgins` in `[cors]`
//!   <example>:2:1  orgins = [\"https://app.example.com\"]
//!                  ^^^^^^ did you mean `origins`?
//!   guide: section 9 (docs: 09-cors/cors.html)
//! ");
//! ```
//!
//! # What the types of a policy need
//!
//! - `#[serde(deny_unknown_fields)]` and a doc comment on each key: the reference page and the schema are made of them.
//! - `Serialize` beside `Deserialize`: without it schemars cannot write defaults into the schema, and
//!   [`Snapshot::effective`] and [`reference_page`] do not know them.
//! - A text with a syntax of its own carries `#[schemars(extend("format" = "duration", "examples" = ["5s"]))]`, with a check
//!   of that name in [`Formats`]. The example is what messages suggest.
//! - A reference to the secret store is an object with the one key `secret` (or any schema with `x-secret = true`). A value
//!   written where one belongs is reported and never shown.
//! - An old name is `#[schemars(extend("x-renamed-from" = "old_name"))]`, not a serde alias.
//!
//! # What is never shown
//!
//! Messages quote the offending line, but for values where the schema expects a secret, values of unknown keys whose names
//! sound like one, passwords in URLs, and in text that does not parse whatever follows a name that could mean a secret.

mod check;
mod de;
mod effective;
mod expect;
mod files;
mod mask;
mod path;
mod problem;
mod read;
mod reference;
mod rename;
mod render;
mod schema;
mod snapshot;
mod source;
mod suggest;
mod syntax;
mod tree;
mod within;

pub use check::Formats;
pub use effective::Line;
pub use problem::{Problem, Problems, Scope, Severity};
pub use read::Sources;
pub use reference::{json_schema, reference_page};
pub use snapshot::{Origin, Snapshot};
pub use suggest::closest;
