//! The cells of the table: what is sent, by which generator.

use super::site::{MEBIBYTE, small_answer};

/// Requests per second of the latency cells.
pub(super) const RATE: u64 = 2000;
/// Connections that share [`RATE`].
pub(super) const RATE_CONNECTIONS: u64 = 20;

/// One row of the table.
pub(super) struct Cell {
    /// As typed after `--only`.
    pub(super) name: &'static str,
    /// As printed.
    pub(super) title: &'static str,
    /// Over HTTP/2.
    pub(super) h2: bool,
    /// What is requested.
    pub(super) what: What,
    /// How.
    pub(super) load: Load,
}

/// A request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// `GET /`: 200 bytes of JSON.
    Get,
    /// `POST /`: 1,000 bytes of JSON, answered with 200.
    Post,
    /// `GET /1m`: a mebibyte.
    Download,
}

/// An amount of load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// As much as the gateway takes, on this many connections with this many requests in flight on each.
    Saturated {
        /// Connections.
        connections: u32,
        /// HTTP/2 streams on each; 1 for HTTP/1.1.
        streams: u32,
    },
    /// A connection and full handshake for each request, this many at once.
    NewConnections(u32),
    /// [`RATE`] requests a second, whatever the gateway does.
    FixedRate,
}

const H1: Load = Load::Saturated { connections: 64, streams: 1 };
const H1_LARGE: Load = Load::Saturated { connections: 16, streams: 1 };
const H2: Load = Load::Saturated { connections: 16, streams: 8 };
const H2_LARGE: Load = Load::Saturated { connections: 4, streams: 4 };
const NEW: Load = Load::NewConnections(100);

/// All cells, in order of print.
pub(super) const CELLS: &[Cell] = &[
    Cell { name: "h1-get", title: "GET 200 B, HTTP/1.1", h2: false, what: What::Get, load: H1 },
    Cell { name: "h1-post", title: "POST 1 kB, HTTP/1.1", h2: false, what: What::Post, load: H1 },
    Cell { name: "h2-get", title: "GET 200 B, HTTP/2", h2: true, what: What::Get, load: H2 },
    Cell { name: "h2-post", title: "POST 1 kB, HTTP/2", h2: true, what: What::Post, load: H2 },
    Cell { name: "h1-1mib", title: "1 MiB download, HTTP/1.1", h2: false, what: What::Download, load: H1_LARGE },
    Cell { name: "h2-1mib", title: "1 MiB download, HTTP/2", h2: true, what: What::Download, load: H2_LARGE },
    Cell { name: "new-tls", title: "new TLS connection, one GET, HTTP/1.1", h2: false, what: What::Get, load: NEW },
    Cell { name: "new-tls-h2", title: "new TLS connection, one GET, HTTP/2", h2: true, what: What::Get, load: NEW },
    Cell { name: "h1-rate", title: "GET at 2,000/s, HTTP/1.1", h2: false, what: What::Get, load: Load::FixedRate },
    Cell { name: "h2-rate", title: "GET at 2,000/s, HTTP/2", h2: true, what: What::Get, load: Load::FixedRate },
];

impl Cell {
    /// Counted in the geometric mean of the small requests.
    pub(super) fn small(&self) -> bool {
        self.what != What::Download && matches!(self.load, Load::Saturated { .. })
    }
}

impl What {
    /// Path on the gateway.
    pub(super) fn path(self) -> &'static str {
        match self {
            What::Get | What::Post => "/",
            What::Download => "/1m",
        }
    }

    /// Bytes of the right answer's body.
    pub(super) fn answer_bytes(self) -> u64 {
        match self {
            What::Get | What::Post => small_answer().len() as u64,
            What::Download => MEBIBYTE as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is compared over one version is compared over the other.
    #[test]
    fn every_kind_of_load_is_there_over_both_versions() {
        let same = |one: &Cell, other: &Cell| {
            one.what == other.what && std::mem::discriminant(&one.load) == std::mem::discriminant(&other.load)
        };
        for cell in CELLS {
            let twins = CELLS.iter().filter(|other| other.h2 != cell.h2 && same(cell, other)).count();
            assert_eq!(twins, 1, "{}", cell.name);
            let version = if cell.h2 { "HTTP/2" } else { "HTTP/1.1" };
            assert!(cell.title.ends_with(version), "{}", cell.title);
        }
    }
}
