//! `@ipMatch`: is an address in one of these networks.

use std::net::IpAddr;
use std::path::Path;

/// Addresses and networks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Networks(Vec<(IpAddr, u8)>);

impl Networks {
    pub(crate) fn parse(list: &str) -> Result<Networks, String> {
        list.split(',')
            .map(str::trim)
            .filter(|p| !p.is_empty())
            .map(parse_network)
            .collect::<Result<_, _>>()
            .map(Networks)
    }

    pub(crate) fn from_file(name: &str, beside: Option<&Path>) -> Result<Networks, (String, String)> {
        let bytes = super::phrases::read_beside(name.trim(), beside)?;
        let text = String::from_utf8_lossy(&bytes);
        text.lines()
            .map(|l| l.split('#').next().unwrap_or("").trim())
            .filter(|l| !l.is_empty())
            .map(parse_network)
            .collect::<Result<_, _>>()
            .map(Networks)
            .map_err(|e| (format!("`{name}`: {e}"), "one address or network a line".to_owned()))
    }

    /// Whether the value is an address in one of the networks; what is no address is not.
    pub(crate) fn contain(&self, value: &[u8]) -> bool {
        let Some(address) = std::str::from_utf8(value).ok().and_then(|t| t.trim().parse::<IpAddr>().ok()) else {
            return false;
        };
        self.0.iter().any(|(network, bits)| match (network, address) {
            (IpAddr::V4(n), IpAddr::V4(a)) => {
                same_prefix(u128::from(n.to_bits()) << 96, u128::from(a.to_bits()) << 96, *bits)
            }
            (IpAddr::V6(n), IpAddr::V6(a)) => same_prefix(n.to_bits(), a.to_bits(), *bits),
            _ => false,
        })
    }
}

fn same_prefix(a: u128, b: u128, bits: u8) -> bool {
    bits == 0 || (a ^ b) >> (128 - u32::from(bits)) == 0
}

fn parse_network(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("`{text}` is not an address or a network");
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        Some(bits) => bits.parse::<u8>().ok().filter(|b| *b <= most).ok_or_else(wrong)?,
        None => most,
    };
    Ok((address, bits))
}
