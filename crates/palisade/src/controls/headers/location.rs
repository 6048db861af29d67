//! Where redirects lead: an application that believes it is on plain HTTP, or under its internal name, is mended;
//! other hosts are judged. Sources: RFC 9110 §10.2.2, the WHATWG URL standard (how browsers read a `Location`).

use std::borrow::Cow;
use std::net::IpAddr;

use crate::policy::values::{HostPattern, UpstreamUrl, host_name};

/// What a `Location` points to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target<'t> {
    /// A path on this host.
    Relative,
    /// A host.
    Host {
        /// `http` or `https`; none where the location begins with `//`.
        scheme: Option<&'static str>,
        /// In lower case; none where it is not a host name.
        host: Option<Box<str>>,
        /// The port, where one is written.
        port: Option<u16>,
        /// Path, query and fragment.
        rest: &'t str,
    },
    /// Another scheme than HTTP.
    Foreign,
}

/// Reads a location as browsers do: blanks at its ends and line breaks within are nothing, a backslash is a slash.
pub(crate) fn read<'t>(location: &str, room: &'t mut String) -> Target<'t> {
    let trimmed = location.trim_matches(|c: char| c <= ' ');
    *room = trimmed.chars().filter(|c| !matches!(c, '\t' | '\r' | '\n')).collect();
    let text: &'t str = room;
    let colon = text.find([':', '/', '\\', '?', '#']).filter(|place| text[*place..].starts_with(':'));
    let (scheme, behind) = match colon {
        Some(place) if text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            let name = &text[..place];
            if name.eq_ignore_ascii_case("http") {
                (Some("http"), &text[place + 1..])
            } else if name.eq_ignore_ascii_case("https") {
                (Some("https"), &text[place + 1..])
            } else {
                return Target::Foreign;
            }
        }
        _ => (None, text),
    };
    let is_slash = |c: char| c == '/' || c == '\\';
    let bare = behind.trim_start_matches(is_slash);
    if scheme.is_none() && behind.len() - bare.len() < 2 {
        return Target::Relative;
    }
    let end = bare.find(|c: char| is_slash(c) || c == '?' || c == '#').unwrap_or(bare.len());
    let (authority, rest) = bare.split_at(end);
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (authority, None),
    };
    let (host, port) = match port {
        None | Some("") => (host_name(name), None),
        Some(port) => match port.parse() {
            Ok(number) => (host_name(name), Some(number)),
            Err(_) => (None, None),
        },
    };
    Target::Host { scheme, host, port, rest }
}

/// What happens to a location.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays.
    Stays,
    /// This instead.
    Mended(String),
    /// It leads elsewhere, to this host.
    Elsewhere(Cow<'static, str>),
}

/// What is known of this request and policy.
#[derive(Debug)]
pub(super) struct Here<'h> {
    /// The host of the request, and with its port as the client wrote it.
    pub(super) host: &'h str,
    pub(super) authority: &'h str,
    /// Whether the client speaks TLS.
    pub(super) secure: bool,
    /// The application.
    pub(super) upstream: Option<&'h UpstreamUrl>,
    /// `server.hosts`.
    pub(super) hosts: &'h [HostPattern],
    /// `headers.redirects`.
    pub(super) redirects: &'h [HostPattern],
}

/// Judges a location.
pub(super) fn judge(location: &str, here: &Here<'_>) -> Verdict {
    let mut room = String::new();
    let (scheme, host, port, rest) = match read(location, &mut room) {
        Target::Relative => return Verdict::Stays,
        Target::Foreign => return Verdict::Elsewhere("another scheme".into()),
        Target::Host { host: None, .. } => return Verdict::Elsewhere("not a host name".into()),
        Target::Host { scheme, host: Some(host), port, rest } => (scheme, host, port, rest),
    };
    let own = *host == *here.host;
    let default_port = if scheme == Some("https") { 443 } else { 80 };
    if here.is_internal(&host, port.unwrap_or(default_port)) && !here.authority.is_empty() {
        let scheme = if here.secure { "https" } else { "http" };
        return Verdict::Mended(format!("{scheme}://{}{rest}", here.authority));
    }
    if own {
        let own_port = here.authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let believes_http = scheme == Some("http") && here.secure && (port == own_port || port.is_none());
        return if believes_http {
            Verdict::Mended(format!("https://{}{rest}", here.authority))
        } else {
            Verdict::Stays
        };
    }
    // `*` of `server.hosts` says which names are answered to, in development, not which are ours.
    let ours = here.hosts.iter().any(|pattern| *pattern != HostPattern::Any && pattern.matches(&host));
    let neighbour = is_loopback(&host) && is_loopback(here.host);
    if ours || neighbour || here.redirects.iter().any(|pattern| pattern.matches(&host)) {
        return Verdict::Stays;
    }
    Verdict::Elsewhere(String::from(host).into())
}

