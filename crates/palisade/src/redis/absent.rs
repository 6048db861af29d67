//! A build without Redis: the types that the rest names, of which there are no values.

use std::future::Future;

use palisade_policy::Problems;

use super::{Away, Config, Health, Script, Url};
use crate::policy::Env;
use crate::server::startup::Occasion;

/// Never there.
#[derive(Debug, Clone)]
pub enum Redis {}

/// Never there.
#[derive(Debug)]
pub enum Listener {}

impl Redis {
    pub(super) fn new(
        _: &Config,
        _: Url,
        _: &Env,
        _: Occasion,
        _: Option<&Redis>,
        problems: &mut Problems,
    ) -> Option<Self> {
        problems.error("redis", "this build of Palisade has no Redis", "build it with the feature `redis`");
        None
    }

    /// Never called.
    pub fn is(&self, _: &Redis) -> bool {
        match *self {}
    }

    /// Never called.
    pub fn health(&self) -> &Health {
        match *self {}
    }

    /// Never called.
    pub fn prefix(&self) -> &str {
        match *self {}
    }

    /// Never called.
    pub(crate) fn script(
        &self,
        _: &Script,
        _: &[impl AsRef<[u8]>],
        _: &[u64],
    ) -> impl Future<Output = Result<Vec<i64>, Away>> + Send {
        match *self {}
        #[expect(unreachable_code, reason = "names the type")]
        std::future::pending()
    }

    /// Never called.
    pub async fn look(&self) {
        match *self {}
    }

    /// Never called.
    pub async fn nudge(&self, _: &str) -> Result<(), Away> {
        match *self {}
    }

    /// Never called.
    pub fn listen(&self, _: &str, _: impl Fn() + Send + Sync + 'static) -> Listener {
        match *self {}
    }
}
