//! Links in mail: they begin with the issuer that the policy names, and with nothing else.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use palisade_base::Secret;

/// Why an issuer cannot begin a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address that links can begin with, such as `https://api.example.com`")]
pub struct BadIssuer;

/// Where links lead.
#[derive(Debug, Clone)]
pub struct Links {
    base: String,
}

/// One link. It holds a token, so it does not print.
#[derive(Debug, Clone)]
pub struct Link(Secret<String>);

impl Links {
    /// Links to this issuer: `https://api.example.com`, perhaps with a path.
    ///
    /// # Errors
    /// When it is not `http:` or `https:`, or holds what has another meaning in a link.
    pub fn new(issuer: &str) -> Result<Self, BadIssuer> {
        let rest = issuer.strip_prefix("https://").or_else(|| issuer.strip_prefix("http://")).ok_or(BadIssuer)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]".contains(c);
        let fits = !rest.is_empty() && !rest.starts_with('/') && rest.chars().all(plain) && issuer.len() <= 512;
        fits.then(|| Self { base: issuer.trim_end_matches('/').to_owned() }).ok_or(BadIssuer)
    }

    /// A link to a page of the issuer, with the token in its query. A path that is not one (from a mistake in the code, not
    /// from a request) is encoded until it is harmless.
    pub fn to(&self, path: &str, token: &Secret<String>) -> Link {
        let path = encode(path.trim_start_matches('/'), "-._~/");
        Link(Secret::new(format!("{}/{}?token={}", self.base, path.as_str(), encode(token.expose(), "-._~").as_str())))
    }

    /// The host, as the name of the service where the policy gives none.
    pub fn host(&self) -> &str {
        let rest = self.base.split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', ':']).next().unwrap_or_default()
    }
}

impl Link {
    /// The link itself.
    pub const fn expose(&self) -> &String {
        self.0.expose()
    }
}

impl fmt::Display for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

/// Percent-encodes all but letters, digits and what is `kept`.
fn encode(text: &str, kept: &str) -> zeroize::Zeroizing<String> {
    let mut out = zeroize::Zeroizing::new(String::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

/// An id for a message that says nothing of its content.
pub(crate) fn message_id(bytes: &[u8], domain: &str) -> String {
    format!("<{}@{domain}>", BASE64URL_NOPAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_issuer() {
        let token = Secret::new("a-b_c".to_owned());
        let link = |issuer: &str, path: &str| Links::new(issuer).map(|links| links.to(path, &token).expose().clone());
        assert_eq!(
            link("https://api.example.com", "/auth/reset").unwrap(),
            "https://api.example.com/auth/reset?token=a-b_c"
        );
        assert_eq!(
            link("http://localhost:8080/", "auth/reset").unwrap(),
            "http://localhost:8080/auth/reset?token=a-b_c"
        );
        for bad in [
            "",
            "api.example.com",
            "javascript:alert(1)",
            "https://",
            "https:///x",
            "https://a b",
            "https://a\r\nb",
            "https://u:p@h",
            "https://h?x",
            "https://h#x",
        ] {
            assert_eq!(link(bad, "/").err(), Some(BadIssuer), "{bad:?}");
        }
        let links = Links::new("https://api.example.com:8443/x").unwrap();
        assert_eq!(links.host(), "api.example.com");
        let hostile = Secret::new("\"><script>\r\n&x=".to_owned());
        let link = links.to("/a?b", &hostile);
        assert_eq!(link.expose(), "https://api.example.com:8443/x/a%3Fb?token=%22%3E%3Cscript%3E%0D%0A%26x%3D");
        assert!(!format!("{link:?}").contains("script"));
    }
}
