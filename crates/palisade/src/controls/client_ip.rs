//! The client's address: from the connection (its peer, or whom the PROXY protocol names), or from the one header in which
//! a trusted proxy says it.
//!
//! Guide section 8. Below `integrity`; above everything that counts or allows by address. Threat 26.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, StatusCode, request};
use palisade_base::{Cidr, canonical_ip};
use palisade_policy::Problems;

use crate::context::{AddressText, Client, Context, Seen};
use crate::control::{Check, Control, Info, NoRoute, Routes};
use crate::observe::{Log, event};
use crate::policy::Env;
use crate::policy::config::ClientAddressHeader;
use crate::refusal::{Code, Stop};

/// A PROXY header that is missing, malformed, or not theirs to send; the connection is closed without an answer. Found by
/// the server, before there is a request.
pub(crate) static PROXY_PROTOCOL: Code = Code::client(
    "client_ip.proxy_protocol",
    StatusCode::BAD_REQUEST,
    8,
    "the PROXY protocol is required from trusted proxies, and refused from others",
);

/// The control. Its keys are `server.trusted_proxies`, `server.client_address_header` and `server.proxy_protocol`.
#[derive(Debug)]
pub struct ClientIp {
    trusted: Vec<Cidr>,
    header: ClientAddressHeader,
    reported: Arc<Reported>,
    log: Arc<Log>,
}

/// The peers that look like proxies and were reported. A handful is enough to see what is missing.
#[derive(Debug, Default)]
struct Reported(parking_lot::RwLock<Vec<IpAddr>>);

const REPORTED: usize = 16;

impl Control for ClientIp {
    type Config = NoRoute;
    type Route = NoRoute;
    const INFO: Info = Info {
        name: "client_ip",
        section: 8,
        codes: &[&PROXY_PROTOCOL],
        judges: false,
        about: "Who the client is: the peer, or what a trusted proxy says.",
    };

    fn compile(_: &NoRoute, _: &Routes<'_, NoRoute>, env: &Env, problems: &mut Problems) -> Option<Self> {
        let trusted = env.server.trusted_proxies.clone();
        for (place, network) in trusted.iter().enumerate() {
            let shortest = if network.network().is_ipv4() { 8 } else { 16 };
            if network.prefix_len() < shortest {
                problems.error(
                    &format!("server.trusted_proxies[{place}]"),
                    format!("`{network}` trusts a large part of the internet to say who its clients are"),
                    format!("name the proxies' own networks, of /{shortest} or longer"),
                );
            }
        }
        if env.server.proxy_protocol && trusted.is_empty() {
            problems.error(
                "server.proxy_protocol",
                "nobody may send the PROXY protocol",
                "name the proxies that send it in `trusted_proxies`",
            );
        }
        Some(Self {
            trusted,
            header: env.server.client_address_header,
            reported: env.state.get("client_ip", Reported::default),
            log: Arc::clone(&env.log),
        })
    }
}

impl Check for ClientIp {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        let peer = ctx.connection.client_ip();
        if !ctx.connection.is_from(&self.trusted) {
            if ctx.seen.any(Seen::FORWARDED) && is_private(peer) {
                ctx.set_behind_unnamed_proxy();
                self.report(peer);
            }
            return Ok(());
        }
        let address = match self.header {
            ClientAddressHeader::XForwardedFor => self.rightmost(peer, list(&parts.headers, "x-forwarded-for")),
            ClientAddressHeader::Forwarded => self.rightmost(peer, forwarded(&parts.headers)),
            ClientAddressHeader::XRealIp => self.one(peer, Context::single(&parts.headers, "x-real-ip")),
            ClientAddressHeader::CfConnectingIp => self.one(peer, Context::single(&parts.headers, "cf-connecting-ip")),
        };
        let secure = match Context::single(&parts.headers, "x-forwarded-proto") {
            Some(proto) => proto.trim().eq_ignore_ascii_case("https") || proto.trim().eq_ignore_ascii_case("wss"),
            None => ctx.connection.is_secure(),
        };
        let text = if address == peer { ctx.connection.client_text().clone() } else { AddressText::new(address) };
        ctx.set_client(Client { address, text, secure, proxied: true });
        Ok(())
    }
}

