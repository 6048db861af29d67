//! Whom a limit counts. Threat 27: an address, or what is proved or sent on top of it, never instead.

use std::net::IpAddr;

use super::KEY;
use super::config::By;
use super::plan::Limit;
use crate::refusal::Refusal;

/// Header values longer than this are refused instead of hashed.
const KEY_BYTES: usize = 256;
/// What distinguishes the kinds of subjects of one limit.
pub(super) const V6: u64 = 0x7636_0000_0000_0064;
pub(super) const V6_WIDE: u64 = 0x7636_0000_0000_0048;
pub(super) const BY_HEADER: u64 = 0x6865_6164_6572_0000;

/// Who a request is counted as.
pub(super) struct Client<'r> {
    pub(super) address: IpAddr,
    /// The address stands for many clients, because the proxy in front is not named.
    pub(super) unnamed: bool,
    pub(super) headers: &'r http::HeaderMap,
    /// The user, once it is known.
    pub(super) user: Option<&'r str>,
    /// The API key, once it is known.
    pub(super) key: Option<&'r str>,
}

/// Who is counted by a limit.
#[derive(Debug, Clone, Copy)]
pub(super) enum Subject<'r> {
    /// An address.
    V4(u32),
    /// A /64.
    V6(u64),
    /// A /48.
    V6Wide(u64),
    /// The value of a header, a user or a key, with the address that sent it.
    Value(&'r [u8], IpAddr),
}

impl<'r> Client<'r> {
    /// Whom a limit counts: one, two for IPv6, none where nobody can be told apart.
    pub(super) fn subjects(&self, limit: &Limit) -> Result<[Option<Subject<'r>>; 2], Refusal> {
        if let By::Header(name) = &limit.by {
            let mut values = self.headers.get_all(name).iter();
            let value = values.next().map(|value| value.as_bytes());
            if values.next().is_some() || value.is_some_and(|value| value.len() > KEY_BYTES) {
                return Err(KEY.refuse("twice, or longer than 256 bytes").with("header", name.to_string()));
            }
            if let Some(value) = value {
                return Ok([Some(Subject::Value(value, self.address)), None]);
            }
        }
        let proved = match &limit.by {
            By::User => self.user,
            By::Key => self.key,
            By::Address | By::Header(_) => None,
        };
        if let Some(proved) = proved {
            return Ok([Some(Subject::Value(proved.as_bytes(), self.address)), None]);
        }
        if self.unnamed {
            return Ok([None, None]);
        }
        Ok(match self.address {
            IpAddr::V4(v4) => [Some(Subject::V4(v4.to_bits())), None],
            IpAddr::V6(v6) => {
                let prefix = (v6.to_bits() >> 64) as u64;
                [Some(Subject::V6(prefix)), Some(Subject::V6Wide(prefix >> 16))]
            }
        })
    }
}

/// The /16 or /48 that an address lies in.
pub(super) fn network(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits() >> 16),
        IpAddr::V6(v6) => (v6.to_bits() >> 80) as u64 ^ V6,
    }
}
