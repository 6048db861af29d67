//! Logins, tokens and keys: the real binary, published OAuth clients, FastAPI behind it.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_base::Clock;
use palisade_identity::Identity;
use palisade_identity::password::pool::{Limits, Pool};
use palisade_identity::password::{Cost, Hasher, Peppers};
use palisade_identity::service::{GrantKind, Method, NewClient, Parts, Settings};
use palisade_identity::token::{Algorithm, Keyring, SigningKey};
use palisade_store::Store;
use palisade_test::kept::Kept;
use palisade_test::python::App;
use palisade_test::{Client, Need, Palisade, Process, browser, need, on_both, paths, provision};
use serde_json::{Value, json};

const PASSWORD: &str = "vier alte Kutschen im Nebel";

const POLICY: &str = r#"
[auth]
registration = "open"

[headers]
docs = "open"

[[route]]
path = "/docs/*"
public = true

[[route]]
path = "/openapi.json"
public = true

[[route]]
path = "/admin/*"
roles = ["admin"]
"#;

/// The gateway with logins before the app that says who asks.
async fn gateway(kept: &Kept) -> Result<(App, Palisade)> {
    let app = App::uvicorn("identity", &[]).await?;
    let gateway = kept.setup(&app.url(), POLICY).start().await?;
    Ok((app, gateway))
}

on_both!(
    a_login_reaches_the_app_as_headers_and_the_log_as_a_user,
    authlib_and_httpx_get_refresh_and_revoke_tokens,
    authlib_as_a_registered_client_through_the_pages,
    a_session_ends_another,
    the_authorize_button_of_fastapis_own_page_works,
    openid_client_through_the_pages_in_which_axe_finds_nothing,
    the_first_administrator_is_made_by_a_link_that_works_once,
);

