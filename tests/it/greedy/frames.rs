//! HTTP/2 written by hand, as the greedy one.

use std::net::IpAddr;

use anyhow::Result;
use palisade_test::frames::{END_HEADERS, fields, frame, kind};
use palisade_test::tls::Connection;
use palisade_test::{Frames, Palisade};

use super::GREEDY;

/// Whom requests are for.
pub(crate) const AUTHORITY: &str = "127.0.0.1";

async fn connection(gateway: &Palisade, from: IpAddr) -> Result<Connection> {
    gateway.trust()?.connect_from(Some(from), gateway.address("https")?, AUTHORITY, &[b"h2"]).await
}

/// Only TLS, with `h2` chosen.
pub(crate) async fn silent(gateway: &Palisade) -> Result<Frames> {
    Frames::silent(connection(gateway, GREEDY).await?)
}

/// After the preface, with these settings.
pub(crate) async fn open(gateway: &Palisade, settings: &[(u16, u32)]) -> Result<Frames> {
    open_from(gateway, GREEDY, settings).await
}

/// The same from this address.
pub(crate) async fn open_from(gateway: &Palisade, from: IpAddr, settings: &[(u16, u32)]) -> Result<Frames> {
    let mut frames = Frames::over_with(connection(gateway, from).await?, settings).await?;
    frames.send(frame(kind::SETTINGS, palisade_test::frames::ACK, 0, &[])).await?;
    Ok(frames)
}

/// The HEADERS of a request.
pub(crate) fn request(stream: u32, flags: u8, method: &str, path: &str) -> Vec<u8> {
    let head = [(":method", method), (":scheme", "https"), (":authority", AUTHORITY), (":path", path)];
    frame(kind::HEADERS, flags | END_HEADERS, stream, &fields(&head))
}
