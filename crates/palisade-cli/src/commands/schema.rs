//! `palisade schema`: the JSON Schema of the policy file, for editors.

use crate::exit::Done;

/// Prints it.
#[expect(clippy::print_stdout, reason = "the answer of a command")]
pub(crate) fn run() -> anyhow::Result<Done> {
    println!("{}", serde_json::to_string_pretty(&palisade::policy::schema())?);
    Ok(Done::Ok)
}
