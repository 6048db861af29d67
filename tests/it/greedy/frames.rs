//! HTTP/2 written by hand, as the greedy one.

use anyhow::Result;
use palisade_test::frames::{END_HEADERS, fields, frame, kind};
use palisade_test::tls::Connection;
use palisade_test::{Frames, Palisade};

use super::GREEDY;

/// Whom requests are for.
pub(crate) const AUTHORITY: &str = "127.0.0.1";

async fn connection(gateway: &Palisade) -> Result<Connection> {
    gateway.trust()?.connect_from(Some(GREEDY), gateway.address("https")?, AUTHORITY, &[b"h2"]).await
}

/// Only TLS, with `h2` chosen.
pub(crate) async fn silent(gateway: &Palisade) -> Result<Frames> {
    Frames::silent(connection(gateway).await?)
}

/// After the preface, with these settings.
pub(crate) async fn open(gateway: &Palisade, settings: &[(u16, u32)]) -> Result<Frames> {
    let mut frames = Frames::over_with(connection(gateway).await?, settings).await?;
    frames.send(frame(kind::SETTINGS, palisade_test::frames::ACK, 0, &[])).await?;
    Ok(frames)
}

/// The HEADERS of a request.
pub(crate) fn request(stream: u32, flags: u8, method: &str, path: &str) -> Vec<u8> {
    let head = [(":method", method), (":scheme", "https"), (":authority", AUTHORITY), (":path", path)];
    frame(kind::HEADERS, flags | END_HEADERS, stream, &fields(&head))
}
