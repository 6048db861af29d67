//! The PROXY protocol, versions 1 and 2: how a balancer that passes bytes on says for whom it connected.
//!
//! Guide section 8, threat 26. Only where `server.proxy_protocol` is on, and only from `server.trusted_proxies`: there the
//! header is required, from everybody else it is refused. It is read before TLS, strictly, and never a byte further than
//! it goes. What is written here follows `proxy-protocol.txt` of HAProxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use palisade_base::canonical_ip;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::context::Introduced;

/// A line of version 1 with its end is at most this long (section 2.1).
const V1_BYTES: usize = 107;
const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Start, version and command, family, length.
const V2_HEAD: usize = 16;
/// What version 2 may carry behind its head: addresses, and facts of the session such as a name or a certificate's.
const V2_BYTES: usize = 512;

const TYPE_CRC32C: u8 = 0x03;
const TYPE_SSL: u8 = 0x20;
/// The client spoke TLS to the proxy.
const CLIENT_SSL: u8 = 1;

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The peer connected, said nothing, and left: how balancers see whether a port is open.
    Nothing,
    /// It said something else.
    Wrong(&'static str),
}

/// What to do with the bytes so far.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// At least this many more belong to the header.
    More(usize),
    /// It goes on to the end of the line, at most this far.
    Line(usize),
    Done(Introduced),
}

/// Reads the header of a connection, and nothing behind it. Whoever calls it limits the time.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Introduced, Failure> {
    let mut buffer = Vec::with_capacity(V1_BYTES);
    loop {
        let from = buffer.len();
        let read = match step(&buffer).map_err(Failure::Wrong)? {
            Step::Done(introduced) => return Ok(introduced),
            Step::More(bytes) => {
                buffer.resize(from + bytes, 0);
                stream.read(&mut buffer[from..]).await
            }
            Step::Line(bytes) => {
                buffer.resize(from + bytes, 0);
                line(stream, &mut buffer[from..]).await
            }
        };
        match read {
            Ok(0) | Err(_) if from == 0 => return Err(Failure::Nothing),
            Ok(0) | Err(_) => return Err(Failure::Wrong("the connection ended within the PROXY header")),
            Ok(read) => buffer.truncate(from + read),
        }
    }
}

/// Reads what is there, up to the end of the line.
async fn line(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    let there = stream.peek(buffer).await?;
    let there = buffer.get(..there).unwrap_or_default();
    let take = there.iter().position(|byte| *byte == b'\n').map_or(there.len(), |end| end + 1);
    stream.read(&mut buffer[..take]).await
}

/// Waits for a client's first bytes, which it leaves where they are, and says whether they begin a PROXY header.
///
/// One that comes in small pieces is not recognised here, and no TLS handshake or head of a request either.
pub(super) async fn is_sent(stream: &TcpStream) -> bool {
    let mut first = [0; V2_START.len()];
    let Ok(length) = stream.peek(&mut first).await else { return false };
    let first = &first[..length];
    first.starts_with(V1_START) || first == V2_START
}

fn step(bytes: &[u8]) -> Result<Step, &'static str> {
    const NEITHER: &str = "a trusted proxy sent no PROXY header";
    let length = bytes.len();
    let is_2 = V2_START.starts_with(&bytes[..length.min(V2_START.len())]);
    if !is_2 && !bytes.starts_with(&V1_START[..length.min(V1_START.len())]) {
        return Err(NEITHER);
    }
    // Both versions are longer than this.
    if length < V2_START.len() {
        return Ok(Step::More(V2_START.len() - length));
    }
    if is_2 {
        return version_2(bytes);
    }
    match bytes.strip_suffix(b"\n") {
        Some(line) => version_1(line).map(Step::Done),
        None if bytes.contains(&b'\n') => Err("bytes behind the PROXY header were taken for part of it"),
        None if length >= V1_BYTES => Err("the PROXY header has no end"),
        None => Ok(Step::Line(V1_BYTES - length)),
    }
}

