//! `palisade demo`: what it prints works when pasted, and nothing of it stays. It always keeps everything inside.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_test::{Need, Palisade, Process, need};

/// The lines it prints, each with the comment above it.
async fn lines(demo: &Palisade) -> Result<Vec<(String, String)>> {
    let last = demo.output().find(Duration::from_secs(10), "the end of what it prints", |line| {
        line.text.starts_with("Ctrl-C").then_some(())
    });
    last.await?;
    let printed: Vec<String> = demo.output().since(0).iter().map(|line| line.text.to_string()).collect();
    let command = |pair: &[String]| match pair {
        [comment, line] => Some((comment.strip_prefix("# ")?.to_owned(), line.clone())),
        _ => None,
    };
    Ok(printed.windows(2).filter_map(command).collect())
}

/// Runs a line as a shell does; what it printed, and the status of the answer.
async fn paste(line: &str) -> Result<String> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{line} --silent --show-error --write-out ' %{{http_code}}' --max-time 20"));
    let curl = Process::spawn(shell)?;
    let status = curl.wait(Duration::from_secs(30)).await?;
    curl.output().closed(Duration::from_secs(10)).await?;
    let text: Vec<String> = curl.output().since(0).iter().map(|line| line.text.to_string()).collect();
    ensure!(status.success(), "`{line}`: {status}: {text:?}");
    Ok(text.join("\n"))
}

#[tokio::test]
async fn every_line_it_prints_says_what_it_announces() -> Result<()> {
    need(Need::Curl)?;
    let demo = Palisade::demo().start().await?;
    let lines = lines(&demo).await?;
    let expected: [(&str, &str, &[&str]); 17] = [
        ("an account is made", "201", &["\"username\":\"ann\""]),
        ("it logs in: an access token for a quarter of an hour, and one to get the next", "200", &[]),
        ("a note is made", "201", &["\"title\":\"mine\""]),
        ("the next tokens; the old ones to get them are spent", "200", &[]),
        ("the first note is read", "200", &["\"title\":\"welcome\""]),
        ("refused: nobody is logged in", "401", &["auth.required"]),
        ("refused: not an administrator", "403", &["auth.forbidden"]),
        ("it logs in as a browser does, with a cookie", "200", &["\"user\":{"]),
        ("a key for a machine, good for reading notes and for nothing else", "201", &[]),
        ("the machine reads", "200", &["\"title\":\"welcome\""]),
        ("refused: the key may not write", "403", &["auth.forbidden"]),
        ("a file streams through, and is counted", "200", &["authority.txt", "\"bytes\":"]),
        ("what the gateway adds to every answer", "200", &["x-request-id: "]),
        ("refused: a file that is never served", "404", &["integrity.hidden_file"]),
        ("refused: two parsers could read this path differently", "400", &["integrity.path"]),
        ("refused: a method that no route names", "405", &["access.method"]),
        ("refused: more than the policy's 64 KiB", "413", &["limits.body"]),
    ];
    ensure!(lines.len() == expected.len(), "{lines:?}");
    for ((what, line), (announced, status, holds)) in lines.iter().zip(expected) {
        assert_eq!(what, announced);
        ensure!(!line.contains('|') && !line.contains(" && "), "one command each: {line}");
        let answer = paste(line).await?;
        ensure!(answer.ends_with(status), "{what}: {answer}");
        for text in holds {
            ensure!(answer.contains(text), "{what}: {answer}");
        }
    }
    Ok(())
}

/// Logs in with the password that is printed once; gives the cookie.
async fn log_in_as_admin(demo: &Palisade) -> Result<String> {
    let password = demo.output().find(Duration::from_secs(10), "the administrator's password", |line| {
        Some(line.text.split_once("admin, password ")?.1.trim().to_owned())
    });
    let body = serde_json::json!({ "username": "admin", "password": password.await? });
    let answer = demo.https()?.post("/auth/login").json(&body).send().await?;
    ensure!(answer.status() == 200, "{}", answer.status());
    let cookie = answer.all("set-cookie").into_iter().find(|cookie| cookie.starts_with("__Host-palisade="));
    Ok(cookie.and_then(|cookie| cookie.split(';').next()).context("no session")?.to_owned())
}

