//! Frames that are cheap to send and dear to serve. Threat 29.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use palisade_test::frames::kind::{CONTINUATION, DATA, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use palisade_test::frames::{ACK, END_HEADERS, END_STREAM, Frame, error, fields, frame};
use palisade_test::{Frames, Palisade, Wire, eventually, tls};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::frames::{AUTHORITY, open, open_from, request};
use super::{MIB, PATIENCE, Served, gateway, grown, upstream};
use crate::support::{heavy, open_files, written};

/// All of them at once.
const CONNECTIONS: usize = 1000;
/// What one address may have by default.
const PER_ADDRESS: usize = 100;
/// Requests on a connection that opens no window, and on one that reads nothing.
const SHUT: u32 = 20;
const DEAF: u32 = 2;
/// Of streams, at first (RFC 9113 §6.5.2).
const CLOSED_WINDOW: &[(u16, u32)] = &[(4, 0)];

/// The frames of one round, and how often it is sent at most.
type Round = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

fn round(of: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Round {
    Box::new(of)
}

fn odd(number: u32) -> u32 {
    2 * number + 1
}

fn floods() -> Vec<(&'static str, Round)> {
    vec![
        ("ping", round(|_| frame(PING, 0, 0, &[7; 8]))),
        ("answers to no ping", round(|_| frame(PING, ACK, 0, &[7; 8]))),
        ("settings", round(|_| frame(SETTINGS, 0, 0, &[]))),
        ("settings that move every window", round(|number| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, number as u8]))),
        ("priority", round(|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]))),
        ("frames of no known kind", round(|_| frame(0xee, 0, 0, &[0; 16]))),
        ("windows byte by byte", round(|_| frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()))),
        (
            "empty pieces of a body",
            round(|number| match number {
                0 => request(1, 0, "POST", "/"),
                _ => frame(DATA, 0, 1, &[]),
            }),
        ),
        (
            "streams that are begun and given up",
            round(|number| {
                [request(odd(number), END_STREAM, "GET", "/"), frame(RST_STREAM, 0, odd(number), &8u32.to_be_bytes())]
                    .concat()
            }),
        ),
        (
            "streams that the server is made to give up",
            // A window that grows too large is an error of the stream (RFC 9113 §6.9.1).
            round(|number| {
                [
                    request(odd(number), 0, "POST", "/"),
                    frame(WINDOW_UPDATE, 0, odd(number), &0x7fff_ffffu32.to_be_bytes()),
                ]
                .concat()
            }),
        ),
        (
            "a head without an end",
            round(|number| match number {
                0 => frame(HEADERS, END_STREAM, 1, &fields(&[(":method", "GET")])),
                _ => frame(CONTINUATION, 0, 1, &fields(&[("x-more", "more")])),
            }),
        ),
        (
            "a head of empty pieces",
            round(|number| match number {
                0 => frame(HEADERS, END_STREAM, 1, &fields(&[(":method", "GET")])),
                _ => frame(CONTINUATION, 0, 1, &[]),
            }),
        ),
    ]
}

/// A request of many fields that are written in one byte each: an entry of the table that both sides keep (RFC 7541 §2.3.2),
/// made by the first of them, and then a byte for each time that it is meant.
fn growing(number: u32, value: usize, times: usize) -> Vec<u8> {
    let mut head = [&[0x82, 0x87, 0x84][..], &fields(&[(":authority", AUTHORITY)])].concat();
    if number == 0 {
        // A literal that becomes an entry, written as one that does not.
        let mut entry = fields(&[("x", vec![b'y'; value])]);
        entry[0] = 0x40;
        head.extend(entry);
    }
    head.extend(vec![0xbe; times]);
    frame(HEADERS, END_STREAM | END_HEADERS, odd(number), &head)
}

/// One that is nearly the whole table, four thousand times.
fn bomb(number: u32) -> Vec<u8> {
    growing(number, 4000, 4000)
}

#[tokio::test]
async fn each_flood_ends_its_connection_and_nobody_else_s() -> Result<()> {
    let upstream = upstream().await?;
    let gateway = gateway(&upstream, "").await?;
    gateway.https()?.get("/").send().await?;
    let before = gateway.process().memory()?.resident;
    let served = Served::beside(&gateway)?;
    for (name, round) in floods() {
        let mut raw = open(&gateway, &[]).await?;
        // In large pieces, and more than anybody needs; the server may close in the middle of them.
        for piece in 0..20 {
            let bytes: Vec<u8> = (piece * 250..(piece + 1) * 250).flat_map(&round).collect();
            if raw.send(&bytes).await.is_err() {
                break;
            }
        }
        let error = raw.ended_with().await.with_context(|| name.to_owned())?;
        ensure!(error == Some(error::ENHANCE_YOUR_CALM), "{name}: {error:?}");
    }
    let grown = grown(&gateway, before)?;
    ensure!(grown < 64 * MIB, "{grown} bytes more");
    served.all().await?;
    let said = gateway.log().into_iter().filter(|line| line["code"] == "limits.frames").count();
    ensure!(said == floods().len(), "{said} floods in the log");
    Ok(())
}

