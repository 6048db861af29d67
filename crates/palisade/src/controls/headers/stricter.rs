//! Which of two values of a security header is the stricter: the application's stays where it is not the weaker.

use std::time::Duration;

use http::HeaderValue;

/// `X-Frame-Options`, from the weakest to the strictest. What is not listed protects nothing.
pub(super) const FRAMES: &[&str] = &["sameorigin", "deny"];
/// `Referrer-Policy`.
pub(super) const REFERRER: &[&str] = &[
    "unsafe-url",
    "no-referrer-when-downgrade",
    "origin-when-cross-origin",
    "origin",
    "strict-origin-when-cross-origin",
    "strict-origin",
    "same-origin",
    "no-referrer",
];
/// `Cross-Origin-Opener-Policy`.
pub(super) const OPENER: &[&str] =
    &["unsafe-none", "same-origin-allow-popups", "noopener-allow-popups", "same-origin-plus-coep", "same-origin"];
/// `Cross-Origin-Resource-Policy`.
pub(super) const RESOURCE: &[&str] = &["cross-origin", "same-site", "same-origin"];

/// How two values of a header are compared.
#[derive(Debug, Clone, Copy)]
pub(super) enum Merge {
    /// There is one right value.
    Replace,
    /// The later in the list is the stricter; of several values (`Referrer-Policy`) the last known one counts.
    Rank(&'static [&'static str]),
    /// `Permissions-Policy`: feature by feature.
    Features,
}

impl Merge {
    /// The value to send instead of theirs; `None`: theirs stays.
    pub(super) fn instead(self, ours: &HeaderValue, theirs: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Self::Replace => (ours != theirs).then(|| ours.clone()),
            Self::Rank(order) => (rank(order, theirs) < rank(order, ours)).then(|| ours.clone()),
            Self::Features => features(ours, theirs),
        }
    }
}

/// The place in the order plus one; 0 for what is not in it.
pub(super) fn rank(order: &[&str], value: &HeaderValue) -> usize {
    let Ok(text) = value.to_str() else { return 0 };
    let place = |token: &str| {
        let token = token.split(';').next().unwrap_or_default().trim();
        order.iter().position(|known| known.eq_ignore_ascii_case(token)).map(|place| place + 1)
    };
    text.split(',').filter_map(place).next_back().unwrap_or(0)
}

/// The members of `Permissions-Policy` (a structured dictionary, RFC 9651): name and allowlist.
fn members(text: &str) -> Vec<(&str, &str)> {
    let mut depth = 0_u32;
    let mut quoted = false;
    let split = text.split(|c: char| {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && !quoted && depth == 0
    });
    split.filter_map(|member| member.split_once('=')).map(|(name, list)| (name.trim(), list.trim())).collect()
}

/// Ours, with what theirs closes besides or says of features that ours does not name.
fn features(ours: &HeaderValue, theirs: &HeaderValue) -> Option<HeaderValue> {
    let (Ok(our_text), Ok(their_text)) = (ours.to_str(), theirs.to_str()) else { return Some(ours.clone()) };
    let (our, their) = (members(our_text), members(their_text));
    let closed =
        |list: &str| list.strip_prefix('(').and_then(|l| l.split(')').next()).is_some_and(|l| l.trim().is_empty());
    let closed_there = |name: &str| their.iter().any(|(other, list)| *other == name && closed(list));
    let kept = our.iter().filter(|(name, _)| !closed_there(name));
    let added = their.iter().filter(|(name, list)| closed(list) || !our.iter().any(|(other, _)| other == name));
    let merged: Vec<String> = kept.chain(added).map(|(name, list)| format!("{name}={list}")).collect();
    HeaderValue::from_str(&merged.join(", ")).ok().or_else(|| Some(ours.clone()))
}

/// `Strict-Transport-Security` (RFC 6797 §6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hsts {
    pub(super) max_age: u64,
    pub(super) subdomains: bool,
    pub(super) preload: bool,
}

impl Hsts {
    pub(super) fn new(max_age: Duration, subdomains: bool, preload: bool) -> Self {
        Self { max_age: max_age.as_secs(), subdomains, preload }
    }