impl ClientIp {
    fn report(&self, peer: IpAddr) {
        let known = |peers: &[IpAddr]| peers.contains(&peer) || peers.len() >= REPORTED;
        if known(&self.reported.0.read()) {
            return;
        }
        let mut reported = self.reported.0.write();
        if known(&reported) {
            return;
        }
        reported.push(peer);
        event::UNNAMED_PROXY
            .line(&self.log)
            .show("peer", peer)
            .str("add", &format!("trusted_proxies = [\"{peer}\"]"))
            .str("why", "it sends `X-Forwarded-For`; until it is named, clients behind it are not limited by address");
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// The first address from the right that is not a trusted proxy. What does not parse ends the chain at the last
    /// trusted hop.
    fn rightmost<'h>(&self, peer: IpAddr, chain: impl DoubleEndedIterator<Item = &'h str>) -> IpAddr {
        let mut client = peer;
        for hop in chain.rev().take(64) {
            match address(hop) {
                Some(address) => client = address,
                None => break,
            }
            if !self.is_trusted(client) {
                break;
            }
        }
        client
    }

    fn one(&self, peer: IpAddr, value: Option<&str>) -> IpAddr {
        value.and_then(address).unwrap_or(peer)
    }
}

/// Whether an address belongs to nobody on the internet: loopback, private, link-local, unique local, or carrier-grade
/// NAT (RFC 1918, 3927, 4193, 6598).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// The items of a list header, over all its lines, in order.
fn list<'h>(headers: &'h HeaderMap, name: &str) -> impl DoubleEndedIterator<Item = &'h str> {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?")).collect();
    lines.into_iter().flat_map(|line| line.split(',')).map(str::trim)
}

/// The `for` parameters of `Forwarded` (RFC 7239), in order.
fn forwarded(headers: &HeaderMap) -> impl DoubleEndedIterator<Item = &str> {
    list(headers, "forwarded").map(|element| {
        let found = element.split(';').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
        });
        found.unwrap_or("?")
    })
}

/// An address, with or without port, with or without brackets; no zone, no name.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip())).ok()?;
    Some(canonical_ip(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(header: ClientAddressHeader, headers: &[(&'static str, &'static str)]) -> String {
        let control = ClientIp {
            trusted: vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.1".parse().unwrap()],
            header,
            reported: Arc::default(),
            log: Arc::new(Log::off(palisade_base::Clock::real())),
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let peer: IpAddr = "10.0.0.9".parse().unwrap();
        let address = match header {
            ClientAddressHeader::XForwardedFor => control.rightmost(peer, list(&map, "x-forwarded-for")),
            ClientAddressHeader::Forwarded => control.rightmost(peer, forwarded(&map)),
            _ => control.one(peer, Context::single(&map, "x-real-ip")),
        };
        address.to_string()
    }

    #[test]
    fn read_from_the_right_through_trusted_proxies() {
        use ClientAddressHeader::{Forwarded, XForwardedFor, XRealIp};
        type Case = (ClientAddressHeader, &'static [(&'static str, &'static str)], &'static str);
        let cases: &[Case] = &[
            (XForwardedFor, &[("x-forwarded-for", "1.1.1.1, 203.0.113.7")], "203.0.113.7"),
            (XForwardedFor, &[("x-forwarded-for", "203.0.113.7, 10.1.1.1")], "203.0.113.7"),
            (XForwardedFor, &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.7")], "203.0.113.7"),
            (XForwardedFor, &[("x-forwarded-for", "203.0.113.7, unknown")], "10.0.0.9"),
            (XForwardedFor, &[("x-forwarded-for", "203.0.113.7, garbage, 10.2.2.2")], "10.2.2.2"),
            (XForwardedFor, &[("x-forwarded-for", "203.0.113.7:1234")], "203.0.113.7"),
            (XForwardedFor, &[("x-forwarded-for", "::ffff:203.0.113.7")], "203.0.113.7"),
            (XForwardedFor, &[("x-forwarded-for", "[2001:db8::1]:80")], "2001:db8::1"),
            (XForwardedFor, &[("x-forwarded-for", "fe80::1%eth0")], "10.0.0.9"),
            (XForwardedFor, &[("forwarded", "for=1.1.1.1")], "10.0.0.9"),
            (XForwardedFor, &[], "10.0.0.9"),
            (Forwarded, &[("forwarded", "for=1.1.1.1, for=\"[2001:db8::1]:80\";proto=https")], "2001:db8::1"),
            (Forwarded, &[("x-forwarded-for", "1.1.1.1")], "10.0.0.9"),
            (XRealIp, &[("x-real-ip", "203.0.113.7")], "203.0.113.7"),
            (XRealIp, &[("x-real-ip", "203.0.113.7"), ("x-real-ip", "1.1.1.1")], "10.0.0.9"),
        ];
        for (header, headers, expected) in cases {
            assert_eq!(client(*header, headers), *expected, "{headers:?}");
        }
    }
}
