//! Mail through a real server, and through the servers that mail meets in the world.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use palisade_base::{Secret, Timestamp};
use palisade_mail::{Dropped, Encryption, Kind, Links, Mail, Mailer, Outcome, Patience, Smtp, Templates, Transport};
use palisade_test::ca::Authority;
use palisade_test::eventually;
use palisade_test::python::App;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// Tries often, for a short time.
const QUICK: Patience =
    Patience { attempt: Duration::from_secs(5), pause: Duration::from_millis(50), total: Duration::from_secs(20) };

fn mailer(smtp: Smtp, patience: Patience) -> Result<(Mailer, Receiver<Outcome>)> {
    let (tell, told) = channel();
    let templates = Templates::read("Example", None)?;
    let from = "no-reply@example.com".parse()?;
    let mailer = Mailer::start("Example, Inc.", &from, &Transport::Smtp(smtp), templates, patience, move |outcome| {
        let _ = tell.send(outcome);
    })?;
    Ok((mailer, told))
}

fn to(app: &App) -> Result<Smtp> {
    let mut smtp = Smtp::at("smtp://localhost").map_err(|error| anyhow::anyhow!("{error:?}"))?;
    smtp.port = app.address().port();
    Ok(smtp)
}

fn reset(to: &str) -> Result<Mail> {
    let link = Links::new("https://api.example.com")?.to("/auth/reset", &Secret::new("t0ken".into()));
    let mail = Mail::new(Kind::Reset, to.parse()?, "user-7").name("Ada\r\nBcc: eve@example.com\r\n\r\n.\r\nQUIT");
    Ok(mail.link(link, Duration::from_secs(900)).time(Timestamp(0)).address([192, 0, 2, 1].into()))
}

async fn received(app: &App) -> Result<Value> {
    let line = |line: &palisade_test::Line| line.text.strip_prefix("mail ").map(str::to_owned);
    Ok(serde_json::from_str(&app.process().output().find(SOON, "a mail", line).await?)?)
}

fn is_sent(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Sent { .. })
}

#[tokio::test]
async fn a_mail_arrives_as_it_was_meant() -> Result<()> {
    let app = App::smtp(&[]).await?;
    let (mailer, told) = mailer(to(&app)?, QUICK)?;
    mailer.send(reset("ada@example.com")?);
    ensure!(told.recv_timeout(SOON)? == Outcome::Sent { kind: Kind::Reset, about: "user-7".into(), attempts: 1 });
    let mail = received(&app).await?;
    ensure!(mail["from"] == "no-reply@example.com" && mail["to"] == serde_json::json!(["ada@example.com"]), "{mail}");
    let content = mail["content"].as_str().context("text")?;
    let (head, body) = content.split_once("\r\n\r\n").context("a head")?;
    for line in [
        // A comma in a name is no second sender: RFC 2047 in base64.
        "From: =?utf-8?b?RXhhbXBsZSwgSW5jLg==?= <no-reply@example.com>",
        "To: ada@example.com",
        "Subject: A new password for Example",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
    ] {
        ensure!(head.lines().any(|is| is == line), "`{line}` in {head}");
    }
    ensure!(head.contains("Message-ID: <") && head.contains("@example.com>") && head.contains("Date: "), "{head}");
    ensure!(head.contains("multipart/alternative"), "{head}");
    // A name with line breaks is words in the body, and nothing else.
    ensure!(!head.to_lowercase().contains("bcc") && !head.contains("Ada"), "{head}");
    let joined = body.replace("=\r\n", "").replace("=3D", "=");
    ensure!(joined.contains("https://api.example.com/auth/reset?token=t0ken"), "{body}");
    ensure!(joined.contains("Hello Ada  Bcc: eve@example.com    .  QUIT,"), "{body}");
    ensure!(joined.contains("<a href=\"https://api.example.com/auth/reset?token=t0ken\">"), "{body}");
    Ok(())
}

