//! Slow and greedy clients on 127.0.0.2: their connections end, and a client on 127.0.0.3 is served all the while.

mod floods;
mod frames;
mod slow;
mod tools;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_test::upstream::Reply;
use palisade_test::{Client, Palisade, Upstream};
use tokio::task::JoinHandle;

use crate::support::written;

/// Who attacks.
const GREEDY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Who only wants to be served.
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// An upstream with a large answer at `/large`, one that a thousand may ask for at `/some`, and small ones elsewhere.
async fn upstream() -> Result<Upstream> {
    let mut large =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", 32 << 20).into_bytes();
    large.resize(large.len() + (32 << 20), b'x');
    let large = bytes::Bytes::from(large);
    let some = "x".repeat(256 << 10);
    Upstream::answering(move |request| match request.target() {
        "/large" => Reply::raw(large.clone()),
        "/some" => Reply::text(&some),
        _ => Reply::text("hello"),
    })
    .await
}

/// Times short enough for a test. Nothing else that protects: no rate limit, and as many connections as come.
async fn gateway(upstream: &Upstream, more: &str) -> Result<Palisade> {
    let limits = format!("[rate_limit]\ndefault = \"off\"\n\n[limits]\nconnections_per_address = 10000\n{more}");
    written(&upstream.url(), &limits).await
}

/// How long somebody may wait beside a thousand attackers, where nothing is optimised and other tests run too.
const PATIENCE: Duration = Duration::from_secs(90);

/// Somebody else's requests, one after the other, each on a connection of its own.
struct Served {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    task: JoinHandle<Result<()>>,
}

impl Served {
    fn beside(gateway: &Palisade) -> Result<Served> {
        Ok(Served::by(&gateway.https()?))
    }

    /// By this client, from another address, over HTTP/1.1 and HTTP/2.
    fn by(client: &Client) -> Served {
        let clients = [client.clone().from_address(OTHER), client.clone().http2().from_address(OTHER)];
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let task = tokio::spawn(async move {
            while !until.load(Ordering::Relaxed) {
                for client in &clients {
                    let mut answer =
                        tokio::time::timeout(PATIENCE, client.get("/").send()).await.context("not served")??;
                    ensure!(answer.status() == 200 && answer.text().await? == "hello", "{}", answer.status());
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        });
        Served { stop, count, task }
    }

    /// Fails if one of the requests did, or there were none.
    async fn all(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        let count = self.count.load(Ordering::Relaxed);
        ensure!(count > 0, "nobody was served");
        Ok(count)
    }
}

/// How much more memory the gateway holds than before, in bytes.
fn grown(gateway: &Palisade, before: u64) -> Result<u64> {
    Ok(gateway.process().memory()?.resident.saturating_sub(before))
}

const MIB: u64 = 1 << 20;