/// What a connection is used for.
enum Attack {
    /// Frames, until it is ended for them.
    Flood(Round),
    /// Requests under these settings, of whose answers nothing is taken: until the gateway has had enough.
    Untaken(&'static [(u16, u32)], Vec<u8>),
    /// The beginning of a handshake that does not go on.
    HalfHandshake,
}

fn attacks() -> Vec<(&'static str, Attack)> {
    let mut attacks: Vec<_> = floods().into_iter().map(|(name, round)| (name, Attack::Flood(round))).collect();
    let requests = |count: u32, path: &'static str| {
        (0..count).flat_map(|number| request(odd(number), END_STREAM, "GET", path)).collect::<Vec<u8>>()
    };
    let window = frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000u32.to_be_bytes());
    attacks.extend([
        ("heads that grow", Attack::Flood(round(bomb))),
        ("windows of zero", Attack::Untaken(CLOSED_WINDOW, requests(SHUT, "/"))),
        // What is not read lies with the application too, in memory of the system's: few, so that a machine has enough.
        ("readers that never read", Attack::Untaken(&[(4, 0x7fff_ffff)], [window, requests(DEAF, "/large")].concat())),
        ("half handshakes", Attack::HalfHandshake),
    ]);
    attacks
}

/// Does it, and waits until it is over. Gives the connection of one that reads nothing, whose end it cannot see.
async fn attack(gateway: &Palisade, opened: Option<Frames>, from: IpAddr, attack: &Attack) -> Result<Option<Frames>> {
    if matches!(attack, Attack::HalfHandshake) {
        let mut wire = Wire::over(tls::plain_from(Some(from), gateway.address("https")?).await?);
        wire.send(&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..]).await?;
        wire.closed(PATIENCE).await?;
        return Ok(None);
    }
    let mut raw = opened.context("not opened")?;
    match attack {
        Attack::Flood(round) => {
            for piece in 0..20 {
                let bytes: Vec<u8> = (piece * 250..(piece + 1) * 250).flat_map(round).collect();
                if raw.send(&bytes).await.is_err() {
                    break;
                }
            }
            let error = raw.ended_with().await?;
            ensure!(error.is_none_or(|error| error == error::ENHANCE_YOUR_CALM), "{error:?}");
            Ok(None)
        }
        Attack::Untaken(settings, requests) => {
            raw.send(requests).await?;
            if *settings != CLOSED_WINDOW {
                return Ok(Some(raw));
            }
            for _ in 0..SHUT {
                let given_up = |frame: &Frame| frame.kind == RST_STREAM && frame.error() == Some(error::CANCEL);
                raw.until("a reset", given_up).await?;
            }
            Ok(None)
        }
        Attack::HalfHandshake => Ok(None),
    }
}

/// Descriptors that a process has open.
fn descriptors(gateway: &Palisade) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", gateway.process().id()))?.count())
}