    pub(super) fn parse(value: &HeaderValue) -> Option<Self> {
        let mut parsed = Self { max_age: 0, subdomains: false, preload: false };
        let mut aged = false;
        for directive in value.to_str().ok()?.split(';').map(str::trim) {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "max-age" => {
                    parsed.max_age = argument.trim().trim_matches('"').parse().ok()?;
                    aged = true;
                }
                "includesubdomains" => parsed.subdomains = true,
                "preload" => parsed.preload = true,
                _ => {}
            }
        }
        aged.then_some(parsed)
    }

    /// Whether `other` promises at least as much.
    pub(super) fn is_met_by(self, other: Self) -> bool {
        other.max_age >= self.max_age && (other.subdomains || !self.subdomains) && (other.preload || !self.preload)
    }

    pub(super) fn value(self) -> HeaderValue {
        let subdomains = if self.subdomains { "; includeSubDomains" } else { "" };
        let preload = if self.preload { "; preload" } else { "" };
        HeaderValue::from_str(&format!("max-age={}{subdomains}{preload}", self.max_age))
            .unwrap_or(HeaderValue::from_static("max-age=0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &'static str) -> HeaderValue {
        HeaderValue::from_static(value)
    }

    #[test]
    fn the_stricter_stays_and_the_weaker_goes() {
        let cases: &[(Merge, &'static str, &'static str, Option<&str>)] = &[
            (Merge::Rank(FRAMES), "DENY", "SAMEORIGIN", Some("DENY")),
            (Merge::Rank(FRAMES), "SAMEORIGIN", "deny", None),
            (Merge::Rank(FRAMES), "SAMEORIGIN", "ALLOW-FROM https://a.example", Some("SAMEORIGIN")),
            (Merge::Rank(FRAMES), "DENY", "", Some("DENY")),
            (Merge::Rank(REFERRER), "strict-origin-when-cross-origin", "no-referrer", None),
            (Merge::Rank(REFERRER), "strict-origin-when-cross-origin", "no-referrer, strict-origin", None),
            (
                Merge::Rank(REFERRER),
                "strict-origin-when-cross-origin",
                "no-referrer, unsafe-url",
                Some("strict-origin-when-cross-origin"),
            ),
            (Merge::Rank(REFERRER), "strict-origin-when-cross-origin", "same-origin, new-token", None),
            (Merge::Rank(OPENER), "same-origin-allow-popups", "same-origin; report-to=\"x\"", None),
            (Merge::Rank(OPENER), "same-origin-allow-popups", "unsafe-none", Some("same-origin-allow-popups")),
            (Merge::Rank(RESOURCE), "same-site", "cross-origin", Some("same-site")),
            (Merge::Rank(RESOURCE), "same-site", "same-origin", None),
            (Merge::Replace, "0", "1; mode=block", Some("0")),
            (Merge::Replace, "nosniff", "nosniff", None),
            (Merge::Features, "camera=(), usb=()", "camera=(self)", Some("camera=(), usb=()")),
            (
                Merge::Features,
                "camera=(self)",
                "camera=(), geolocation=(self \"https://a.example\"), usb=*",
                Some("camera=(), geolocation=(self \"https://a.example\"), usb=*"),
            ),
        ];
        for (merge, ours, theirs, sent) in cases {
            let sent = sent.map(|sent| HeaderValue::from_str(sent).unwrap());
            assert_eq!(merge.instead(&text(ours), &text(theirs)), sent, "{ours} / {theirs}");
        }
    }

    #[test]
    fn transport_security_is_compared_by_what_it_promises() {
        let ours = Hsts::new(Duration::from_secs(365 * 86_400), false, false);
        assert_eq!(ours.value(), "max-age=31536000");
        assert_eq!(
            Hsts { subdomains: true, preload: true, ..ours }.value(),
            "max-age=31536000; includeSubDomains; preload"
        );
        for (theirs, met) in [
            ("max-age=63072000; includeSubDomains; preload", Some(true)),
            ("max-age=\"31536000\"", Some(true)),
            ("max-age=300", Some(false)),
            ("max-age=0", Some(false)),
            ("includeSubDomains", None),
            ("max-age=x", None),
        ] {
            assert_eq!(Hsts::parse(&text(theirs)).map(|theirs| ours.is_met_by(theirs)), met, "{theirs}");
        }
        let wide = Hsts { subdomains: true, ..ours };
        assert!(!wide.is_met_by(Hsts::parse(&text("max-age=99999999")).unwrap()));
    }
}
