//! Mail: the real binary, and a real mail server.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_test::ca::Authority;
use palisade_test::kept::Kept;
use palisade_test::python::App;
use palisade_test::{Client, on_both};
use serde_json::{Value, json};

use crate::support::SOON;

const PASSWORD: &str = "vier alte Kutschen im Nebel";

/// The next mail to an address that the server takes, from a position of its output on.
async fn received(app: &App, to: &str) -> Result<Value> {
    let find = |line: &palisade_test::Line| {
        let mail: Value = serde_json::from_str(line.text.strip_prefix("mail ")?).ok()?;
        (mail["to"][0] == to).then_some(mail)
    };
    app.process().output().find(SOON, "a mail", find).await
}

/// The link of a mail, and its token.
fn link(mail: &Value) -> Result<(String, String)> {
    let text = mail["content"].as_str().context("no text")?.replace("=\r\n", "").replace("=3D", "=");
    let link = text.lines().find(|line| line.starts_with("https://")).context("no link")?;
    let token = link.split_once("?token=").context("no token")?.1;
    Ok((link.to_owned(), token.to_owned()))
}

async fn post(client: &Client, path: &str, body: Value) -> Result<(u16, String)> {
    let mut answer = client.post(path).json(&body).send().await?;
    Ok((answer.status(), answer.text().await?))
}

/// Without what is of one request alone.
fn same(mut answer: (u16, String)) -> (u16, String) {
    if let Ok(mut value) = serde_json::from_str::<Value>(&answer.1)
        && value.get_mut("request_id").map(|id| *id = Value::Null).is_some()
    {
        answer.1 = value.to_string();
    }
    answer
}

on_both!(
    links_come_through_a_server_that_wants_starttls_and_a_login,
    mail_waits_for_a_server_that_is_away_and_for_the_end_of_the_process,
    what_is_not_sent_is_said,
    in_development_mail_is_files_whose_place_is_told,
);