/// All at once, a thousand connections of ten addresses that have as many as each may have: others are served meanwhile,
/// and afterwards nothing is left of it.
///
/// Afterwards stands for five minutes later: whatever the gateway still keeps of a connection that is gone has a time, and
/// here each of these is some seconds (a head, an answer that nobody takes, a connection to the application that nobody
/// uses). Once no connection, no request, no descriptor is left, there is nothing that time would change.
#[tokio::test]
async fn a_thousand_floods_at_once_leave_nothing_behind() -> Result<()> {
    let _alone = heavy().await;
    let connections = usize::try_from(open_files(8 * CONNECTIONS as u64)? / 8)?.min(CONNECTIONS);
    if connections < CONNECTIONS {
        palisade_test::shell::say(&format!("{connections} connections, for want of descriptors (`ulimit -Hn`)"));
    }
    let upstream = upstream().await?;
    // Unoptimised, a thousand strangers take seconds to have a turn each.
    let times = "head_time = \"30s\"\nanswer_time = \"5s\"\n";
    let policy = format!("[rate_limit]\ndefault = \"off\"\n\n[limits]\n{times}");
    let (gateway, attacks) = (Arc::new(written(&upstream.url(), &policy).await?), Arc::new(attacks()));
    gateway.https()?.get("/").send().await?;
    let status = async || gateway.run(&["status", "--json"]).await?.json();
    // Once, so that what it needs is there.
    status().await?;
    let (before, open_before) = (gateway.process().memory()?.resident, descriptors(&gateway)?);
    let served = Served::beside(&gateway)?;
    let ready = Arc::new(Barrier::new(connections));
    let mut running = JoinSet::new();
    for address in 0..connections.div_ceil(PER_ADDRESS) {
        let (gateway, attacks, ready) = (Arc::clone(&gateway), Arc::clone(&attacks), Arc::clone(&ready));
        let numbers = address * PER_ADDRESS..((address + 1) * PER_ADDRESS).min(connections);
        running.spawn(async move {
            let from = IpAddr::from([127, 0, 1, u8::try_from(address)?]);
            let mut own = JoinSet::new();
            for number in numbers {
                // One after the other: half of those of an address may be in a handshake.
                let opened = match &attacks[number % attacks.len()] {
                    (_, Attack::HalfHandshake) => None,
                    (_, Attack::Untaken(settings, _)) => Some(open_from(&gateway, from, settings).await),
                    (_, Attack::Flood(_)) => Some(open_from(&gateway, from, &[]).await),
                };
                let opened = opened.transpose().with_context(|| format!("connection {number}"))?;
                let (gateway, attacks, ready) = (Arc::clone(&gateway), Arc::clone(&attacks), Arc::clone(&ready));
                own.spawn(async move {
                    // All of them are there before any begins.
                    ready.wait().await;
                    let (name, this) = &attacks[number % attacks.len()];
                    attack(&gateway, opened, from, this).await.with_context(|| (*name).to_owned())
                });
            }
            let mut held = Vec::new();
            while let Some(ended) = own.join_next().await {
                held.extend(ended??);
            }
            anyhow::Ok(held)
        });
    }
    let mut held = Vec::new();
    while let Some(ended) = running.join_next().await {
        held.extend(ended??);
    }
    // Whoever reads nothing is given up as well. One or two are those who are served.
    let in_progress = async || anyhow::Ok(status().await?["in_progress"]["requests"].as_u64());
    let given_up = async || in_progress().await.is_ok_and(|left| left.is_some_and(|left| left <= 2));
    eventually(PATIENCE, "no answer waits for anybody", given_up).await?;
    drop(held);
    let count = served.all().await?;
    let most = gateway.process().memory()?.peak.saturating_sub(before);
    palisade_test::shell::say(&format!("{count} others served, {} MiB more at most", most / MIB));
    // A TLS connection at rest has some 50 KiB, and those that never read the mebibyte that may be unwritten.
    ensure!(most < 512 * MIB, "{} MiB more at most", most / MIB);
    let gone = async || {
        let now = status().await?;
        let left = [&now["connections"]["open"], &now["in_progress"]["requests"], &now["in_progress"]["descriptors"]];
        ensure!(left.iter().all(|left| **left == 0), "{left:?} are left");
        let open = descriptors(&gateway)?;
        ensure!(open <= open_before + 8, "{open} descriptors, {open_before} before");
        anyhow::Ok(())
    };
    eventually(PATIENCE, "nothing of it is left", async || gone().await.is_ok())
        .await
        .with_context(|| gateway.output().tail())?;
    let low = async || grown(&gateway, before).is_ok_and(|grown| grown < 96 * MIB);
    eventually(PATIENCE, "the memory is free again", low)
        .await
        .with_context(|| format!("{:?}", grown(&gateway, before)))?;
    // Nothing of it stays counted: an address may come again, with as many.
    open_from(&gateway, IpAddr::from([127, 0, 1, 0]), &[]).await?;
    Ok(())
}

#[tokio::test]
async fn what_a_busy_client_sends_is_no_flood() -> Result<()> {
    let upstream = upstream().await?;
    let gateway = gateway(&upstream, "").await?;
    let mut raw = open(&gateway, &[]).await?;
    for number in 0..2000 {
        let stream = odd(number);
        let mut bytes = request(stream, END_STREAM, "GET", "/");
        bytes.extend(frame(PING, 0, 0, &[7; 8]));
        bytes.extend(frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 9]));
        bytes.extend(frame(WINDOW_UPDATE, 0, 0, &5u32.to_be_bytes()));
        raw.send(&bytes).await?;
        raw.until("an answer", |frame| frame.stream == stream && frame.flags & END_STREAM != 0 && frame.kind == DATA)
            .await
            .with_context(|| format!("request {number}"))?;
    }
    // Half of what it asks for it gives up again, as a search box does.
    for number in 2000..2400 {
        let stream = odd(number);
        raw.send(&request(stream, END_STREAM, "GET", "/")).await?;
        if number % 3 == 0 {
            raw.send(&frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())).await?;
        } else {
            raw.until("an answer", |frame| frame.stream == stream && frame.flags & END_STREAM != 0).await?;
        }
    }
    Ok(())
}

