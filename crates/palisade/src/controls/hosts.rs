//! Trusted hosts: a name that is not ours is answered 421.
//!
//! Guide section 7. Above rate limits and everything that answers, so that a rebound or probed name learns nothing.

use http::{StatusCode, request};
use palisade_policy::Problems;

use crate::context::Context;
use crate::control::{Asked, Check, Control, Info, NoRoute, Remedy, Routes};
use crate::policy::Env;
use crate::policy::values::HostPattern;
use crate::refusal::{Code, Stop};

/// The host is not one of `server.hosts`.
pub static UNKNOWN: Code =
    Code::client("hosts.unknown", StatusCode::MISDIRECTED_REQUEST, 7, "this host is not served here");

/// The control. Its key is `server.hosts`.
#[derive(Debug)]
pub struct Hosts {
    named: Vec<HostPattern>,
    loopback: bool,
}

impl Control for Hosts {
    type Config = NoRoute;
    type Route = NoRoute;
    const INFO: Info = Info {
        name: "hosts",
        section: 7,
        codes: &[&UNKNOWN],
        judges: false,
        about: "Only the names of `server.hosts` are served.",
    };

    fn compile(_: &NoRoute, _: &Routes<'_, NoRoute>, env: &Env, problems: &mut Problems) -> Option<Self> {
        let development = env.server.is_development();
        let named = env.server.hosts.clone();
        if !development {
            if named.is_empty() {
                problems.error(
                    "server.hosts",
                    "`hosts` is required in production",
                    "name the hosts this gateway serves: `hosts = [\"api.example.com\"]`",
                );
            }
            if let Some(place) = named.iter().position(|host| *host == HostPattern::Any) {
                problems.error(
                    &format!("server.hosts[{place}]"),
                    "`*` accepts every host, which production does not",
                    "name the hosts this gateway serves",
                );
            }
        }
        // In development a page that has rebound its name to loopback must not reach the application.
        let loopback = development && named.is_empty();
        (!named.contains(&HostPattern::Any)).then_some(Self { named, loopback })
    }
}

impl Check for Hosts {
    fn request(&self, ctx: &Context, _: &mut request::Parts) -> Result<(), Stop> {
        let host = ctx.host();
        if self.named.iter().any(|pattern| pattern.matches(host)) || (self.loopback && is_loopback(host, ctx)) {
            return Ok(());
        }
        Err(UNKNOWN.refuse("not in `server.hosts`").into())
    }

    fn remedy(&self, asked: &Asked<'_>) -> Option<Remedy> {
        let mut hosts: Vec<String> = self.named.iter().map(ToString::to_string).collect();
        if self.loopback {
            // A written list takes the place of the default.
            hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(String::from));
        }
        asked.host.parse::<HostPattern>().ok()?;
        hosts.push(asked.host.to_owned());
        Some(Remedy::Section(format!("[server]\nhosts = {hosts:?}")))
    }
}

/// `localhost`, names below it, loopback literals, and the address the client connected to.
fn is_loopback(host: &str, ctx: &Context) -> bool {
    let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host == "localhost"
        || host.ends_with(".localhost")
        || literal.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == ctx.connection.local.ip())
}