/// Threats 3: a link of the admin listener, good once; whoever has none sees that nothing is there.
async fn the_first_administrator_is_made_by_a_link_that_works_once(kept: Kept) -> Result<()> {
    let (_app, gateway) = gateway(&kept).await?;
    let admin = gateway.admin()?;
    let printed = async || gateway.run(&["user", "setup-link", "--json"]).await;
    let link = |printed: &Value| {
        let link = printed["link"].as_str().unwrap_or_default();
        link.split_once("/setup?link=").map(|(_, link)| link.to_owned()).context("no link")
    };
    let earlier = link(&printed().await?.json()?)?;
    let good = link(&printed().await?.json()?)?;
    for wrong in ["/setup".to_owned(), "/setup?link=pals_x".to_owned(), format!("/setup?link={earlier}")] {
        assert_eq!(admin.get(&wrong).send().await?.status(), 404, "{wrong}");
    }
    let place = format!("/setup?link={good}");
    let mut page = admin.get(&place).send().await?;
    ensure!(page.status() == 200 && page.text().await?.contains("Make the administrator"));
    ensure!(page.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'")));
    assert_eq!(admin.get("/setup/style.css").send().await?.status(), 200);
    let mut public = gateway.https()?.get(&place).send().await?;
    ensure!(!public.text().await?.contains("administrator"), "the admin listener's alone");

    let send = async |link: &str, password: &str| {
        let body = format!("link={link}&username=root&password={}", password.replace(' ', "+"));
        let request = admin.post("/setup").header("content-type", "application/x-www-form-urlencoded").body(body);
        request.send().await
    };
    let foreign = admin.post("/setup").header("sec-fetch-site", "cross-site").send().await?;
    assert_eq!(foreign.status(), 403);
    let mut weak = send(&good, "password").await?;
    ensure!(weak.status() == 422 && weak.text().await?.contains("role=\"alert\""), "{}", weak.status());
    assert_eq!(send(&earlier, PASSWORD).await?.status(), 404);
    assert_eq!(send(&good, PASSWORD).await?.status(), 201);
    assert_eq!(send(&good, PASSWORD).await?.status(), 404, "used up");
    assert_eq!(admin.get(&place).send().await?.status(), 404, "used up");
    let administrators = gateway.run(&["user", "list", "--role", "admin", "--json"]).await?.json()?;
    ensure!(administrators.as_array().is_some_and(|all| all.len() == 1), "{administrators}");
    let again = printed().await?;
    ensure!(again.code == Some(1) && again.err.contains("there is an administrator already"), "{again:?}");
    tokens(&gateway.https()?, "root").await.map(drop)
}

async fn register(client: &Client, name: &str) -> Result<Value> {
    let body = json!({ "username": name, "email": format!("{name}@example.com"), "password": PASSWORD });
    let mut answer = client.post("/auth/register").json(&body).send().await?;
    ensure!(answer.status() == 201, "{}", answer.text().await?);
    answer.json().await
}

async fn tokens(client: &Client, name: &str) -> Result<Value> {
    let body = format!("grant_type=password&username={name}&password={}", PASSWORD.replace(' ', "+"));
    let request = client.post("/auth/token").header("content-type", "application/x-www-form-urlencoded").body(body);
    let mut answer = request.send().await?;
    ensure!(answer.status() == 200, "{}", answer.text().await?);
    answer.json().await
}

fn bearer(tokens: &Value) -> Result<String> {
    Ok(format!("Bearer {}", tokens["access_token"].as_str().context("no access token")?))
}

/// Runs a script of `tests/apps/oauth`; the JSON of what it prints.
async fn script(name: &str, arguments: &[&str]) -> Result<Value> {
    need(Need::Python)?;
    let mut command = Command::new(provision::python_program("python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(paths::tests("apps/oauth").join(name)).args(arguments);
    printed(command, Duration::from_secs(60)).await
}

/// The last line of JSON that a program prints, which ends well and in time.
async fn printed(command: Command, within: Duration) -> Result<Value> {
    let process = Process::spawn(command)?;
    let status = process.wait(within).await?;
    process.output().closed(Duration::from_secs(10)).await?;
    ensure!(status.success(), "{}", process.output().tail());
    let last = process
        .output()
        .since(0)
        .iter()
        .rev()
        .find(|line| line.text.starts_with('{'))
        .map(|line| line.text.to_string());
    Ok(serde_json::from_str(&last.context("it printed nothing")?)?)
}

async fn a_login_reaches_the_app_as_headers_and_the_log_as_a_user(kept: Kept) -> Result<()> {
    let (_app, gateway) = gateway(&kept).await?;
    for (way, client) in crate::support::ways(&gateway)? {
        let name = format!("ann-{way}");
        let account = register(&client, &name).await?;
        let token = bearer(&tokens(&client, &name).await?)?;
        let mut answer = client.get("/me").header("authorization", &token).send().await?;
        assert_eq!(answer.status(), 200, "{way}");
        assert_eq!(answer.json().await?, json!({ "id": account["id"], "name": name }));
        let line = gateway.access_of(&answer).await?;
        assert_eq!((&line["user"], &line["key_id"]), (&account["id"], &Value::Null));
        let mut refused = client.get("/me").send().await?;
        assert_eq!((refused.status(), refused.header("www-authenticate")), (401, Some("Bearer")));
        assert_eq!(refused.json().await?["code"], "auth.required");
        let refused = client.get("/admin/secret").header("authorization", &token).send().await?;
        assert_eq!(refused.status(), 403);
        // The application sees neither the token nor what a client made up.
        let mut echoed =
            client.get("/echo").header("authorization", &token).header("x-forwarded-roles", "admin").send().await?;
        let echoed = echoed.json().await?.to_string();
        ensure!(!echoed.contains(token.trim_start_matches("Bearer ")) && !echoed.contains("admin"), "{echoed}");
    }
    let secrets: Vec<_> = gateway
        .output()
        .since(0)
        .iter()
        .filter(|line| line.text.contains("Kutschen"))
        .map(|line| line.text.to_string())
        .collect();
    ensure!(secrets.is_empty(), "a password in the log: {secrets:?}");
    let database: &[&str] = if matches!(kept, Kept::Embedded) { &["palisade.db", "palisade.db-wal"] } else { &[] };
    for file in database.iter().chain(&["secrets.age", "secrets.key"]) {
        use std::os::unix::fs::PermissionsExt as _;
        let file = gateway.state().join(file);
        let mode = std::fs::metadata(&file).with_context(|| file.display().to_string())?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    Ok(())
}

async fn authlib_and_httpx_get_refresh_and_revoke_tokens(kept: Kept) -> Result<()> {
    let (_app, gateway) = gateway(&kept).await?;
    let (client, base, ca) = (gateway.https()?, gateway.url("https")?, gateway.ca()?);
    let base = base.replace("127.0.0.1", "localhost");
    let ann = register(&client, "ann").await?;
    let seen = script("flows.py", &[&base, &ca.to_string_lossy(), "ann", PASSWORD]).await?;
    assert_eq!(seen["issuer"], json!(base));
    assert_eq!(seen["password"], json!({ "id": ann["id"], "name": "ann" }));
    assert_eq!((&seen["typ"], &seen["alg"]), (&json!("at+jwt"), &json!("EdDSA")));
    assert_eq!(seen["claims"]["sub"], ann["id"]);
    assert_eq!((&seen["rotated"], &seen["refreshed"]), (&json!(true), &json!(200)));
    assert_eq!((&seen["revoked"], &seen["after"]), (&json!(200), &json!(401)));
    assert_eq!(seen["spent"], json!([400, "invalid_grant"]));
    assert_eq!(seen["wrong"], json!([400, "invalid_grant", "auth.invalid_grant"]));

    let token = bearer(&tokens(&client, "ann").await?)?;
    let echoed = client.get("/echo?x=1").header("authorization", &token).send().await?.json().await?;
    let header = |name: &str| {
        let headers = echoed["headers"].as_array()?;
        headers.iter().find(|pair| pair[0] == name)?[1].as_str().map(str::to_owned)
    };
    let assertion = header("palisade-assertion").context("no assertion")?;
    let check = |token: String| {
        let (base, ca) = (base.clone(), ca.clone());
        async move { script("assertion.py", &[&base, &ca.to_string_lossy(), &base, "GET", "/echo", &token]).await }
    };
    let proved = check(assertion.clone()).await?;
    assert_eq!((&proved["claims"]["sub"], &proved["claims"]["name"]), (&ann["id"], &json!("ann")));
    assert_eq!(proved["elsewhere"], "an assertion for another request");
    // Threats 22: each kind of token passes its own verifier only.
    let access = token.trim_start_matches("Bearer ").to_owned();
    assert_eq!(check(access).await?["claims"], "another kind of token");
    let answer = client.get("/me").header("authorization", &format!("Bearer {assertion}")).send().await?;
    assert_eq!(answer.status(), 401);
    Ok(())
}

async fn a_session_ends_another(kept: Kept) -> Result<()> {
    let (_app, gateway) = gateway(&kept).await?;
    let client = gateway.https()?;
    register(&client, "ann").await?;
    let log_in = || async {
        let body = json!({ "username": "ann", "password": PASSWORD });
        let answer = client.post("/auth/login").json(&body).send().await?;
        let cookies = answer.all("set-cookie");
        let cookie = cookies.iter().find(|cookie| cookie.starts_with("__Host-palisade=")).context("no session")?;
        ensure!(cookie.contains("; Secure; HttpOnly; SameSite=Lax") && !cookie.contains("Domain"), "{cookie}");
        anyhow::Ok(cookie.split(';').next().unwrap_or_default().to_owned())
    };
    let (one, two) = (log_in().await?, log_in().await?);
    ensure!(one != two, "a login makes another session");
    let list = client.get("/auth/sessions").header("cookie", &one).send().await?.json().await?;
    let other =
        list.as_array().context("a list")?.iter().find(|session| session["current"] == false).context("another")?;
    let path = format!("/auth/sessions/{}", other["id"].as_str().unwrap_or_default());
    let end = |cookie: String| {
        client.request(http::Method::DELETE, &path).header("cookie", &cookie).header("sec-fetch-site", "same-origin")
    };
    assert_eq!(end(one.clone()).send().await?.status(), 204);
    assert_eq!(client.get("/me").header("cookie", &two).send().await?.status(), 401);
    assert_eq!(client.get("/me").header("cookie", &one).send().await?.status(), 200);
    Ok(())
}

async fn the_authorize_button_of_fastapis_own_page_works(kept: Kept) -> Result<()> {
    let (_app, gateway) = gateway(&kept).await?;
    register(&gateway.http()?, "ann").await?;
    let seen = browser::run("authorize_button.mjs", &[&gateway.url("http")?, "ann", PASSWORD]).await?;
    assert_eq!(seen["before"], 401);
    assert_eq!((&seen["after"], &seen["name"]), (&json!(200), &json!("ann")), "{seen}");
    Ok(())
}

/// A client as an operator registers one: over the gateway's own database, while it runs.
pub(crate) async fn add_client(
    gateway: &Palisade,
    kept: &Kept,
    new: NewClient,
) -> Result<Arc<palisade_identity::service::Client>> {
    let store = Store::open(&crate::support::database(kept, gateway)?).await?;
    let clock = Clock::real();
    let key = SigningKey::generate(Algorithm::EdDsa)?;
    let identity = Identity::new(Parts {
        store,
        pool: Pool::new(Limits::default(), clock.clone())?,
        hasher: Hasher::new(Cost::default(), Peppers::new([])?),
        policy: palisade_identity::password::Policy::default(),
        keyring: Keyring::new(key, clock.now()),
        settings: Settings::new("https://localhost"),
        clock,
    });
    Ok(identity.add_client(new).await?.0)
}

/// The rest of what Authlib does as it comes: a code with PKCE, introspection, a client for itself.
async fn authlib_as_a_registered_client_through_the_pages(kept: Kept) -> Result<()> {
    need(Need::Node)?;
    need(Need::Chromium)?;
    let app = App::uvicorn("identity", &[]).await?;
    let routes = "[[route]]\npath = \"/notes\"\nscopes = [\"notes:read\"]\n";
    let gateway = kept.setup(&app.url(), &format!("{POLICY}\n{routes}")).start().await?;
    let ann = register(&gateway.https()?, "ann").await?;
    let redirect = format!("http://127.0.0.1:{}/cb", palisade_test::ports::free()?);
    let grants = ["authorization_code", "refresh_token", "client_credentials"];
    let mut add = vec!["client", "add", "Calendar", "--method", "client_secret_basic", "--redirect", &redirect];
    add.extend(["--scope", "notes:read", "--json"]);
    add.extend(grants.iter().flat_map(|grant| ["--grant", grant]));
    let client = gateway.run(&add).await?.json()?;
    let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned).context("a text");
    let (id, secret) = (text(&client, "client_id")?, text(&client, "client_secret")?);
    let base = gateway.url("https")?.replace("127.0.0.1", "localhost");
    let ca = gateway.ca()?;
    let ca = ca.to_string_lossy();

    let begun = script("client.py", &["url", &base, &ca, &id, &secret, &redirect]).await?;
    let mut command = Command::new("node");
    command
        .arg(paths::tests("node/authorize.mjs"))
        .args([text(&begun, "url")?.as_str(), &redirect, "ann", PASSWORD])
        .env("PALISADE_NODE_MODULES", provision::node().join("node_modules"))
        .env("PALISADE_CHROMIUM", provision::chromium());
    let seen = printed(command, Duration::from_secs(120)).await?;
    assert_eq!(seen["error"], Value::Null, "{seen}");
    let (verifier, state, back) = (text(&begun, "verifier")?, text(&begun, "state")?, text(&seen, "back")?);
    let seen = script("client.py", &["tokens", &base, &ca, &id, &secret, &redirect, &verifier, &state, &back]).await?;
    assert_eq!((&seen["scope"], &seen["notes"]), (&json!("notes:read"), &json!(200)), "{seen}");
    let about = &seen["introspected"];
    assert_eq!((&about["active"], &about["username"], &about["sub"]), (&json!(true), &json!("ann"), &ann["id"]));
    assert_eq!((&about["client_id"], &about["scope"]), (&json!(id), &json!("notes:read")));
    assert_eq!((&seen["rotated"], &seen["after"]), (&json!(true), &json!({ "active": false })));
    let own = &seen["own"];
    assert_eq!((&own["active"], &own["sub"], &own["client_id"]), (&json!(true), &json!(id), &json!(id)), "{seen}");
    assert_eq!((&seen["own_notes"], &seen["own_refresh"]), (&json!(200), &json!(false)));
    Ok(())
}

async fn openid_client_through_the_pages_in_which_axe_finds_nothing(kept: Kept) -> Result<()> {
    need(Need::Node)?;
    need(Need::Chromium)?;
    let app = App::uvicorn("identity", &[]).await?;
    let routes = "[[route]]\npath = \"/notes\"\nscopes = [\"notes:read\"]\n";
    let gateway = kept.setup(&app.url(), &format!("{POLICY}\n{routes}")).start().await?;
    register(&gateway.https()?, "ann").await?;
    let client = add_client(
        &gateway,
        &kept,
        NewClient {
            name: "Calendar".into(),
            method: Method::Public,
            jwks: None,
            redirects: vec!["http://127.0.0.1/cb".into()],
            grants: vec![GrantKind::AuthorizationCode, GrantKind::RefreshToken],
            scopes: vec!["notes:read".into()],
            audience: Vec::new(),
            trusted: false,
        },
    )
    .await?;
    let base = gateway.url("https")?.replace("127.0.0.1", "localhost");
    let mut command = Command::new("node");
    command
        .arg(paths::tests("node/oauth_pages.mjs"))
        .args([base.as_str(), client.id.as_str(), "ann", PASSWORD])
        .env("PALISADE_NODE_MODULES", provision::node().join("node_modules"))
        .env("PALISADE_CHROMIUM", provision::chromium())
        .env("NODE_EXTRA_CA_CERTS", gateway.ca()?);
    let seen = printed(command, Duration::from_secs(180)).await?;
    assert_eq!(seen["error"], Value::Null, "{seen}");
    assert_eq!(seen["first"], "username", "the first stop of the keyboard");
    assert_eq!(seen["alert"], "the name or the password is wrong");
    assert_eq!((&seen["scope"], &seen["notes"]), (&json!("notes:read"), &json!(200)));
    assert_eq!((&seen["rotated"], &seen["after"]), (&json!(true), &json!(401)));
    ensure!(seen["key"].as_str().is_some_and(|key| key.starts_with("pal_dev_")), "{seen}");
    for complaint in ["csp_violations", "page_errors", "outside"] {
        assert_eq!(seen[complaint], json!([]), "{complaint}");
    }
    let pages = seen["found"].as_object().context("pages")?;
    ensure!(pages.len() >= 8, "{pages:?}");
    for (page, violations) in pages {
        assert_eq!(*violations, json!([]), "{page}");
    }
    Ok(())
}

/// Headers of a request that looks as a browser's does when somebody follows a link.
const NAVIGATION: [(&str, &str); 2] = [("accept", "text/html,application/xhtml+xml"), ("sec-fetch-mode", "navigate")];

/// `docs = "admin"`: whatever the routes open, also under `--detect`, and with `[headers]` switched off.
#[tokio::test]
async fn the_documentation_is_for_administrators() -> Result<()> {
    let app = App::uvicorn("identity", &[]).await?;
    let open = "[[route]]\npath = \"/*\"\npublic = true\n";
    let only = "[auth]\nregistration = \"open\"\nroutes = [\"/admin/*\"]\n";
    for (policy, arguments) in [
        (format!("[auth]\nregistration = \"open\"\n[headers]\ndocs = \"admin\"\n{open}"), None),
        (format!("[auth]\nregistration = \"open\"\n[headers]\ndocs = \"admin\"\n{open}"), Some("--detect")),
        (format!("{only}[headers]\ndocs = \"admin\"\nmode = \"off\"\n"), None),
    ] {
        let setup = Palisade::serve().policy(&crate::support::written_policy(&app.url(), &policy));
        let gateway = arguments.into_iter().fold(setup, |setup, argument| setup.arg(argument)).start().await?;
        let client = gateway.https()?;
        register(&client, "ann").await?;
        register(&client, "root").await?;
        let given = gateway.run(&["user", "set", "root", "--role", "admin"]).await?;
        ensure!(given.code == Some(0), "{}", given.err);
        let (ann, root) = (bearer(&tokens(&client, "ann").await?)?, bearer(&tokens(&client, "root").await?)?);
        for page in ["/docs", "/docs/", "/redoc", "/docs/oauth2-redirect", "/openapi.json", "/%64ocs", "//docs"] {
            let what = format!("{page} {arguments:?} {policy}");
            let mut nobody = client.get(page).send().await?;
            ensure!((nobody.status(), nobody.json().await?["code"].as_str()) == (401, Some("auth.required")), "{what}");
            let mut browser = client.get(page);
            for (name, value) in NAVIGATION {
                browser = browser.header(name, value);
            }
            let browser = browser.send().await?;
            let login = browser.header("location").unwrap_or_default().to_owned();
            ensure!(browser.status() == 303 && login.starts_with("/auth/login?return_to=%2F"), "{what}: {login}");
            let mut user = client.get(page).header("authorization", &ann).send().await?;
            ensure!((user.status(), user.json().await?["code"].as_str()) == (403, Some("auth.forbidden")), "{what}");
            let admin = client.get(page).header("authorization", &root).send().await?;
            ensure!(matches!(admin.status(), 200 | 307), "{what}: {}", admin.status());
        }
        let page = client.get("/docs").header("authorization", &root).send().await?;
        if !policy.contains("mode = \"off\"") && arguments.is_none() {
            let csp = page.header("content-security-policy").unwrap_or_default();
            ensure!(csp.contains("script-src https://cdn.jsdelivr.net/"), "{csp}");
            ensure!(page.header("cache-control") == Some("no-store"), "{:?}", page.headers());
        }
        // Nothing else of the application is closed by it.
        ensure!(client.get("/me").send().await?.status() == 200);
    }
    Ok(())
}
