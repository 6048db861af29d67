//! Seats: how many requests may be in progress that need a descriptor, in all and of one network.
//!
//! Guide section 21; threat 29. A connection over HTTP/2 carries a hundred requests, and each may keep a connection to the
//! application, or a file, for as long as its client takes nothing of the answer. Whoever takes a seat may have as many as
//! are free besides: half of them where nobody else has any, a third each of two who want all of them, and there are some
//! left for whoever comes next, however many take as much as they can. No limit that one address by itself would reach.
//! There is no queue: a client that is refused may come again in a second, and holds nothing until then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;

use super::admission::{Admitted, Network};
use super::descriptors::Room;
use super::{ServerState, of};
use crate::context::Context;
use crate::refusal::{Code, Refusal};

/// All seats are taken.
pub(crate) static REQUESTS: Code = Code::client(
    "limits.requests",
    StatusCode::SERVICE_UNAVAILABLE,
    21,
    "too many requests are in progress; try again shortly",
)
.owasp("excess_rate_limit_exceeded");
/// One network has its share of them.
pub(crate) static PER_ADDRESS: Code = Code::client(
    "limits.requests_per_address",
    StatusCode::SERVICE_UNAVAILABLE,
    21,
    "too many requests from this network are in progress; wait for the earlier ones, or try again shortly",
)
.owasp("excess_rate_limit_exceeded");

/// A request in progress; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat(Whose);

#[derive(Debug)]
enum Whose {
    /// Of the client whose connection it came by, which counts as open for as long.
    Connection(Arc<Admitted>),
    /// Of a client whom a proxy named, or of one that a server of somebody else's admitted.
    Client(Arc<ServerState>, Network),
}

/// Takes a seat for a request.
///
/// # Errors
/// When there is none for it.
pub(crate) fn take(ctx: &Context) -> Result<Seat, Refusal> {
    let said = ctx.policy.config().limits.config.requests();
    let taken = match ctx.connection.admitted.upgrade() {
        Some(admitted) => match admitted.requests() {
            Some(network) => begin(&admitted.server().room, network, said).map(|()| Seat(Whose::Connection(admitted))),
            None => of_client(Arc::clone(admitted.server()), ctx, said),
        },
        None => of_client(of(&ctx.policy.env().state), ctx, said),
    };
    taken.map_err(|code| code.refuse("no seat for a request in progress").retry_after(1))
}

fn of_client(server: Arc<ServerState>, ctx: &Context, said: u32) -> Result<Seat, &'static Code> {
    let network = Network::widest(ctx.client_ip());
    server.admission.with_requests(network, |requests| begin(&server.room, requests, said))?;
    Ok(Seat(Whose::Client(server, network)))
}

/// Counts a request among all and among those of its network, where it may be.
fn begin(room: &Room, network: &AtomicUsize, said: u32) -> Result<(), &'static Code> {
    let free = room.requests(said).saturating_sub(room.seated.fetch_add(1, Ordering::Relaxed));
    if network.fetch_add(1, Ordering::Relaxed) < free {
        return Ok(());
    }
    end(room, network);
    Err(if free == 0 { &REQUESTS } else { &PER_ADDRESS })
}

fn end(room: &Room, network: &AtomicUsize) {
    network.fetch_sub(1, Ordering::Relaxed);
    room.seated.fetch_sub(1, Ordering::Relaxed);
}