#[tokio::test]
async fn tls_is_verified_or_nothing_is_sent() -> Result<()> {
    let (authority, other) = (Authority::new("mail")?, Authority::new("other")?);
    let files = tempfile::tempdir()?;
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    authority.server(&["localhost"])?.write(&cert, &key)?;
    let (cert, key) = (cert.to_string_lossy(), key.to_string_lossy());
    for (mode, encryption) in [("implicit", Encryption::Tls), ("starttls", Encryption::StartTls)] {
        let options = ["--tls", mode, "--cert", &*cert, "--key", &*key, "--password", "s3cret"];
        let app = App::smtp(&options).await?;
        let login = |password: &str| Some(("palisade".to_owned(), Secret::new(password.to_owned())));
        let right =
            Smtp { encryption, authority: Some(authority.pem().into_bytes()), login: login("s3cret"), ..to(&app)? };
        let short = Patience { total: Duration::from_millis(200), ..QUICK };
        for (what, wrong) in [
            ("another authority", Smtp { authority: Some(other.pem().into_bytes()), ..right.clone() }),
            ("no authority of ours", Smtp { authority: None, ..right.clone() }),
            ("another name", Smtp { host: "127.0.0.1".into(), ..right.clone() }),
            ("a wrong password", Smtp { login: login("wrong"), ..right.clone() }),
            ("no password", Smtp { login: None, ..right.clone() }),
        ] {
            let (mailer, told) = mailer(wrong, short)?;
            mailer.send(reset("ada@example.com")?);
            let last = told.iter().find(|outcome| !matches!(outcome, Outcome::Delayed { .. })).context("an end")?;
            let why = matches!(&last, Outcome::Dropped { why: Dropped::Late(_), .. });
            ensure!(why, "{mode}, {what}: {last:?}");
        }
        ensure!(!app.process().output().contains("mail {"), "{mode}");
        let (mailer, told) = mailer(right, QUICK)?;
        mailer.send(reset("ada@example.com")?);
        ensure!(is_sent(&told.recv_timeout(SOON)?), "{mode}");
        ensure!(received(&app).await?["tls"] == true, "{mode}");
    }
    // A server that offers no STARTTLS, or one whose offer was cut out on the way.
    let app = App::smtp(&[]).await?;
    let short = Patience { total: Duration::from_millis(200), ..QUICK };
    let (mailer, told) = mailer(Smtp { encryption: Encryption::StartTls, ..to(&app)? }, short)?;
    mailer.send(reset("ada@example.com")?);
    let last = told.iter().find(|outcome| !matches!(outcome, Outcome::Delayed { .. })).context("an end")?;
    ensure!(matches!(last, Outcome::Dropped { .. }) && !app.process().output().contains("mail {"), "{last:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_away_gets_it_when_it_is_back() -> Result<()> {
    // Its port is free now, and will be the server's.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut smtp = Smtp::at("smtp://localhost").map_err(|error| anyhow::anyhow!("{error:?}"))?;
    smtp.port = port;
    let (mailer, told) = mailer(smtp, QUICK)?;
    let begun = Instant::now();
    mailer.send(reset("ada@example.com")?);
    ensure!(begun.elapsed() < Duration::from_secs(1), "nobody waits");
    let first = told.recv_timeout(SOON)?;
    ensure!(matches!(&first, Outcome::Delayed { reason, .. } if !reason.contains("ada@")), "{first:?}");
    let app = App::smtp(&["--port", &port.to_string(), "--defer", "2"]).await?;
    let rest: Vec<Outcome> = told.iter().take_while(|outcome| !is_sent(outcome)).collect();
    let put_off = |outcome: &&Outcome| matches!(outcome, Outcome::Delayed { reason, .. } if reason.contains("451") || reason.contains("later"));
    ensure!(rest.iter().filter(put_off).count() == 2, "{rest:?}");
    ensure!(received(&app).await?["to"][0] == "ada@example.com");
    ensure!(mailer.counts().sent == 1 && mailer.counts().waiting == 0 && mailer.counts().dropped == 0);
    Ok(())
}

#[tokio::test]
async fn one_that_is_refused_keeps_no_other_from_being_sent() -> Result<()> {
    let app = App::smtp(&["--reject", "nobody"]).await?;
    let (mailer, told) = mailer(to(&app)?, QUICK)?;
    mailer.send(reset("nobody@example.com")?);
    let Outcome::Dropped { why: Dropped::Refused(reason), about, .. } = told.recv_timeout(SOON)? else {
        anyhow::bail!("not refused")
    };
    ensure!(about == "user-7" && !reason.contains("nobody@example.com"), "{reason}");
    mailer.send(reset("ada@example.com")?);
    ensure!(is_sent(&told.recv_timeout(SOON)?));
    ensure!(mailer.counts().dropped == 1 && mailer.counts().sent == 1);
    Ok(())
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_neither_time_nor_memory() -> Result<()> {
    let app = App::smtp(&["--stall"]).await?;
    let patience = Patience { attempt: Duration::from_millis(300), ..QUICK };
    let (mailer, told) = mailer(to(&app)?, patience)?;
    let mail = reset("ada@example.com")?;
    let begun = Instant::now();
    for _ in 0..3000 {
        mailer.send(mail.clone());
    }
    ensure!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let counts = mailer.counts();
    ensure!(counts.waiting == 1000 && counts.dropped == 2000, "{counts:?}");
    let begun = Instant::now();
    mailer.close(Duration::from_secs(1));
    ensure!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let counts = mailer.counts();
    ensure!(counts.waiting == 0 && counts.dropped == 3000 && counts.sent == 0, "{counts:?}");
    mailer.send(mail);
    ensure!(mailer.counts().dropped == 3001, "after the end");
    drop(mailer);
    let told: Vec<Outcome> = told.iter().collect();
    let (mut full, mut closing) = (0, 0);
    for outcome in &told {
        match outcome {
            Outcome::Dropped { why: Dropped::Full, .. } => full += 1,
            Outcome::Dropped { why: Dropped::Closing, .. } => closing += 1,
            Outcome::Delayed { reason, .. } => {
                ensure!(reason.contains("no answer") || reason.contains("time"), "{reason}")
            }
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!((full, closing) == (2000, 1001), "{full} {closing}: each one told");
    Ok(())
}

#[tokio::test]
async fn what_waits_is_sent_when_the_process_ends() -> Result<()> {
    let app = App::smtp(&["--defer", "1"]).await?;
    let patience = Patience { pause: Duration::from_secs(3600), total: Duration::from_secs(7200), ..QUICK };
    let (mailer, told) = mailer(to(&app)?, patience)?;
    mailer.send(reset("ada@example.com")?);
    ensure!(matches!(told.recv_timeout(SOON)?, Outcome::Delayed { .. }));
    mailer.close(Duration::from_secs(10));
    ensure!(is_sent(&told.recv_timeout(SOON)?));
    ensure!(received(&app).await?["to"][0] == "ada@example.com");
    Ok(())
}

#[tokio::test]
async fn a_second_call_shortens_the_end() -> Result<()> {
    let app = App::smtp(&["--stall"]).await?;
    let hour = Duration::from_secs(3600);
    let (mailer, told) = mailer(to(&app)?, Patience { attempt: hour, pause: hour, total: 2 * hour })?;
    mailer.send(reset("ada@example.com")?);
    let patient = mailer.clone();
    let first = std::thread::spawn(move || patient.close(hour));
    let late = reset("bob@example.com")?;
    eventually(SOON, "it comes to its end", async || {
        mailer.send(late.clone());
        mailer.counts().dropped > 0
    })
    .await?;
    mailer.close(Duration::ZERO);
    ensure!(first.join().is_ok(), "the first one has returned too");
    let counts = mailer.counts();
    drop(mailer);
    let told: Vec<Outcome> = told.iter().collect();
    ensure!(counts.waiting == 0 && counts.dropped == told.len() as u64, "{counts:?}: {told:?}");
    ensure!(told.iter().all(|outcome| matches!(outcome, Outcome::Dropped { why: Dropped::Closing, .. })), "{told:?}");
    Ok(())
}

#[tokio::test]
async fn development_writes_files() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("mail");
    let (tell, told) = channel();
    let from = "no-reply@example.com".parse()?;
    let mailer = Mailer::start(
        "Example",
        &from,
        &Transport::Directory(folder.clone()),
        Templates::read("Example", None)?,
        Patience::default(),
        move |outcome| drop(tell.send(outcome)),
    )?;
    mailer.send(reset("ada@example.com")?);
    mailer.send(reset("grace@example.com")?);
    ensure!(is_sent(&told.recv_timeout(SOON)?) && is_sent(&told.recv_timeout(SOON)?));
    let mut names: Vec<_> = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    names.sort();
    ensure!(names.len() == 2 && names.iter().all(|name| name.to_string_lossy().ends_with("-reset.eml")), "{names:?}");
    let texts: Vec<String> = names.iter().map(|name| Ok(std::fs::read_to_string(name)?)).collect::<Result<_>>()?;
    ensure!(texts.iter().any(|text| text.contains("To: ada@example.com")), "{texts:?}");
    let texts = texts.concat().replace("=\r\n", "").replace("=3D", "=");
    ensure!(texts.contains("reset?token=t0ken"), "{texts}");
    Ok(())
}