async fn links_come_through_a_server_that_wants_starttls_and_a_login(kept: Kept) -> Result<()> {
    let authority = Authority::new("mail")?;
    let files = tempfile::tempdir()?;
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    authority.server(&["localhost"])?.write(&cert, &key)?;
    let (cert, key) = (cert.to_string_lossy(), key.to_string_lossy());
    let server = App::smtp(&["--tls", "starttls", "--cert", &cert, "--key", &key, "--password", "s3cret"]).await?;
    let more = format!(
        "[auth]\nissuer = \"https://api.example.com\"\nregistration = \"verified\"\n\
         [mail]\nserver = \"smtp+starttls://localhost:{}\"\nca = \"ca.pem\"\nuser = \"palisade\"\n\
         password = {{ secret = \"mail-password\" }}\nfrom = \"no-reply@example.com\"\nname = \"Example, Inc.\"\n\
         templates = \"texts\"\n",
        server.address().port()
    );
    let text = "Subject: Willkommen bei {{ service }}\n\nBitte hier: \n{{ link }}\n";
    let gateway = kept
        .setup("http://127.0.0.1:9", &more)
        .file("ca.pem", authority.pem())
        .file("texts/verification.txt", text)
        .secret("mail-password", "s3cret")
        .start()
        .await?;
    let ready = gateway.event("mail.ready", |_| true).await?;
    ensure!(ready["transport"] == "smtp" && ready["target"].as_str().is_some_and(|to| !to.contains("s3cret")));

    let client = gateway.https()?;
    let account = json!({ "username": "ann", "email": "ann@example.com", "password": PASSWORD });
    let first = post(&client, "/auth/register", account.clone()).await?;
    assert_eq!(first.0, 202);
    let mail = received(&server, "ann@example.com").await?;
    ensure!(mail["tls"] == true && mail["from"] == "no-reply@example.com", "{mail}");
    let content = mail["content"].as_str().unwrap_or_default();
    ensure!(content.contains("Willkommen") && !content.contains("text/html"), "the text that replaced ours: {content}");
    let (url, token) = link(&mail)?;
    ensure!(url.starts_with("https://api.example.com/auth/email/verify?token=palv_"), "{url}");

    // Until the link is opened the account is as good as none, and the answer that to anybody else.
    let log_in = json!({ "username": "ann", "password": PASSWORD });
    let nobody = json!({ "username": "nobody", "password": PASSWORD });
    let (pending, unknown) =
        (post(&client, "/auth/login", log_in.clone()).await?, post(&client, "/auth/login", nobody).await?);
    assert_eq!((pending.0, same(pending)), (401, same(unknown)));
    assert_eq!(post(&client, "/auth/register", account).await?, first, "taken: the same bytes");
    let verify = json!({ "token": token });
    assert_eq!(post(&client, "/auth/email/verify", verify.clone()).await?.0, 204);
    let (status, again) = post(&client, "/auth/email/verify", verify).await?;
    ensure!(status == 400 && again.contains("auth.link"), "once: {again}");
    assert_eq!(post(&client, "/auth/login", log_in.clone()).await?.0, 200);

    // A password that is forgotten, whatever host the request names.
    let ask = |email: &'static str| {
        let client = &client;
        async move {
            let request = client.post("/auth/password/reset").header("x-forwarded-host", "evil.example");
            let mut answer = request.json(&json!({ "email": email })).send().await?;
            anyhow::Ok((answer.status(), answer.text().await?))
        }
    };
    let (known, unknown) = (ask("ann@example.com").await?, ask("nobody@example.com").await?);
    assert_eq!(known, unknown);
    let find = |line: &palisade_test::Line| {
        let mail: Value = serde_json::from_str(line.text.strip_prefix("mail ")?).ok()?;
        link(&mail).ok().filter(|(url, _)| url.contains("/password/reset/confirm?"))
    };
    let (url, token) = server.process().output().find(SOON, "a reset", find).await?;
    ensure!(url.starts_with("https://api.example.com/auth/password/reset/confirm?token=palp_"), "{url}");
    let new = json!({ "token": token, "new_password": "sieben blaue Dächer am Hang" });
    assert_eq!(post(&client, "/auth/password/reset/confirm", new.clone()).await?.0, 204);
    assert_eq!(post(&client, "/auth/password/reset/confirm", new).await?.0, 400, "once");
    assert_eq!(post(&client, "/auth/login", log_in).await?.0, 401, "the old password");

    // What a thief of the disk, the database or the log gets: no link.
    gateway.event("mail.sent", |line| line["kind"] == "password-changed").await?;
    let secret = token.trim_start_matches("palp_");
    for file in std::fs::read_dir(gateway.state())?.flatten().map(|entry| entry.path()).filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file)?;
        ensure!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", file.display());
    }
    if let Some(dump) = kept.dump().await? {
        let raw = data_encoding::BASE64URL_NOPAD.decode(secret.as_bytes())?;
        ensure!(dump.contains("ann@example.com") && !dump.contains(secret), "the dump is one");
        ensure!(!dump.contains(&data_encoding::HEXLOWER.encode(&raw)), "hashed at rest");
    }
    ensure!(!gateway.output().contains(secret) && !gateway.output().contains("s3cret"));
    ensure!(!gateway.output().contains("ann@example.com"), "an address in the log");
    Ok(())
}

