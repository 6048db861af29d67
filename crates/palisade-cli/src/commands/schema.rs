//! `palisade schema`: the JSON Schema of the policy file, for editors.

use super::output::print;
use crate::exit::Done;

/// Prints it.
pub(crate) fn run() -> anyhow::Result<Done> {
    print(&palisade::policy::schema_text());
    Ok(Done::Ok)
}
