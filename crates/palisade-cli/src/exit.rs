//! Exit codes: 0 done, 1 failed or findings, 2 usage or policy error.

use std::process::ExitCode;

use crate::commands::output::say;

/// How a command ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// All is well.
    Ok,
    /// Findings.
    Findings,
    /// The policy is not in order, and that was said.
    Broken,
}

/// Shows an error, if there was one, and gives the exit code.
pub(crate) fn code(outcome: anyhow::Result<Done>, color: bool) -> ExitCode {
    match outcome {
        Ok(Done::Ok) => ExitCode::SUCCESS,
        Ok(Done::Findings) => ExitCode::from(1),
        Ok(Done::Broken) => ExitCode::from(2),
        Err(error) => match error.downcast_ref::<palisade::Error>() {
            Some(palisade::Error::Policy(problems)) => {
                say(&problems.render(color));
                ExitCode::from(2)
            }
            Some(error) => {
                say(&format!("error: {error}\n"));
                ExitCode::from(1)
            }
            None => {
                say(&format!("error: {error:#}\n"));
                ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
            }
        },
    }
}

/// The command line makes no sense.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}
