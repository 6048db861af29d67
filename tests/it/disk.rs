//! A database on a disk that is full, or that may not be written to: clear errors, and nothing is lost.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use palisade_test::upstream::Reply;
use palisade_test::{Client, Palisade, Upstream, eventually};
use serde_json::json;

use crate::support::{SOON, lacks_root, written_policy};

const PASSWORD: &str = "vier alte Kutschen im Nebel";

/// Runs the binary with a file system of its own under `db`: a small one, or the directory that cannot be written to.
const WRAPPER: &str = r#"#!/bin/sh
set -eu
mkdir -p db
exec unshare --mount sh -c '@MOUNT@ && exec "$@"' sh "@BINARY@" "$@"
"#;
const SMALL: &str = "mount -t tmpfs -o size=8m tmpfs db";
const READ_ONLY: &str = "mount --bind db db && mount -o remount,bind,ro db";

fn wrapper(folder: &tempfile::TempDir, mount: &str) -> Result<PathBuf> {
    let wrapper = folder.path().join("palisade");
    let binary = palisade_test::paths::binary()?;
    let text = WRAPPER.replace("@MOUNT@", mount).replace("@BINARY@", &binary.to_string_lossy());
    std::fs::write(&wrapper, text)?;
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
    Ok(wrapper)
}

fn policy(upstream: &Upstream) -> String {
    written_policy(&upstream.url(), "[auth]\nregistration = \"open\"\n[database]\nurl = \"sqlite:db/palisade.db\"\n")
}

async fn register(client: &Client, name: &str) -> Result<(u16, String)> {
    let body = json!({ "username": name, "email": format!("{name}@example.com"), "password": PASSWORD });
    let mut answer = client.post("/auth/register").json(&body).send().await?;
    Ok((answer.status(), answer.text().await?))
}

async fn token(client: &Client, name: &str) -> Result<(u16, String)> {
    let body = format!("grant_type=password&username={name}&password={}", PASSWORD.replace(' ', "+"));
    let request = client.post("/auth/token").header("content-type", "application/x-www-form-urlencoded").body(body);
    let mut answer = request.send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    let token = serde_json::from_str(&text)
        .ok()
        .and_then(|body: serde_json::Value| body["access_token"].as_str().map(|token| format!("Bearer {token}")));
    Ok((status, token.unwrap_or(text)))
}

async fn uses(client: &Client, token: &str) -> Result<u16> {
    Ok(client.get("/x").header("authorization", token).send().await?.status())
}

/// A line of the log whose `reason` says this.
async fn said(gateway: &Palisade, reason: &str) -> Result<()> {
    let says = |line: &serde_json::Value| line["reason"].as_str().is_some_and(|text| text.contains(reason));
    eventually(SOON, reason, async || gateway.log().iter().any(says)).await.map(drop)
}

#[tokio::test]
async fn a_full_disk_is_said_and_loses_nothing() -> Result<()> {
    if lacks_root("mount") {
        return Ok(());
    }
    let upstream = Upstream::answering(|_| Reply::text("hello")).await?;
    let folder = tempfile::tempdir()?;
    let gateway = Palisade::serve().binary(&wrapper(&folder, SMALL)?).policy(&policy(&upstream)).start().await?;
    let client = gateway.https()?;
    ensure!(register(&client, "ann").await?.0 == 201);
    let (status, before) = token(&client, "ann").await?;
    ensure!(status == 200 && uses(&client, &before).await? == 200, "{before}");

    // The gateway's own view of its files.
    let inside = PathBuf::from(format!("/proc/{}/root", gateway.process().id()));
    let directory = gateway.directory().strip_prefix("/").context("an absolute path")?;
    let filler = inside.join(directory).join("db/filler");
    let mut file = File::create(&filler)?;
    let piece = [0; 512];
    while file.write_all(&piece).is_ok() {}
    drop(file);
    let mut registered = Vec::new();
    let refused = loop {
        let name = format!("user{}", registered.len());
        match register(&client, &name).await? {
            (201, _) => registered.push(name),
            refused => break refused,
        }
        ensure!(registered.len() < 500, "it is never full");
    };
    ensure!(refused.0 == 503 && refused.1.contains("auth.away"), "{refused:?}");
    ensure!(!refused.1.contains("disk"), "what it is, is the operator's to know: {}", refused.1);
    said(&gateway, "the database's disk is full: make room").await?;
    ensure!(uses(&client, &before).await? == 200, "reading goes on");

    std::fs::remove_file(&filler)?;
    let room = async || register(&client, "last").await.is_ok_and(|(status, _)| status == 201);
    eventually(SOON, "there is room again", room).await?;
    for name in registered.iter().map(String::as_str).chain(["ann", "last"]) {
        let (status, said) = token(&client, name).await?;
        ensure!(status == 200, "{name}, who was acknowledged: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_read_only_database_is_said() -> Result<()> {
    if lacks_root("mount") {
        return Ok(());
    }
    let upstream = Upstream::answering(|_| Reply::text("hello")).await?;
    let folder = tempfile::tempdir()?;
    let policy = policy(&upstream);
    let before = Palisade::serve().policy(&policy).file("db/keep", "").start().await?;
    let client = before.https()?;
    ensure!(register(&client, "ann").await?.0 == 201);
    ensure!(before.terminate().await?.success());

    let again = Palisade::serve().after(&before).binary(&wrapper(&folder, READ_ONLY)?).policy(&policy).start().await?;
    let client = again.https()?;
    let (status, text) = token(&client, "ann").await?;
    ensure!(status == 503, "{status} {text}");
    said(&again, "the database is read-only: check the rights").await?;
    ensure!(again.terminate().await?.success());

    let writable = Palisade::serve().after(&before).policy(&policy).start().await?;
    let client = writable.https()?;
    let (status, said) = token(&client, "ann").await?;
    ensure!(status == 200, "all is there: {said}");
    Ok(())
}
