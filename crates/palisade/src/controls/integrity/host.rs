//! The one host of a request: equal wherever it is said.

use http::header::HOST;
use http::{HeaderValue, Version, request};

use crate::policy::values::host_name;

/// The host in lower case, without port. Where the target has an authority too (absolute form, `:authority`), both
/// must agree; the header is rewritten in lower case, as it will be sent.
///
/// # Errors
/// Why there is no single valid host.
pub(crate) fn host(parts: &mut request::Parts) -> Result<Box<str>, &'static str> {
    let mut values = parts.headers.get_all(HOST).iter();
    let header = values.next();
    if values.next().is_some() {
        return Err("more than one `Host`");
    }
    let header = header.map(|value| value.to_str().map_err(|_| "`Host` is not visible ASCII")).transpose()?;
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let text = match (header, authority) {
        (Some(header), Some(authority)) if !header.eq_ignore_ascii_case(authority) => {
            return Err("`Host` and the authority of the target differ");
        }
        (Some(text), _) => text,
        // HTTP/1.1 asks for `Host` beside an absolute target too (RFC 9112 §3.2); HTTP/2 has `:authority` alone.
        (None, Some(text)) if parts.version >= Version::HTTP_2 => text,
        (None, _) => return Err("no `Host`"),
    };
    let name = parse(text).ok_or("not a host and port")?;
    let lower_case = !text.bytes().any(|b| b.is_ascii_uppercase());
    if header.is_none() || !lower_case {
        let value = HeaderValue::from_str(&text.to_ascii_lowercase()).map_err(|_| "not a host and port")?;
        parts.headers.insert(HOST, value);
    }
    Ok(name)
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2), the name in lower case.
fn parse(text: &str) -> Option<Box<str>> {
    let bytes = text.as_bytes();
    let behind = if bytes.first() == Some(&b'[') { bytes.iter().position(|&b| b == b']')? } else { 0 };
    let split = bytes.get(behind..)?.iter().position(|&b| b == b':').map(|at| behind + at);
    let (name, port) = match split {
        Some(at) => (text.get(..at)?, Some(text.get(at + 1..)?)),
        None => (text, None),
    };
    if let Some(port) = port
        && (port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err())
    {
        return None;
    }
    host_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str, hosts: &[&[u8]]) -> Result<(String, Option<String>), &'static str> {
        // An absolute target stands for HTTP/2 here.
        let version = if uri.starts_with('/') { Version::HTTP_11 } else { Version::HTTP_2 };
        let mut request = http::Request::builder().uri(uri).version(version).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(HOST, HeaderValue::from_bytes(host).unwrap());
        }
        let mut parts = request.into_parts().0;
        let name = host(&mut parts)?;
        Ok((name.into(), parts.headers.get(HOST).map(|v| v.to_str().unwrap().to_owned())))
    }

    #[test]
    fn one_valid_host_or_none() {
        assert_eq!(
            read("/", &[b"API.Example.com:8443"]).unwrap(),
            ("api.example.com".into(), Some("api.example.com:8443".into()))
        );
        assert_eq!(read("https://a.example.com/x", &[]).unwrap().0, "a.example.com");
        assert_eq!(read("https://a.example.com/x", &[b"A.example.com"]).unwrap().0, "a.example.com");
        assert_eq!(read("/", &[b"[::1]:8443"]).unwrap().0, "[::1]");
        assert_eq!(read("/", &[b"example.com."]).unwrap().0, "example.com");
        for hosts in [
            &[&b"a/b"[..]][..],
            &[b"a?b"],
            &[b"a#b"],
            &[b"u@a"],
            &[b"a,b"],
            &[b"a b"],
            &[b"a:1:2"],
            &[b"a:"],
            &[b"a:99999"],
            &[b"[::1%25eth0]"],
            &[b""],
            &[b"a", b"a"],
            &[],
            &[b"[::1"],
            &[b"::1"],
            &[b"127.1"],
            &[b"localhost/health?"],
            &[b"a:80 "],
            &[b"\xff"],
        ] {
            assert!(read("/", hosts).is_err(), "{hosts:?}");
        }
        assert!(read("https://a.example.com/x", &[b"b.example.com"]).is_err());
        let mut parts = http::Request::builder().uri("http://a.example.com/x").body(()).unwrap().into_parts().0;
        assert_eq!(host(&mut parts), Err("no `Host`"), "HTTP/1.1 with an absolute target alone");
    }
}
