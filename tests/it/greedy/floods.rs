//! Frames that are cheap to send and dear to serve. Threat 29.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use palisade_test::eventually;
use palisade_test::frames::kind::{CONTINUATION, DATA, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use palisade_test::frames::{ACK, END_HEADERS, END_STREAM, error, fields, frame};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::frames::{AUTHORITY, open, request};
use super::{MIB, Served, gateway, grown, upstream};
use crate::support::{SOON, written};

/// What one address may have by default.
const CONNECTIONS: usize = 100;

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

/// All at once, on as many connections as one address may have: others are served, and afterwards the memory is free again.
#[tokio::test]
async fn floods_on_every_connection_of_an_address() -> Result<()> {
    let upstream = upstream().await?;
    // Nothing is lifted but the rate of requests.
    let gateway = written(&upstream.url(), "[rate_limit]\ndefault = \"off\"\n").await?;
    gateway.https()?.get("/").send().await?;
    let before = gateway.process().memory()?.resident;
    let served = Served::beside(&gateway)?;
    let floods = floods();
    let mut attacks = JoinSet::new();
    let ready = Arc::new(Barrier::new(CONNECTIONS));
    for number in 0..CONNECTIONS {
        // One after the other: half of them may be in a handshake.
        let mut raw = open(&gateway, &[]).await.with_context(|| format!("connection {number}"))?;
        let (name, pieces) = {
            let (name, round) = &floods[number % floods.len()];
            // Made before, so that sending is all there is to do.
            let piece = |piece: u32| (piece * 250..(piece + 1) * 250).flat_map(round).collect::<Vec<u8>>();
            (*name, (0..20).map(piece).collect::<Vec<_>>())
        };
        let ready = Arc::clone(&ready);
        attacks.spawn(async move {
            // All of them are there before any begins.
            ready.wait().await;
            for piece in pieces {
                if raw.send(&piece).await.is_err() {
                    break;
                }
            }
            let error = raw.ended_with().await.with_context(|| name.to_owned())?;
            ensure!(error.is_none_or(|error| error == error::ENHANCE_YOUR_CALM), "{name}: {error:?}");
            Ok(())
        });
    }
    while let Some(ended) = attacks.join_next().await {
        ended??;
    }
    let low = async || grown(&gateway, before).is_ok_and(|grown| grown < 48 * MIB);
    eventually(SOON, "the memory is free again", low)
        .await
        .with_context(|| format!("{:?}", grown(&gateway, before)))?;
    served.all().await?;
    // Nothing of it stays counted: the address may come again, with as many.
    let again = async || open(&gateway, &[]).await.is_ok();
    eventually(SOON, "room for the address", again).await?;
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
