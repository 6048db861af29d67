//! `palisade check`: what is wrong with the policy, and what is in force.

use super::policy;
use crate::args::{Check, Global};
use crate::exit::Done;

/// Reads the policy; every problem is shown at once.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the answer of a command")]
pub(crate) fn run(global: &Global, check: &Check) -> anyhow::Result<Done> {
    let sources = policy::sources(global);
    let (snapshot, problems) = palisade::live::check(&sources).map_err(palisade::Error::Policy)?;
    eprint!("{}", problems.render(global.color()));
    if check.effective {
        let schema = serde_json::to_value(palisade::policy::schema())?;
        for line in snapshot.effective(&schema) {
            let value = line.value.as_deref().unwrap_or("(none)");
            println!("{} = {value}  # {}", line.key, line.origin);
        }
    }
    Ok(Done::Ok)
}
