//! The pages of accounts as a person without scripts uses them, and pictures of them.
//!
//! `PALISADE_SCREENSHOTS=write cargo xtask test --only e2e --filter account_pages` puts the pictures into
//! `docs/src/01-auth/img`.

use anyhow::{Context as _, Result, ensure};
use palisade_identity::service::{GrantKind, Method, NewClient};
use palisade_test::kept::Kept;
use palisade_test::{browser, on_both, paths};
use serde_json::json;

use crate::auth::add_client;

/// The largest picture, in bytes: everybody who clones the repository has all of them.
const SMALL: usize = 128 * 1024;

on_both!(a_person_without_scripts_gets_everywhere);

async fn a_person_without_scripts_gets_everywhere(kept: Kept) -> Result<()> {
    let policy = "[auth]\nregistration = \"open\"\n\n[[route]]\npath = \"/notes\"\nscopes = [\"notes:read\"]\n";
    let gateway = kept.setup("http://127.0.0.1:9", policy).start().await?;
    gateway.event("auth.ready", |_| true).await?;
    let client = add_client(
        &gateway,
        &kept,
        NewClient {
            name: "Calendar".into(),
            method: Method::Public,
            jwks: None,
            redirects: vec!["http://127.0.0.1/cb".into()],
            grants: vec![GrantKind::AuthorizationCode],
            scopes: vec!["notes:read".into()],
            audience: Vec::new(),
            trusted: false,
        },
    )
    .await?;
    let base = gateway.url("https")?.replace("127.0.0.1", "localhost");
    let taken = tempfile::tempdir()?;
    let (mail, shots) = (gateway.state().join("mail"), taken.path());
    let arguments =
        [&base, &client.id, "ann", "vier alte Kutschen im Nebel", &mail.to_string_lossy(), &shots.to_string_lossy()];
    let seen = browser::run("account_pages.mjs", &arguments).await?;
    let walked = &seen["walked"];
    ensure!(walked["error"].is_null() && seen["inspected"]["error"].is_null(), "{seen:#}");
    assert_eq!(walked["registered"], "The account is made. Log in with it.");
    assert_eq!(walked["proved"], "The address is confirmed. Log in.");
    ensure!(walked["asked"].as_str().is_some_and(|said| said.contains("on its way to it")), "{walked}");
    assert_eq!((&walked["moved"], &walked["sent"]), (&json!("Your account"), &json!("Look into your mail")));
    ensure!(walked["code"].as_str().is_some_and(|code| code.starts_with("palc_")), "{walked}");
    assert_eq!(
        (&walked["set"], &walked["end"]),
        (&json!("The new password is set. Log in with it."), &json!("Your account"))
    );
    for part in [walked, &seen["inspected"]] {
        for complaint in ["csp_violations", "page_errors", "outside"] {
            assert_eq!(part[complaint], json!([]), "{complaint}");
        }
    }
    let pages = seen["found"].as_object().context("pages")?;
    ensure!(pages.len() == 6, "{pages:?}");
    for (page, violations) in pages {
        assert_eq!(*violations, json!([]), "{page}");
    }
    let docs = paths::workspace().join("docs/src/01-auth/img");
    for name in ["register", "login", "account", "consent", "reset"] {
        let file = format!("{name}.png");
        let picture = std::fs::read(shots.join(&file)).with_context(|| file.clone())?;
        ensure!(picture.starts_with(b"\x89PNG\r\n") && picture.len() < SMALL, "{file}: {} bytes", picture.len());
        if std::env::var_os("PALISADE_SCREENSHOTS").is_some_and(|what| what == "write") {
            std::fs::create_dir_all(&docs)?;
            std::fs::write(docs.join(&file), picture)?;
        }
    }
    Ok(())
}