fn version_1(line: &[u8]) -> Result<Introduced, &'static str> {
    let line = line.strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let line = line.ok_or("the PROXY header does not end with CRLF, or is not ASCII")?;
    if line.bytes().any(|byte| !(byte == b' ' || byte.is_ascii_graphic())) {
        return Err("a control character in the PROXY header");
    }
    let mut parts = line.split(' ').skip(1);
    let family = parts.next();
    if family == Some("UNKNOWN") {
        // The rest of such a line is to be ignored.
        return Ok(Introduced::nobody());
    }
    let mut addresses = [const { None::<IpAddr> }; 2];
    for address in &mut addresses {
        let text = parts.next().unwrap_or_default();
        *address = match family {
            Some("TCP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            Some("TCP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => return Err("an unknown protocol in the PROXY header"),
        };
    }
    let [Some(client), Some(_)] = addresses else { return Err("a bad address in the PROXY header") };
    let ports = [parts.next(), parts.next()];
    if !ports.into_iter().all(|port| port.is_some_and(is_port)) || parts.next().is_some() {
        return Err("bad ports in the PROXY header");
    }
    named(client, false)
}

/// Digits without leading zeros, as the protocol has them; `u16` would take a sign too.
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
        && text.parse::<u16>().is_ok()
}

fn version_2(bytes: &[u8]) -> Result<Step, &'static str> {
    let Some((head, rest)) = bytes.split_first_chunk::<V2_HEAD>() else {
        return Ok(Step::More(V2_HEAD - bytes.len()));
    };
    let [.., command, family, high, low] = *head;
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err("an unknown version or command in the PROXY header"),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES {
        return Err("the PROXY header is too long");
    }
    if rest.len() < length {
        return Ok(Step::More(length - rest.len()));
    }
    let rest = rest.get(..length).unwrap_or_default();
    if is_local {
        // Of the proxy's own accord, such as to see whether we are well; what follows is to be ignored.
        return Ok(Step::Done(Introduced::nobody()));
    }
    const SHORT: &str = "the PROXY header is too short for its addresses";
    let (client, facts) = match family {
        // Unspecified, and local sockets, of which nobody has an address.
        0x00 => (None, rest),
        0x31 => (None, rest.get(216..).ok_or(SHORT)?),
        0x11 => {
            let (client, facts) = rest.split_at_checked(12).ok_or(SHORT)?;
            (client.first_chunk::<4>().map(|octets| IpAddr::from(*octets)), facts)
        }
        0x21 => {
            let (client, facts) = rest.split_at_checked(36).ok_or(SHORT)?;
            (client.first_chunk::<16>().map(|octets| IpAddr::from(*octets)), facts)
        }
        _ => return Err("an unknown family or protocol in the PROXY header"),
    };
    let secure = facts_of(bytes, facts)?;
    match client {
        Some(client) => named(client, secure).map(Step::Done),
        None => Ok(Step::Done(Introduced { secure, ..Introduced::nobody() })),
    }
}

/// Reads what follows the addresses (section 2.2): whether the client spoke TLS to the proxy. A checksum is verified.
fn facts_of(all: &[u8], mut facts: &[u8]) -> Result<bool, &'static str> {
    const BAD: &str = "the PROXY header's additional facts are malformed";
    let (mut secure, mut checksum) = (None, None);
    while let Some((&[kind, high, low], rest)) = facts.split_first_chunk::<3>() {
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low]))).ok_or(BAD)?;
        let twice = match kind {
            TYPE_CRC32C => checksum.replace((all.len() - rest.len(), *value.as_array::<4>().ok_or(BAD)?)).is_some(),
            // Flags, the outcome of verifying a certificate, and more facts.
            TYPE_SSL if value.len() >= 5 => secure.replace(value[0] & CLIENT_SSL != 0).is_some(),
            TYPE_SSL => true,
            _ => false,
        };
        if twice {
            return Err(BAD);
        }
        facts = rest;
    }
    if !facts.is_empty() {
        return Err(BAD);
    }
    if let Some((end, sum)) = checksum {
        // Over the whole header, with zeros in its own place.
        let (before, _) = all.split_at_checked(end - 4).ok_or(BAD)?;
        let after = all.get(end..).ok_or(BAD)?;
        if crc32c(&[before, &[0; 4], after]) != u32::from_be_bytes(sum) {
            return Err("the PROXY header's checksum is wrong");
        }
    }
    Ok(secure.unwrap_or(false))
}