/// CVE-2023-44487: what a client begins and gives up costs the application nothing, not even a connection.
#[tokio::test]
async fn what_is_given_up_as_it_is_begun_reaches_nobody() -> Result<()> {
    let upstream = upstream().await?;
    let gateway = gateway(&upstream, "").await?;
    let mut raw = open(&gateway, &[]).await?;
    for round in 0..3 {
        let first = round * 20;
        let bytes: Vec<u8> = (first..first + 15)
            .flat_map(|number| {
                let stream = odd(number);
                [request(stream, END_STREAM, "GET", "/given-up"), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())]
            })
            .flatten()
            .collect();
        raw.send(&bytes).await?;
        // On a connection that has nothing to show yet, and on one that had answers.
        let stream = odd(first + 15);
        raw.send(&request(stream, END_STREAM, "GET", "/kept")).await?;
        raw.until("an answer", |frame| frame.stream == stream && frame.flags & END_STREAM != 0).await?;
    }
    let arrived: Vec<String> = upstream.requests().iter().map(|request| request.target().to_owned()).collect();
    ensure!(arrived == ["/kept"; 3], "{arrived:?}");
    Ok(())
}

#[tokio::test]
async fn heads_that_grow_when_they_are_read_are_refused() -> Result<()> {
    let upstream = upstream().await?;
    let gateway = gateway(&upstream, "").await?;
    gateway.https()?.get("/").send().await?;
    let before = gateway.process().memory()?.resident;
    let served = Served::beside(&gateway)?;
    let mut raws = Vec::new();
    for _ in 0..20 {
        let mut raw = open(&gateway, &[]).await?;
        let mut bytes = Vec::new();
        for number in 0..100 {
            // An entry of nearly the whole table (RFC 7541 §2.3.2), and then a byte for each time it is meant.
            let mut head = match number {
                0 => [&[0x40, 1, b'x', 127, 0xa1, 0x1e][..], &[b'y'; 4000]].concat(),
                _ => Vec::new(),
            };
            head.splice(0..0, [&[0x82, 0x87, 0x84][..], &fields(&[(":authority", AUTHORITY)])].concat());
            head.extend(vec![0xbe; 4000]);
            bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, odd(number), &head));
        }
        let _ = raw.send(&bytes).await;
        raws.push(raw);
    }
    for raw in &mut raws {
        let error = raw.ended_with().await?;
        ensure!(error == Some(error::ENHANCE_YOUR_CALM), "{error:?}");
    }
    let grown = grown(&gateway, before)?;
    ensure!(grown < 96 * MIB, "{grown} bytes more");
    ensure!(upstream.requests().iter().all(|request| request.header("x").is_none()), "a bomb arrived");
    served.all().await?;
    Ok(())
}

/// Each of these heads is small enough to be read, and has so many fields that it takes a hundred kilobytes in memory: a
/// hundred of them come in the same moment on each of fifty connections.
#[tokio::test]
async fn heads_of_many_small_fields_are_read_a_few_at_a_time() -> Result<()> {
    let upstream = upstream().await?;
    let gateway = gateway(&upstream, "").await?;
    gateway.https()?.get("/").send().await?;
    let before = gateway.process().memory()?.resident;
    let served = Served::beside(&gateway)?;
    let bytes: Vec<u8> = (0..100).flat_map(|number| growing(number, 30, 1020)).collect();
    let mut raws = Vec::new();
    for _ in 0..50 {
        raws.push(open(&gateway, &[]).await?);
    }
    let mut sending = JoinSet::new();
    for mut raw in raws {
        let bytes = bytes.clone();
        sending.spawn(async move {
            raw.send(&bytes).await?;
            for _ in 0..100 {
                let head = raw.until("an answer", |frame| frame.kind == HEADERS).await?;
                ensure!(head.payload.first() != Some(&0x88), "one was passed on");
            }
            Ok(())
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    let most = gateway.process().memory()?.peak.saturating_sub(before);
    palisade_test::shell::say(&format!("heads of five million fields: {} MiB more at most", most / MIB));
    ensure!(most < 160 * MIB, "{} MiB more at most", most / MIB);
    ensure!(upstream.requests().iter().all(|request| request.header("x").is_none()), "one arrived");
    served.all().await?;
    Ok(())
}