#[tokio::test]
async fn the_sample_api_works() -> Result<()> {
    let demo = Palisade::demo().start().await?;
    let client = demo.https()?;
    let session = log_in_as_admin(&demo).await?;
    let cookie = session.as_str();
    assert_eq!(client.get("/").send().await?.json().await?["message"], "Welcome to the sample API");
    let document = client.get("/openapi.json").send().await?.json().await?;
    assert_eq!(document["openapi"], "3.1.0");
    for page in ["/docs", "/form", "/static/about.html"] {
        let mut answer = client.get(page).send().await?;
        assert_eq!((answer.status(), answer.header("content-type")), (200, Some("text/html; charset=utf-8")), "{page}");
        ensure!(answer.text().await?.starts_with("<!doctype html>"), "{page}");
    }
    let made = client
        .post("/notes")
        .header("cookie", cookie)
        .header("sec-fetch-site", "same-origin")
        .json(&serde_json::json!({ "title": "t", "text": "x" }))
        .send()
        .await?;
    let location = made.header("location").context("no Location")?.to_owned();
    assert_eq!(
        client
            .get(&location)
            .header("cookie", cookie)
            .header("sec-fetch-site", "same-origin")
            .send()
            .await?
            .json()
            .await?["text"],
        "x"
    );
    assert_eq!(
        client
            .request(http::Method::DELETE, &location)
            .header("cookie", cookie)
            .header("sec-fetch-site", "same-origin")
            .send()
            .await?
            .status(),
        204
    );
    assert_eq!(
        client.get(&location).header("cookie", cookie).header("sec-fetch-site", "same-origin").send().await?.status(),
        404
    );
    for (body, status) in [("{\"title\":\"\"}", 422), ("{\"title\":\"t\",\"admin\":true}", 422), ("{", 400)] {
        let answer = client
            .post("/notes")
            .header("cookie", cookie)
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "application/json");
        let answer = answer.body(body).send().await?;
        assert_eq!(answer.status(), status, "{body}");
    }
    let form = client.post("/form").header("content-type", "application/x-www-form-urlencoded");
    let mut answer = form.body("title=%3Cscript%3E&text=").send().await?;
    assert_eq!(answer.status(), 201);
    let text = answer.text().await?;
    ensure!(text.contains("&lt;script&gt;") && !text.contains("<script>"), "{text}");
    let body = palisade_test::Body::chunked("x", 5 << 20);
    let counted = client
        .request(http::Method::PUT, "/uploads/large")
        .header("cookie", cookie)
        .header("sec-fetch-site", "same-origin")
        .body(body)
        .send()
        .await?
        .json()
        .await?;
    assert_eq!(counted["bytes"], 5 << 20);
    // Plain http is for loopback, and the same API.
    assert_eq!(demo.http()?.get("/static/about.html").send().await?.status(), 200);
    let deleted = client
        .request(http::Method::DELETE, "/admin/users/7")
        .header("cookie", cookie)
        .header("sec-fetch-site", "same-origin")
        .send()
        .await?;
    assert_eq!(deleted.status(), 200);
    Ok(())
}

#[tokio::test]
async fn it_is_on_loopback_and_leaves_nothing() -> Result<()> {
    // What is set for a server does not open a demo.
    let setup =
        Palisade::demo().env("PALISADE__SERVER__HOSTS", "[\"*\"]").env("PALISADE__SERVER__PROBES", "\"0.0.0.0:0\"");
    let demo = setup.start().await?;
    let listening = demo.log().into_iter().filter(|line| line["event"] == "server.listening");
    let addresses: Vec<String> = listening.filter_map(|line| Some(line["address"].as_str()?.to_owned())).collect();
    ensure!(addresses.len() >= 2 && addresses.iter().all(|address| address.starts_with("127.0.0.1:")), "{addresses:?}");
    let mut foreign = demo.https()?.get("/").header("host", "api.example.com").send().await?;
    ensure!(foreign.status() >= 400, "{}", foreign.text().await?);
    assert!(demo.ca()?.is_file());
    assert_eq!(demo.interrupt().await?.code(), Some(0));
    let left: Vec<_> = std::fs::read_dir(demo.directory().join("tmp"))?.flatten().map(|entry| entry.path()).collect();
    ensure!(left.is_empty(), "{left:?}");
    ensure!(!demo.directory().join(".palisade").exists(), "its state is not a server's");
    Ok(())
}

#[tokio::test]
async fn a_taken_port_names_its_owner_and_the_flag() -> Result<()> {
    let demo = Palisade::demo().start().await?;
    let port = demo.address("https")?.port().to_string();
    // The later of two equal flags would be an error of usage, so this one is started by hand.
    let ran = demo.run(&["demo", "--https-port", &port, "--http-port", "0", "--admin-port", "0"]).await?;
    assert_eq!(ran.code, Some(1));
    ensure!(ran.err.contains("is taken by `palisade`") && ran.err.contains("--https-port"), "{}", ran.err);
    let ran = demo.run(&["--policy", "palisade.toml", "demo"]).await?;
    ensure!(ran.code == Some(2) && ran.err.contains("palisade serve --policy"), "{}", ran.err);
    Ok(())
}