/// RFC 3720 B.4, bit by bit: a header is short.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let sum = parts.iter().flat_map(|part| part.iter()).fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    });
    !sum
}

fn named(client: IpAddr, secure: bool) -> Result<Introduced, &'static str> {
    let client = canonical_ip(client);
    if client.is_unspecified() || client.is_multicast() {
        return Err("the PROXY header names an address that nobody connects from");
    }
    Ok(Introduced::new(client, secure))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// What a header says: the client, or `nobody`; with `+tls`. Read as it comes, byte by byte.
    fn said(bytes: &[u8]) -> Result<String, &'static str> {
        for length in 0..=bytes.len() {
            match step(&bytes[..length])? {
                Step::Done(introduced) if length == bytes.len() => {
                    let client = introduced.client.as_ref().map_or("nobody".to_owned(), |(ip, _)| ip.to_string());
                    return Ok(client + if introduced.secure { "+tls" } else { "" });
                }
                Step::Done(_) => return Err("done before its end"),
                Step::More(more) if length + more > bytes.len() => return Err("not done, and asks for too much"),
                Step::More(more) => assert!(more > 0),
                Step::Line(more) => assert!(more > 0),
            }
        }
        Err("not done")
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = [&V2_START[..], &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat();
        // A checksum of zeros stands for the right one.
        if let Some(at) = bytes.windows(7).position(|window| window == [TYPE_CRC32C, 0, 4, 0, 0, 0, 0]) {
            let sum = crc32c(&[&bytes]).to_be_bytes();
            bytes[at + 3..at + 7].copy_from_slice(&sum);
        }
        bytes
    }

    const TCP4: &[u8] = &[203, 0, 113, 7, 10, 0, 0, 1, 0xd4, 0x31, 1, 0xbb];

    #[test]
    fn what_a_proxy_may_say() {
        let tcp6 = ["2001:db8::7", "2001:db8::1"].map(|ip| ip.parse::<Ipv6Addr>().unwrap().octets()).concat();
        let mapped = ["::ffff:203.0.113.7", "::1"].map(|ip| ip.parse::<Ipv6Addr>().unwrap().octets()).concat();
        let with = |facts: &[u8]| v2(0x21, 0x11, &[TCP4, facts].concat());
        let cases: [(Vec<u8>, &str); 16] = [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 54321 443\r\n".to_vec(), "203.0.113.7"),
            (b"PROXY TCP4 255.255.255.254 255.255.255.255 65535 0\r\n".to_vec(), "255.255.255.254"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 54321 443\r\n".to_vec(), "2001:db8::7"),
            (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 54321 443\r\n".to_vec(), "203.0.113.7"),
            (b"PROXY UNKNOWN\r\n".to_vec(), "nobody"),
            (b"PROXY UNKNOWN ffff:f::1 ffff:f::2 65535 65535\r\n".to_vec(), "nobody"),
            (v2(0x21, 0x11, TCP4), "203.0.113.7"),
            (v2(0x21, 0x21, &[&tcp6[..], &[0, 1, 0, 2]].concat()), "2001:db8::7"),
            (v2(0x21, 0x21, &[&mapped[..], &[0, 1, 0, 2]].concat()), "203.0.113.7"),
            (v2(0x20, 0x00, b""), "nobody"),
            (v2(0x20, 0x11, TCP4), "nobody"),
            (v2(0x21, 0x00, b""), "nobody"),
            (v2(0x21, 0x31, &[b'/'; 216]), "nobody"),
            // An authority, and a session with a version and a name.
            (with(b"\x02\0\x04host\x20\0\x0f\x01\0\0\0\0\x21\0\x07TLSv1.3"), "203.0.113.7+tls"),
            (with(b"\x20\0\x05\0\0\0\0\0"), "203.0.113.7"),
            (with(b"\x03\0\x04\0\0\0\0\xea\0\x02ab"), "203.0.113.7"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(said(&bytes).as_deref(), Ok(expected), "{}", bytes.escape_ascii());
        }
        assert_eq!(said(&v2(0x20, 0, &[0; V2_BYTES])).as_deref(), Ok("nobody"));
        let longest = "PROXY UNKNOWN ".to_owned() + &"f".repeat(V1_BYTES - 16) + "\r\n";
        assert_eq!(said(longest.as_bytes()).as_deref(), Ok("nobody"));
    }

    /// RFC 3720 B.4.
    #[test]
    fn the_checksum_is_the_one_of_the_rfc() {
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[&[0xff; 16], &[0xff; 16]]), 0x62a8_ab43);
    }

    #[test]
    fn what_nobody_may_say() {
        let lines = [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 203.0.113.7 10.0.0.1 1 2\r\n",
            "PROXY\tTCP4 203.0.113.7 10.0.0.1 1 2\r\n",
            "PROXY  TCP4 203.0.113.7 10.0.0.1 1 2\r\n",
            "PROXY TCP4  203.0.113.7 10.0.0.1 1 2\r\n",
            " PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 1 2\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 1 2 \r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 1 2 3\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\r\n",
            "PROXY TCP4 203.0.113.7\r10.0.0.1 1 2\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 1\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 01 2\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 +1 2\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 -1 2\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 1 65536\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 1 \r\n",
            "PROXY TCP4 203.0.113.07 10.0.0.1 1 2\r\n",
            "PROXY TCP4 203.0.113.256 10.0.0.1 1 2\r\n",
            "PROXY TCP4 0xcb.0.113.7 10.0.0.1 1 2\r\n",
            "PROXY TCP4 203.0.113 10.0.0.1 1 2\r\n",
            "PROXY TCP4 203.0.113.7/8 10.0.0.1 1 2\r\n",
            "PROXY TCP4 203.0.113.7 here 1 2\r\n",
            "PROXY TCP4 0.0.0.0 10.0.0.1 1 2\r\n",
            "PROXY TCP4 224.0.0.1 10.0.0.1 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 203.0.113.7 10.0.0.1 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY TCP6 [2001:db8::7] ::1 1 2\r\n",
            "PROXY TCP6 ::ffff:0.0.0.0 ::1 1 2\r\n",
            "PROXY UDP4 203.0.113.7 10.0.0.1 1 2\r\n",
            "PROXY UNIX /a /b 1 2\r\n",
            "PROXY UNKNOWN2\r\n",
            "PROXY UNKNOWN\0\r\n",
            "PROXY UNKNOWN \u{e4}\r\n",
            "PROXY UNKNOWN\n",
            "PROXY \r\n\r\n\r\n\r\n",
        ];
        let long = "PROXY UNKNOWN ".to_owned() + &"f".repeat(V1_BYTES - 15) + "\r\n";
        let with = |facts: &[u8]| v2(0x21, 0x11, &[TCP4, facts].concat());
        let mut wrong_sum = with(b"\x03\0\x04\0\0\0\0");
        wrong_sum[20] ^= 1;
        let binary = [
            v2(0x11, 0x11, TCP4),
            v2(0x22, 0x11, TCP4),
            v2(0x31, 0x11, TCP4),
            v2(0x21, 0x12, TCP4),
            v2(0x21, 0x13, TCP4),
            v2(0x21, 0x41, TCP4),
            v2(0x21, 0x11, &TCP4[..11]),
            v2(0x21, 0x11, &[]),
            v2(0x21, 0x21, TCP4),
            v2(0x21, 0x31, &[b'/'; 215]),
            v2(0x21, 0x11, &[0; 12]),
            v2(0x20, 0x00, &[0; V2_BYTES + 1]),
            with(&[1]),
            with(&[1, 0]),
            with(&[1, 0, 1]),
            with(&[1, 0xff, 0xff, 0]),
            with(b"\x20\0\x04\x01\0\0\0"),
            with(b"\x20\0\x05\x01\0\0\0\0\x20\0\x05\0\0\0\0\0"),
            with(b"\x03\0\x03\0\0\0"),
            wrong_sum,
            b"\r\n\r\nGET / HTTP/1.1\r\n".to_vec(),
            b"\r\n\r\n\0\r\nQUIT\r\n\r\n\r\n".to_vec(),
        ];
        let lines = lines.iter().map(|line| line.as_bytes().to_vec());
        for bytes in lines.chain([long.into_bytes()]).chain(binary) {
            let said = said(&bytes);
            assert!(said.as_ref().is_err_and(|why| !why.contains("done")), "{}: {said:?}", bytes.escape_ascii());
        }
    }

    proptest! {
        /// Any bytes are judged, and whatever is asked for stays within the bounds.
        #[test]
        fn any_bytes(start in 0..4_usize, rest in prop::collection::vec(any::<u8>(), 0..600)) {
            let start: &[u8] = [&b""[..], b"PROXY ", b"PROXY TCP4 1.1.1.1 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11"][start];
            let bytes = [start, &rest].concat();
            for length in 0..=bytes.len() {
                match step(&bytes[..length]) {
                    Ok(Step::More(more)) => prop_assert!(more > 0 && length + more <= V2_HEAD + V2_BYTES),
                    Ok(Step::Line(more)) => prop_assert!(more > 0 && length + more <= V1_BYTES),
                    Ok(Step::Done(_)) | Err(_) => break,
                }
            }
        }

        /// What is written as the protocol has it is read as it was meant.
        #[test]
        fn any_client(client: [u8; 16], v4: bool, ports: (u16, u16)) {
            let (ip, family) = match v4 {
                true => (IpAddr::from(<[u8; 4]>::try_from(&client[..4]).unwrap()), "TCP4"),
                false => (IpAddr::from(client), "TCP6"),
            };
            let line = format!("PROXY {family} {ip} {ip} {} {}\r\n", ports.0, ports.1);
            let nobody = canonical_ip(ip).is_unspecified() || canonical_ip(ip).is_multicast();
            let read = said(line.as_bytes());
            prop_assert_eq!(read.ok(), (!nobody).then(|| canonical_ip(ip).to_string()));
        }
    }

    #[tokio::test]
    async fn nothing_behind_the_header_is_taken() {
        let binary = v2(0x21, 0x11, TCP4);
        for header in [&b"PROXY TCP4 203.0.113.7 10.0.0.1 54321 443\r\n"[..], b"PROXY UNKNOWN\r\n", &binary] {
            for pieces in [1, 2, 5, 1000] {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                client.set_nodelay(true).unwrap();
                let (mut server, _) = listener.accept().await.unwrap();
                let bytes = [header, b"\nrest\r\n"].concat();
                let write = async {
                    for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
                        client.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    client.shutdown().await.unwrap();
                };
                let (read, ()) = tokio::join!(read(&mut server), write);
                read.unwrap();
                let mut rest = Vec::new();
                server.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, b"\nrest\r\n", "in {pieces} pieces: {}", header.escape_ascii());
            }
        }
    }
}
