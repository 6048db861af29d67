//! Links that work once. Threats 20.

use http::Method;
use serde_json::{Value, json};

use super::setup;
use super::tests::{App, PASSWORD, cookie, value};
use palisade_test::kept::Kept;
use palisade_test::on_both;

const OTHER: &str = "sieben blaue Dächer am Hang";

/// The mails that were written, oldest first, as their readers see them.
fn mails(app: &App) -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(app.state.path().join("mail")) else { return Vec::new() };
    let mut files: Vec<_> = folder.flatten().map(|file| file.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "eml"));
    files.sort();
    let decoded = |text: String| text.replace("=\r\n", "").replace("=3D", "=");
    files.iter().map(|file| decoded(std::fs::read_to_string(file).unwrap())).collect()
}

/// Those to this address.
async fn mails_to(app: &App, to: &str, count: usize) -> Vec<String> {
    for _ in 0..500 {
        let mails: Vec<_> = mails(app).into_iter().filter(|mail| mail.contains(&format!("To: {to}\r\n"))).collect();
        if mails.len() >= count {
            return mails;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not {count} mails to {to}: {:#?}", mails(app));
}

/// The token of a mail's link.
fn token(mail: &str) -> String {
    let link = mail.lines().find(|line| line.starts_with("https://localhost/auth/")).unwrap();
    link.split_once("?token=").unwrap().1.to_owned()
}

/// Nothing else is on its way: a mail that is asked for now is the next one.
async fn quiet(app: &App, known: usize) {
    let before = mails(app).len();
    assert_eq!(before, known, "{:#?}", mails(app));
    app.json(Method::POST, "/auth/register", &[], &json!({ "username": format!("quiet{known}"), "email": format!("quiet{known}@example.com"), "password": PASSWORD })).await;
    mails_to(app, &format!("quiet{known}@example.com"), 1).await;
    assert_eq!(mails(app).len(), known + 1, "{:#?}", mails(app));
}

/// All that the database holds.
async fn dump(app: &App, kept: &Kept) -> Vec<u8> {
    if let Some(rows) = kept.dump().await.unwrap() {
        return rows.into_bytes();
    }
    let files = std::fs::read_dir(app.state.path()).unwrap().flatten().map(|file| file.path());
    let files = files.filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("palisade.db"));
    files.flat_map(|file| std::fs::read(file).unwrap()).collect()
}

fn holds(dump: &[u8], text: &str) -> bool {
    dump.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Bytes as they are in a file, or as rows show them.
fn holds_bytes(dump: &[u8], bytes: &[u8]) -> bool {
    dump.windows(bytes.len()).any(|window| window == bytes) || holds(dump, &data_encoding::HEXLOWER.encode(bytes))
}

on_both!(
    a_forgotten_password,
    registration_that_is_verified_tells_nobody_who_has_an_account,
    what_was_there_before_the_proof_ends_with_it,
    nobody_fills_an_inbox_and_nobody_is_told_who_has_one,
    an_account_moves_to_another_address,
    the_account_page_moves_an_account,
    owners_hear_of_new_devices_and_lock_outs,
    whoever_has_not_proved_an_address_hears_nothing_of_it,
    a_setup_link_is_good_though_nobody_has_asked_before,
);

async fn a_forgotten_password(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let session = app.session("ann").await;
    let key = app.key(&session, &["notes:read"]).await;
    let ask = |email: &'static str| {
        let app = &app;
        async move { app.json(Method::POST, "/auth/password/reset", &[], &json!({ "email": email })).await }
    };
    let (known, unknown) = (ask("Ann@Example.com").await, ask("nobody@example.com").await);
    assert_eq!((known.status(), known.text()), (unknown.status(), unknown.text()), "no oracle");
    let mails = mails_to(&app, "ann@example.com", 2).await;
    assert!(mails[1].contains("Subject: A new password for localhost") && mails[1].contains("Hello ann@example.com,"));
    let link = token(&mails[1]);
    assert!(link.starts_with("palp_"), "{link}");
    let dump = dump(&app, &kept).await;
    assert!(holds(&dump, "ann@example.com"), "the dump is one");
    let raw = data_encoding::BASE64URL_NOPAD.decode(link.trim_start_matches("palp_").as_bytes());
    assert!(!holds(&dump, &link) && !holds(&dump, link.trim_start_matches("palp_")), "hashed at rest");
    assert!(!holds_bytes(&dump, &raw.unwrap()), "hashed at rest");
    let confirm = |token: &str, password: &str| {
        let body = json!({ "token": token, "new_password": password });
        let app = &app;
        async move { app.json(Method::POST, "/auth/password/reset/confirm", &[], &body).await }
    };
    let weak = confirm(&link, "kurz").await;
    assert_eq!(weak.refusal().map(|code| code.name), Some("password.short"), "the link is still good");
    let page = app.get(&format!("/auth/password/reset/confirm?token={link}"), &[("accept", "text/html")]).await;
    assert_eq!((page.status(), page.header("referrer-policy")), (200, "same-origin"));
    assert_eq!(confirm(&link, OTHER).await.status(), 204);
    assert_eq!(confirm(&link, OTHER).await.refusal().map(|code| code.name), Some("auth.link"), "once");
    assert_eq!(app.get("/any", &[("cookie", &session)]).await.status(), 401);
    assert_eq!(app.get("/notes", &[("x-api-key", &key)]).await.status(), 401, "keys that were made before, too");
    let log_in = |password: &str| {
        let body = json!({ "username": "ann", "password": password });
        let app = &app;
        async move { app.json(Method::POST, "/auth/login", &[], &body).await.status() }
    };
    assert_eq!((log_in(PASSWORD).await, log_in(OTHER).await), (401, 200));
    let told = mails_to(&app, "ann@example.com", 3).await;
    assert!(told[2].contains("Subject: Your password at localhost was changed") && told[2].contains("192.0.2.7"));
    for junk in ["", "palp_x", &link.replace("palp_", "palv_"), "palv_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let answer = confirm(junk, OTHER).await;
        assert_eq!(answer.refusal().map(|code| code.name), Some("auth.link"), "{junk}");
    }
}

async fn registration_that_is_verified_tells_nobody_who_has_an_account(kept: Kept) {
    let verified = App::with(&kept, "registration = \"verified\"").await;
    let register = |name: &'static str, email: &'static str| {
        let app = &verified;
        let body = json!({ "username": name, "email": email, "password": PASSWORD });
        async move { app.json(Method::POST, "/auth/register", &[], &body).await }
    };
    let first = register("ann", "ann@example.com").await;
    let same_name = register("ann", "other@example.com").await;
    let same_email = register("other", "ann@example.com").await;
    for answer in [&same_name, &same_email] {
        assert_eq!((answer.status(), answer.text()), (first.status(), first.text()));
    }
    assert_eq!(first.status(), 202);
    let first = mails_to(&verified, "ann@example.com", 2).await;
    assert!(first[1].contains("You already have an account at localhost"), "the owner is told: {}", first[1]);
    assert!(!first[1].contains("token="), "and gets nothing that works");
    let seen = |token: String| {
        let app = &verified;
        async move { app.get("/any", &[("authorization", &token)]).await.text() }
    };
    let bearer = |tokens: &Value| format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    // Until then nobody can use it, and that is not to be seen: else whoever registers an address learns whether they
    // could, and so whether it has an account.
    let log_in = |name: &'static str, password: &'static str| {
        let app = &verified;
        let body = json!({ "username": name, "password": password });
        async move { app.json(Method::POST, "/auth/login", &[], &body).await }
    };
    let (right, wrong, nobody) =
        (log_in("ann", PASSWORD).await, log_in("ann", OTHER).await, log_in("nobody", PASSWORD).await);
    let said = |answer: &crate::testing::Answer| {
        let mut value = value(answer);
        value["request_id"] = Value::Null;
        (answer.status(), value, answer.header("www-authenticate").to_owned())
    };
    assert_eq!((said(&right), said(&wrong)), (said(&nobody), said(&nobody)));
    let link = token(&first[0]);
    let shown = verified.get(&format!("/auth/email/verify?token={link}"), &[("accept", "text/html")]).await;
    assert!(shown.text().contains("It is mine"), "following the link alone changes nothing");
    let verify = json!({ "token": link });
    let prove = || verified.json(Method::POST, "/auth/email/verify", &[], &verify);
    let proved = prove().await;
    assert_eq!(proved.status(), 204, "{}", proved.text());
    assert_eq!(prove().await.refusal().map(|code| code.name), Some("auth.link"), "once");
    let after = bearer(&verified.token("ann", "").await);
    assert!(seen(after).await.contains("x-forwarded-email: ann@example.com"));
}

async fn what_was_there_before_the_proof_ends_with_it(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let mail = mails_to(&app, "ann@example.com", 1).await;
    let session = app.session("ann").await;
    let tokens = app.token("ann", "").await;
    let before = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    assert!(
        !app.get("/any", &[("authorization", &before)]).await.text().contains("x-forwarded-email"),
        "not proved yet"
    );
    let proved = app.json(Method::POST, "/auth/email/verify", &[], &json!({ "token": token(&mail[0]) })).await;
    assert_eq!(proved.status(), 204, "{}", proved.text());
    for credential in [("authorization", before.as_str()), ("cookie", session.as_str())] {
        assert_eq!(app.get("/any", &[credential]).await.status(), 401, "{credential:?}");
    }
    assert!(app.get("/any", &[("cookie", &app.session("ann").await)]).await.text().contains("x-forwarded-email: ann@"));
}

async fn nobody_fills_an_inbox_and_nobody_is_told_who_has_one(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    // The link of the registration is one mail; resets count for themselves.
    let ask = |email: &'static str| {
        let app = &app;
        async move { app.json(Method::POST, "/auth/password/reset", &[], &json!({ "email": email })).await }
    };
    for _ in 0..5 {
        let (known, unknown) = (ask("ann@example.com").await, ask("nobody@example.com").await);
        assert_eq!((known.status(), known.text()), (202, unknown.text()));
        assert_eq!(unknown.status(), 202);
    }
    let mails = mails_to(&app, "ann@example.com", 4).await;
    // The last link that was sent still works: whoever asks on does not take it away.
    let body = json!({ "token": token(&mails[3]), "new_password": OTHER });
    assert_eq!(app.json(Method::POST, "/auth/password/reset/confirm", &[], &body).await.status(), 204);
    mails_to(&app, "ann@example.com", 5).await;
    quiet(&app, 5).await;
    // Whoever asks for mail to everybody has to wait, and hears so: that says nothing of any account.
    let mut refused = None;
    for n in 0..20 {
        let body = json!({ "email": format!("n{n}@example.com") });
        let answer = app.json(Method::POST, "/auth/password/reset", &[], &body).await;
        if answer.status() == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("never refused");
    assert_eq!(refused.refusal().map(|code| code.name), Some("auth.attempts"));
    assert_ne!(refused.header("retry-after"), "");
    let page = app.form("/auth/password/reset", &[("origin", "https://localhost")], "email=ann%40example.com").await;
    assert_eq!(page.status(), 429);
    assert!(page.text().contains("too many attempts"), "{}", page.text());
    let elsewhere = App { harness: app.harness.clone().from("198.51.100.9"), state: tempfile::tempdir().unwrap() };
    let body = json!({ "email": "ann@example.com" });
    assert_eq!(elsewhere.json(Method::POST, "/auth/password/reset", &[], &body).await.status(), 202);
}

async fn an_account_moves_to_another_address(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    app.register("bob").await;
    let link = token(&mails_to(&app, "ann@example.com", 1).await[0]);
    app.json(Method::POST, "/auth/email/verify", &[], &json!({ "token": link })).await;
    let session = app.session("ann").await;
    let headers = [("cookie", session.as_str()), ("sec-fetch-site", "same-origin")];
    let change = |email: &'static str| {
        let app = &app;
        async move { app.json(Method::PATCH, "/auth/me", &headers, &json!({ "email": email })).await }
    };
    // In this order, for the latest link is the one that works.
    let (taken, free) = (change("bob@example.com").await, change("ann@elsewhere.example").await);
    assert_eq!((free.status(), free.text()), (200, taken.text()), "who has an address is not said");
    assert_eq!(value(&free)["email"], "ann@example.com", "nothing yet");
    assert_eq!(change("nonsense").await.status(), 422, "which ends no link");
    let mail = mails_to(&app, "ann@elsewhere.example", 1).await;
    let link = token(&mail[0]);
    assert!(link.starts_with("palm_") && !holds(&dump(&app, &kept).await, link.trim_start_matches("palm_")), "{link}");
    let verify = json!({ "token": link });
    let prove = || app.json(Method::POST, "/auth/email/verify", &[], &verify);
    assert_eq!(prove().await.status(), 204);
    assert_eq!(prove().await.refusal().map(|code| code.name), Some("auth.link"), "once");
    let told = mails_to(&app, "ann@example.com", 2).await;
    assert!(told[1].contains("Your address at localhost was changed"), "the old address is told: {}", told[1]);
    assert_eq!(value(&app.get("/auth/me", &[("cookie", &session)]).await)["email"], "ann@elsewhere.example");
    assert_eq!(mails_to(&app, "bob@example.com", 1).await.len(), 1, "bob hears nothing of it");
}

async fn the_account_page_moves_an_account(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let first = app.session("ann").await;
    let by = |session: &str| [("cookie", session.to_owned()), ("origin", "https://localhost".to_owned())];
    let send = |path: &'static str, session: String, body: String| {
        let app = &app;
        let headers = by(&session);
        async move {
            let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
            app.form(path, &headers, &body).await
        }
    };
    let page = |session: String| {
        let app = &app;
        async move { app.get("/auth/account", &[("cookie", &session)]).await.text() }
    };
    let shown = page(first.clone()).await;
    assert!(shown.contains("Send the link again") && shown.contains("New address"), "{shown}");
    assert_eq!(send("/auth/account/verify", first.clone(), String::new()).await.status(), 202);
    let mails = mails_to(&app, "ann@example.com", 2).await;
    let proved = send("/auth/email/verify", first.clone(), format!("token={}", token(&mails[1]))).await;
    assert_eq!((proved.status(), proved.header("location")), (303, "/auth/account"), "{}", proved.text());
    let second = cookie(&proved).expect("another secret: more is proved from now on");
    assert_ne!(first, second);
    assert_eq!(app.get("/any", &[("cookie", &first)]).await.status(), 401, "whoever knew the one before is out");
    assert!(!page(second.clone()).await.contains("Send the link again"));
    let asked = send("/auth/account/email", second.clone(), "email=ann%40elsewhere.example".into()).await;
    assert!(asked.status() == 202 && asked.text().contains("on its way to it"), "{}", asked.text());
    let link = token(&mails_to(&app, "ann@elsewhere.example", 1).await[0]);
    let moved = send("/auth/email/verify", second.clone(), format!("token={link}")).await;
    assert_eq!(moved.status(), 303);
    let third = cookie(&moved).expect("another secret");
    assert_eq!(app.get("/any", &[("cookie", &second)]).await.status(), 401);
    let again = send("/auth/email/verify", third.clone(), format!("token={link}")).await;
    assert!(again.status() == 400 && again.text().contains("This link does not work"), "{}", again.text());
    assert!(page(third).await.contains("ann@elsewhere.example"));
}