impl Here<'_> {
    /// A name that only the gateway knows the application by, or a loopback one where this host is not.
    fn is_internal(&self, host: &str, port: u16) -> bool {
        let upstream =
            self.upstream.and_then(UpstreamUrl::host_and_port).is_some_and(|(name, at)| *name == *host && at == port);
        // The application may be told the client's authority, which then is not internal.
        let is_own = *host == *self.host
            && self.authority.rsplit_once(':').map_or(port == 80 || port == 443, |(_, own)| own.parse() == Ok(port));
        (upstream && !is_own) || (is_loopback(host) && !is_loopback(self.host))
    }
}

fn is_loopback(host: &str) -> bool {
    let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.ends_with(".localhost") || literal.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(location: &str, secure: bool) -> Verdict {
        let upstream = "http://app.internal:8000".parse().unwrap();
        judge(
            location,
            &Here {
                host: "api.example.com",
                authority: "api.example.com:8443",
                secure,
                upstream: Some(&upstream),
                hosts: &["api.example.com".parse().unwrap(), "*.example.org".parse().unwrap(), HostPattern::Any],
                redirects: &["accounts.example.net".parse().unwrap()],
            },
        )
    }

    #[test]
    fn an_application_on_plain_http_is_mended() {
        for (location, mended) in [
            ("http://api.example.com/a?b#c", Some("https://api.example.com:8443/a?b#c")),
            ("HTTP://API.example.com:8443/a", Some("https://api.example.com:8443/a")),
            ("http://app.internal:8000/a", Some("https://api.example.com:8443/a")),
            ("//app.internal:8000", Some("https://api.example.com:8443")),
            ("http://localhost:3000/x", Some("https://api.example.com:8443/x")),
            ("http://[::1]/x", Some("https://api.example.com:8443/x")),
            ("https://api.example.com/a", None),
            ("http://api.example.com:9000/a", None),
            ("/a", None),
            ("a:b", Some("elsewhere")),
            ("a/b:c", None),
            ("?next=http://evil.example", None),
            ("", None),
        ] {
            match case(location, true) {
                Verdict::Stays => assert_eq!(mended, None, "{location}"),
                Verdict::Mended(to) => assert_eq!(mended, Some(to.as_str()), "{location}"),
                Verdict::Elsewhere(_) => assert_eq!(mended, Some("elsewhere"), "{location}"),
            }
        }
        assert_eq!(case("http://api.example.com/a", false), Verdict::Stays);
        assert_eq!(case("http://app.internal:8000/a", false), Verdict::Mended("http://api.example.com:8443/a".into()));
    }

    #[test]
    fn other_hosts_are_elsewhere_however_they_are_written() {
        for location in [
            "https://evil.example/",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example/",
            "https:evil.example",
            "https:/evil.example",
            "https:///evil.example",
            " \t//evil.example",
            "/\t/evil.example",
            "ht\ttps://evil.example",
            "https://api.example.com@evil.example/",
            "https://evil.example\\@api.example.com/",
            "https://api.example.com:x@evil.example",
            "https://evil.example?.api.example.com",
            "https://api.example.com.evil.example",
            "https://api.example.com%2eevil.example",
            "https://api.example.com:99999/",
            "javascript:alert(1)",
            "data:text/html,x",
            "https://",
            "//",
        ] {
            assert!(matches!(case(location, true), Verdict::Elsewhere(_)), "{location:?}: {:?}", case(location, true));
        }
        for location in ["https://a.example.org/x", "https://accounts.example.net/", "//api.example.com/", "./x//y"] {
            assert_eq!(case(location, true), Verdict::Stays, "{location}");
        }
    }

    #[test]
    fn on_loopback_other_ports_of_loopback_are_neighbours() {
        let upstream = "http://127.0.0.1:8000".parse().unwrap();
        let here = Here {
            host: "127.0.0.1",
            authority: "127.0.0.1:8080",
            secure: false,
            upstream: Some(&upstream),
            hosts: &[],
            redirects: &[],
        };
        assert_eq!(judge("http://127.0.0.1:8000/x", &here), Verdict::Mended("http://127.0.0.1:8080/x".into()));
        assert_eq!(judge("http://127.0.0.1:8080/x", &here), Verdict::Stays);
        assert_eq!(judge("http://127.0.0.1:3000/x", &here), Verdict::Stays);
        assert_eq!(judge("http://localhost:3000/x", &here), Verdict::Stays);
        assert!(matches!(judge("http://a.example/x", &here), Verdict::Elsewhere(_)));
    }
}
