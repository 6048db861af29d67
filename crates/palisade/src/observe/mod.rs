//! Logs, events and metrics. Guide section 16.

pub mod access;
pub mod decisions;
pub mod event;
pub(crate) mod json;
pub mod metrics;
mod pretty;
pub(crate) mod redact;
pub mod sink;
mod timing;
pub mod trace;

use palisade_base::Clock;

use crate::error::{Error, Result};
use crate::policy::config::{LogFormat, Logs};
pub use pretty::{moves, visible};
use sink::Sink;

/// The open logs.
#[derive(Debug)]
pub struct Log {
    pub(crate) access: Sink,
    pub(crate) security: Sink,
    pub(crate) format: LogFormat,
    pub(crate) clock: Clock,
}

impl Log {
    /// Opens what `[log]` names.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn open(config: &Logs, clock: Clock) -> Result<Self> {
        let open = |target: &str| Sink::open(target).map_err(|error| Error::File { path: target.into(), error });
        let access = open(&config.access)?;
        // One target, one writer: lines of both must not be mixed within a line.
        let security = if config.security == config.access { access.clone() } else { open(&config.security)? };
        Ok(Self { access, security, format: config.format, clock })
    }

    /// Logs that go nowhere.
    pub fn off(clock: Clock) -> Self {
        Self { access: Sink::off(), security: Sink::off(), format: LogFormat::Json, clock }
    }

    /// Gives the line that begins at `from` the form that `log.format` asks for.
    fn dress(&self, out: &mut Vec<u8>, from: usize) {
        if self.format == LogFormat::Pretty {
            pretty::rewrite(out, from);
        }
    }

    /// Opens files again under their names, after somebody has moved them away.
    pub fn reopen(&self) {
        self.access.reopen();
        self.security.reopen();
    }

    /// Waits until all lines so far are written.
    pub fn flush(&self) {
        self.access.flush();
        self.security.flush();
    }
}