async fn owners_hear_of_new_devices_and_lock_outs(kept: Kept) {
    let app = App::new(&kept, "").await;
    let ann = app.register("ann").await;
    let link = token(&mails_to(&app, "ann@example.com", 1).await[0]);
    app.json(Method::POST, "/auth/email/verify", &[], &json!({ "token": link })).await;
    let log_in = |password: &'static str, cookies: String| {
        let app = &app;
        async move {
            let body = json!({ "username": "ann", "password": password });
            let headers = [("cookie", cookies.as_str()), ("user-agent", "Firefox on Linux")];
            let headers = if cookies.is_empty() { &headers[1..] } else { &headers[..] };
            app.json(Method::POST, "/auth/login", headers, &body).await
        }
    };
    let first = log_in(PASSWORD, String::new()).await;
    assert_eq!(first.status(), 200);
    let mut device = first.headers().get_all("set-cookie").iter().filter_map(|cookie| cookie.to_str().ok());
    let device = device.rfind(|cookie| cookie.contains("-device=")).unwrap();
    let device = device.split(';').next().unwrap().to_owned();
    assert_eq!(log_in(PASSWORD, device.clone()).await.status(), 200, "known: no news");
    assert_eq!(log_in(PASSWORD, String::new()).await.status(), 200);
    let mails = mails_to(&app, "ann@example.com", 2).await;
    assert!(mails[1].contains("Subject: A new login to localhost") && mails[1].contains("address: 192.0.2.7"));
    app.guess("ann", 11).await;
    let mails = mails_to(&app, "ann@example.com", 3).await;
    assert!(mails[2].contains("Subject: Your account at localhost is locked for a while"), "{}", mails[2]);
    assert_eq!(log_in(PASSWORD, String::new()).await.status(), 401, "locked");
    assert_eq!(log_in(PASSWORD, device).await.status(), 200, "and not on the owner's device");
    // Of the next lock-out within the hour nobody hears: it is the same stranger.
    app.harness.clock().advance(std::time::Duration::from_secs(16 * 60));
    app.guess("ann", 11).await;
    quiet(&app, 3).await;
    assert!(ann["id"].is_string());
}

async fn whoever_has_not_proved_an_address_hears_nothing_of_it(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    mails_to(&app, "ann@example.com", 1).await;
    for _ in 0..2 {
        app.session("ann").await;
    }
    app.guess("ann", 11).await;
    quiet(&app, 1).await;
}

/// Its command runs beside the gateway and may be done before that has opened the database.
async fn a_setup_link_is_good_though_nobody_has_asked_before(kept: Kept) {
    let app = App::new(&kept, "").await;
    let policy = &app.harness.handle().live().policy;
    let command = crate::controls::auth::open(policy.config()).await.unwrap();
    let link = command.setup_link().await.unwrap().expect("there is no administrator");
    command.store().close().await;
    let show = async |link: &str| setup::show(policy, format!("link={link}").as_bytes()).await.map(|page| page.status);
    assert_eq!(show(link.reveal().expose()).await.ok(), Some(http::StatusCode::OK));
    let other = palisade_identity::opaque::SetupLink::generate().unwrap();
    assert!(matches!(show(other.reveal().expose()).await, Err(None)), "nothing is here");
}