impl Drop for Seat {
    fn drop(&mut self) {
        match &self.0 {
            Whose::Connection(admitted) => {
                if let Some(network) = admitted.requests() {
                    end(&admitted.server().room, network);
                }
            }
            Whose::Client(server, network) => {
                server.admission.with_requests(*network, |requests| end(&server.room, requests));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http::Response;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::body::{RequestBody, ResponseBody};
    use crate::context::Connection;
    use crate::stack::RefusedWith;
    use crate::testing_local::{App, request};

    /// As many as one gets that takes all it can.
    fn greedy(room: &Room, network: &AtomicUsize, said: u32) -> usize {
        std::iter::repeat_with(|| begin(room, network, said)).take_while(Result::is_ok).count()
    }

    #[test]
    fn a_network_may_have_as_many_as_are_free() {
        let room = Room::default();
        let networks: [AtomicUsize; 5] = Default::default();
        let [one, two, three, four, honest] = &networks;
        assert_eq!(greedy(&room, one, 100), 50, "half");
        assert_eq!(begin(&room, one, 100).unwrap_err(), &PER_ADDRESS);
        // One after the other they get less and less, and there is something left for the next one.
        assert_eq!([two, three, four].map(|network| greedy(&room, network, 100)), [25, 13, 6]);
        assert_eq!(room.seated.load(Ordering::Relaxed), 94);
        assert!(begin(&room, honest, 100).is_ok());
        end(&room, honest);
        for network in [one, two, three, four] {
            while network.load(Ordering::Relaxed) > 0 {
                end(&room, network);
            }
        }
        assert_eq!(room.seated.load(Ordering::Relaxed), 0, "a refusal keeps nothing");
        // Those who come and go as others do have equal shares in the end.
        for _ in 0..100 {
            for network in [one, two, three] {
                let _ = begin(&room, network, 100);
            }
        }
        assert_eq!([one, two, three].map(|network| network.load(Ordering::Relaxed)), [25; 3]);
    }

    #[test]
    fn where_none_is_left_all_are_refused() {
        let (room, network) = (Room::default(), AtomicUsize::new(0));
        assert!(begin(&room, &network, 1).is_ok());
        assert_eq!(begin(&room, &AtomicUsize::new(0), 1).unwrap_err(), &REQUESTS);
        end(&room, &network);
        assert_eq!((room.seated.load(Ordering::Relaxed), network.into_inner()), (0, 0));
    }

    #[test]
    fn never_more_than_there_are_from_many_threads() {
        let (room, held) = (Room::default(), AtomicUsize::new(0));
        let networks: [AtomicUsize; 8] = Default::default();
        std::thread::scope(|scope| {
            for thread in 0..64 {
                let (room, held, network) = (&room, &held, &networks[thread % 8]);
                scope.spawn(move || {
                    for _ in 0..1000 {
                        if begin(room, network, 20).is_ok() {
                            assert!(held.fetch_add(1, Ordering::Relaxed) < 20);
                            held.fetch_sub(1, Ordering::Relaxed);
                            end(room, network);
                        }
                    }
                });
            }
        });
        assert_eq!(room.seated.load(Ordering::Relaxed), 0);
        assert!(networks.iter().all(|network| network.load(Ordering::Relaxed) == 0));
    }

    /// An application that never finishes an answer.
    async fn unfinished() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx").await;
                open.push(stream);
            }
        });
        address
    }

    /// An answer of which nothing is taken.
    async fn ask(app: &App, peer: &str, path: &str) -> Response<ResponseBody> {
        let connection = Arc::new(Connection::embedded(SocketAddr::new(peer.parse().unwrap(), 4242)));
        let request = request("GET", path, &[], axum::body::Body::empty());
        app.handle.live().serve(&connection, request.map(RequestBody::axum)).await
    }

    fn code(answer: &Response<ResponseBody>) -> Option<&'static str> {
        answer.extensions().get::<RefusedWith>().map(|refused| refused.0.name)
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_keeps_its_seat_until_it_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("large.bin"), vec![7; 1 << 20]).unwrap();
        std::fs::write(folder.path().join("small.txt"), "small").unwrap();
        let app = App::start(&format!(
            "[limits]\nrequests = 4\n\n[[static]]\npath = \"/files\"\nroot = \"{}\"\n\n[upstreams.app]\nurl = \"http://{}\"\n\n[[route]]\npath = \"/app/*\"\nupstream = \"app\"\n",
            folder.path().display(),
            unfinished().await,
        ));
        let server = of(&app.handle.live().policy.env().state);
        let in_use = || (server.room.seated.load(Ordering::Relaxed), server.room.open());
        // Two /64 of one /48.
        let (one, same, other) = ("2001:db8:0:1::1", "2001:db8:0:2::1", "203.0.113.1");
        let held = [ask(&app, one, "/files/large.bin").await, ask(&app, same, "/app/x").await];
        assert_eq!(held.each_ref().map(|answer| answer.status()), [StatusCode::OK; 2]);
        assert_eq!(in_use(), (2, 2));
        for path in ["/app/x", "/files/large.bin"] {
            let refused = ask(&app, one, path).await;
            assert_eq!((refused.status().as_u16(), code(&refused)), (503, Some(PER_ADDRESS.name)), "{path}");
            assert_eq!(refused.headers()["retry-after"], "1");
        }
        // Others have their own; what is small, or Palisade's, holds nothing while it waits for its client.
        let theirs = [ask(&app, other, "/files/small.txt").await, ask(&app, other, "/app/y").await];
        assert_eq!(theirs.each_ref().map(|answer| answer.status()), [StatusCode::OK; 2]);
        assert_eq!(in_use(), (3, 3));
        assert_eq!(code(&ask(&app, "203.0.113.2", "/app/z").await), None);
        drop((held, theirs));
        assert_eq!(in_use(), (0, 0));
        let network = Network::widest(one.parse().unwrap());
        assert_eq!(server.admission.with_requests(network, |held| held.load(Ordering::Relaxed)), 0);
    }
}
