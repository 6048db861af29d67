//! Networks: `"10.0.0.0/8"`, `"2001:db8::/32"`, or one address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::{BadValue, TextValue, text_value};

/// A network or one address. IPv4-mapped IPv6 addresses are IPv4 everywhere ([`canonical_ip`]).
///
/// ```
/// # use palisade_base::Cidr;
/// let network: Cidr = "10.0.0.0/8".parse().unwrap();
/// assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr(IpNet);

impl Cidr {
    /// Whether the address lies in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&canonical_ip(address))
    }

    /// How many leading bits are fixed.
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }

    /// The first address.
    pub fn network(&self) -> IpAddr {
        self.0.network()
    }
}

/// An IPv4-mapped IPv6 address as the IPv4 address that it is; any other unchanged.
pub fn canonical_ip(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

impl TextValue for Cidr {
    const FORMAT: &'static str = "cidr";
    const NOUN: &'static str = "a network";
    const EXAMPLES: &'static [&'static str] = &["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"];
}

impl FromStr for Cidr {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(canonical_ip(address)),
            Err(_) => text.parse::<IpNet>().map_err(|_| BadValue::new("not a network in CIDR notation"))?,
        };
        if net.trunc() != net {
            return Err(BadValue::new(format!("bits are set behind the prefix; did you mean `{}`?", net.trunc())));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(Cidr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("::1", "::1", "::2"),
            ("2001:db8::/32", "2001:db8:1::", "2001:db9::"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
        ] {
            let cidr: Cidr = text.parse().unwrap();
            assert!(cidr.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!cidr.contains(outside.parse().unwrap()), "{text} {outside}");
        }
        for bad in ["", "10.0.0.1/8", "10.0.0.0/33", "localhost", "10.0.0.0/", "1.2.3"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
