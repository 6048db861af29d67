//! Headers that only the gateway may say: whatever a client sends, in whatever spelling, the application gets the gateway's
//! value or nothing. Threats 5, 7 and 26.

use anyhow::{Result, ensure};
use palisade_test::frames::{END_HEADERS, END_STREAM, Ended, fields, frame, kind};
use palisade_test::wire::Message;

use super::{Field, ROUTES};
use crate::support::wires;

/// What the gateway says itself.
const OURS: [(&str, Option<&str>); 4] = [
    ("x-forwarded-for", Some("127.0.0.1")),
    ("x-forwarded-proto", None),
    ("x-forwarded-host", Some("localhost")),
    ("x-request-id", None),
];

/// What nobody may say to the application.
const NEVER: [&str; 33] = [
    "forwarded",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-scheme",
    "x-forwarded-user",
    "x-forwarded-name",
    "x-forwarded-email",
    "x-forwarded-roles",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-uri",
    "x-forwarded-method",
    "x-forwarded-client-cert",
    "x-script-name",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "palisade-assertion",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-rewrite-url",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "proxy",
    "proxy-authorization",
    "proxy-connection",
    "http2-settings",
];

/// A name in the spellings that some application folds into one.
fn spellings(name: &str) -> Vec<String> {
    let underscores = name.replace('-', "_");
    vec![
        name.to_owned(),
        name.to_uppercase(),
        underscores.clone(),
        underscores.to_uppercase(),
        name.replace('-', "."),
        name.replacen('-', "_", 1),
    ]
}

fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

fn check(what: &str, request: &Message) -> Result<()> {
    for (name, value) in OURS {
        let values: Vec<&str> = request
            .headers
            .iter()
            .filter(|(header, _)| folded(header) == name)
            .map(|(_, value)| value.as_str())
            .collect();
        ensure!(values.len() == 1, "{what}: {name} is {values:?}");
        ensure!(values[0] != "forged" && value.is_none_or(|value| values[0] == value), "{what}: {name} is {values:?}");
    }
    for (header, value) in &request.headers {
        ensure!(!NEVER.contains(&&*folded(header)), "{what}: {header}: {value} arrived");
        ensure!(!header.contains(['_', '.']), "{what}: {header} arrived");
    }
    ensure!(request.trailers.is_empty(), "{what}: {:?}", request.trailers);
    Ok(())
}

#[tokio::test]
async fn the_gateways_value_or_nothing() -> Result<()> {
    for field in Field::both(ROUTES).await? {
        for name in NEVER.iter().copied().chain(OURS.map(|(name, _)| name)) {
            for spelling in spellings(name) {
                for (way, mut wire) in wires(&field.gateway).await? {
                    let what = format!("{} {way} {spelling}", field.mode);
                    let twice = format!("{spelling}: forged\r\n{spelling}: forged");
                    let request = format!(
                        "POST /x HTTP/1.1\r\nHost: localhost\r\n{twice}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n{spelling}: forged\r\n\r\n"
                    );
                    let answer = wire.ask(request).await?;
                    ensure!(answer.status() == 200, "{what}: {} {}", answer.start, answer.text());
                    let reached = field.reached();
                    ensure!(reached.len() == 1, "{what}: {reached:?}");
                    check(&what, &reached[0])?;
                }
            }
            // Over HTTP/2 there is lower case alone.
            if name == "proxy-connection" {
                continue;
            }
            let mut frames = field.gateway.frames().await?;
            let head = [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", "localhost"),
                (":path", "/x"),
                (name, "forged"),
                (&*name.replace('-', "_"), "forged"),
                (name, "forged"),
            ];
            frames.send(frame(kind::HEADERS, END_HEADERS, 1, &fields(&head))).await?;
            frames.send(frame(kind::DATA, 0, 1, b"x")).await?;
            frames.send(frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[(name, "forged")]))).await?;
            let ended = frames.end_of(1).await?;
            ensure!(matches!(ended, Ended::Answer { status: 200, .. }), "{name}: {ended:?}");
            let reached = field.reached();
            ensure!(reached.len() == 1, "{name}: {reached:?}");
            check(&format!("{} h2 {name}", field.mode), &reached[0])?;
        }
    }
    Ok(())
}

/// Naming one of them in `Connection` would take the gateway's own value away.
#[tokio::test]
async fn connection_takes_nothing_away() -> Result<()> {
    for field in Field::both(ROUTES).await? {
        for name in ["X-Forwarded-For", "X-Forwarded-Proto", "X-Request-Id", "Host", "Authorization"] {
            for (way, mut wire) in wires(&field.gateway).await? {
                let answer =
                    wire.ask(format!("GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: {name}\r\n\r\n")).await?;
                ensure!(answer.status() == 400 && answer.json()?["code"] == "integrity.header", "{way} {name}");
                ensure!(field.reached().is_empty(), "{way} {name}");
            }
        }
    }
    Ok(())
}
