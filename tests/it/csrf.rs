//! A form posted by a real page passes, and a cross-site one does not: in Chromium.

use anyhow::{Result, ensure};
use palisade_test::upstream::Reply;
use palisade_test::{Palisade, Upstream, browser};
use serde_json::{Value, json};

/// An application whose cookie comes with requests of other sites too, as those of before 2020 all did.
async fn bank() -> Result<Upstream> {
    Upstream::answering(|request| {
        let body = match request.target() {
            "/" => {
                r#"<!doctype html><title>bank</title>
                <form method=post action=/transfer><input name=to value=me><button id=own>send</button></form>
                <form method=post action=/transfer enctype=multipart/form-data><input type=file name=f>
                <button id=multipart>send</button></form>"#
            }
            _ => "<!doctype html><title>done</title>done",
        };
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
             Set-Cookie: sid=bob; Path=/; Secure; HttpOnly; SameSite=None\r\n\r\n{body}",
            body.len()
        ))
    })
    .await
}

/// A site that makes its visitors' browsers post to the bank.
async fn other_site(bank: String) -> Result<Upstream> {
    Upstream::answering(move |request| {
        let forms = format!(
            "<form method=post action={bank}/transfer><input name=to value=evil><button id=form>win</button></form>\
             <form method=post action={bank}/transfer enctype=text/plain><input name=to value=evil>\
             <button id=plain>win</button></form>"
        );
        let (more, body) = match request.target() {
            "/quiet" => ("Referrer-Policy: no-referrer\r\n", forms),
            "/sandboxed" => ("Content-Security-Policy: sandbox allow-forms allow-scripts\r\n", forms),
            _ => ("", forms),
        };
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{more}Content-Length: {}\r\n\r\n<!doctype html>{body}",
            body.len() + "<!doctype html>".len()
        ))
    })
    .await
}

/// What the browser was answered, and what it had said of each request that arrived: `Sec-Fetch-Site`, in their order.
async fn visit(mode: &str) -> Result<(Value, Vec<String>)> {
    let bank = bank().await?;
    let policy = format!(
        "[server]\nmode = \"development\"\nhosts = [\"bank.localhost\", \"localhost\"]\n\n[upstream]\nurl = \"{}\"\n\n\
         [csrf]\nmode = \"{mode}\"\n",
        bank.url()
    );
    let gateway = Palisade::serve().policy(&policy).start().await?;
    let url = format!("https://bank.localhost:{}", gateway.address("https")?.port());
    let other = other_site(url.clone()).await?;
    let elsewhere = format!("http://evil.localhost:{}", other.address().port());
    let seen = browser::run("csrf.mjs", &[&url, &elsewhere]).await?;
    let posted = bank.requests();
    let posted = posted.iter().filter(|request| request.method() == "POST");
    let sites = posted.map(|request| request.header("sec-fetch-site").unwrap_or("not said").to_owned()).collect();
    Ok((seen, sites))
}

/// Every way of the other site's, with what it said of itself.
const FORGED: [&str; 4] = ["form", "plain", "no_referrer", "sandbox"];

#[tokio::test]
async fn own_forms_pass_and_those_of_another_site_do_not() -> Result<()> {
    let (seen, arrived) = visit("block").await?;
    ensure!(seen["error"].is_null(), "{seen}");
    for own in ["own", "multipart", "again"] {
        assert_eq!(seen[own]["status"], 200, "{own}: {seen}");
    }
    for forged in FORGED {
        assert_eq!(
            (&seen[forged]["status"], &seen[forged]["code"]),
            (&json!(403), &json!("csrf.origin")),
            "{forged}: {seen}"
        );
    }
    assert_eq!(arrived, ["same-origin"; 3], "nothing of the other site's reached the application: {seen}");
    Ok(())
}

/// The same without the control: the attack works, so that the test above shows something.
#[tokio::test]
async fn without_it_they_arrive_with_the_cookie() -> Result<()> {
    let (seen, arrived) = visit("detect").await?;
    ensure!(seen["error"].is_null(), "{seen}");
    for forged in FORGED {
        let it = &seen[forged];
        assert_eq!(it["status"], 200, "{forged}: {seen}");
        ensure!(it["cookie"].as_str().is_some_and(|cookie| cookie.contains("sid=bob")), "{forged}: {seen}");
    }
    let foreign = arrived.iter().filter(|site| *site == "cross-site").count();
    assert_eq!((arrived.len(), foreign), (3 + FORGED.len(), FORGED.len()), "{arrived:?}");
    Ok(())
}