async fn mail_waits_for_a_server_that_is_away_and_for_the_end_of_the_process(kept: Kept) -> Result<()> {
    // Its port is free now, and will be the server's.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let options = ["--port".to_owned(), port.to_string()];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let more = format!(
        "[auth]\nregistration = \"open\"\n[mail]\nserver = \"smtp://localhost:{port}\"\nfrom = \"no-reply@example.com\"\n"
    );
    let gateway = kept.setup("http://127.0.0.1:9", &more).start().await?;
    let client = gateway.https()?;
    let register = |name: &'static str| {
        let client = &client;
        let body = json!({ "username": name, "email": format!("{name}@example.com"), "password": PASSWORD });
        async move { post(client, "/auth/register", body).await }
    };
    assert_eq!(register("ann").await?.0, 201, "nobody waits for a mail server");
    let delayed = gateway.event("mail.delayed", |line| line["kind"] == "verification").await?;
    ensure!(delayed["next_s"] == 5 && !delayed.to_string().contains("ann@"), "{delayed}");
    let away = gateway.event("dependency.away", |line| line["dependency"] == "mail").await?;
    ensure!(away["target"] == format!("smtp://localhost:{port}"), "{away}");
    let status = gateway.run(&["status", "--json"]).await?.json()?;
    let mail = |status: &Value| {
        let all = status["dependencies"].as_array().into_iter().flatten();
        all.clone().find(|one| one["dependency"] == "mail").cloned().unwrap_or_default()
    };
    let shown = mail(&status);
    ensure!(shown["state"] == "away" && shown["mails"]["waiting"] == 1 && shown["used_by"][0]["control"] == "auth");

    let server = App::smtp(&options).await?;
    received(&server, "ann@example.com").await?;
    gateway.event("mail.sent", |line| line["attempts"].as_u64().is_some_and(|attempts| attempts > 1)).await?;
    gateway.event("dependency.back", |line| line["dependency"] == "mail").await?;
    let shown = mail(&gateway.run(&["status", "--json"]).await?.json()?);
    ensure!(shown["state"] == "up" && shown["mails"]["sent"] == 1 && shown["mails"]["waiting"] == 0, "{shown}");

    // It goes away again, and is back in the moment in which the gateway leaves: that mail is tried once more.
    server.process().stop(Duration::from_secs(10)).await?;
    let position = gateway.output().position();
    assert_eq!(register("bob").await?.0, 201);
    gateway.event_since(position, "mail.delayed", |_| true).await?;
    let server = App::smtp(&options).await?;
    let ended = gateway.terminate().await?;
    ensure!(ended.success(), "{ended}");
    received(&server, "bob@example.com").await?;
    Ok(())
}

async fn what_is_not_sent_is_said(kept: Kept) -> Result<()> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let more = format!(
        "[auth]\nregistration = \"open\"\n[mail]\nserver = \"smtp://localhost:{port}\"\nfrom = \"no-reply@example.com\"\n"
    );
    let gateway = kept.setup("http://127.0.0.1:9", &more).start().await?;
    let body = json!({ "username": "ann", "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(post(&gateway.https()?, "/auth/register", body).await?.0, 201);
    gateway.event("mail.delayed", |_| true).await?;
    gateway.terminate().await?;
    let dropped = gateway.event("mail.dropped", |line| line["why"] == "closing").await?;
    ensure!(dropped["kind"] == "verification" && dropped["level"] == "error", "{dropped}");
    Ok(())
}

async fn in_development_mail_is_files_whose_place_is_told(kept: Kept) -> Result<()> {
    let gateway = kept.setup("http://127.0.0.1:9", "[auth]\nregistration = \"open\"\n").start().await?;
    let ready = gateway.event("mail.ready", |line| line["transport"] == "directory").await?;
    let folder = std::path::PathBuf::from(ready["target"].as_str().unwrap_or_default());
    let folder = gateway.directory().join(folder);
    assert_eq!(folder.canonicalize()?, gateway.state().join("mail").canonicalize()?);
    let body = json!({ "username": "ann", "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(post(&gateway.https()?, "/auth/register", body).await?.0, 201);
    gateway.event("mail.sent", |line| line["kind"] == "verification").await?;
    let files: Vec<_> = std::fs::read_dir(&folder)?.flatten().collect();
    ensure!(files.len() == 1, "{files:?}");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(files[0].metadata()?.permissions().mode() & 0o777, 0o600);
    assert_eq!(folder.metadata()?.permissions().mode() & 0o777, 0o700);
    ensure!(std::fs::read_to_string(files[0].path())?.contains("To: ann@example.com"));
    Ok(())
}
