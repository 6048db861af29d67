//! Sessions of browsers: fixation, theft, replay. Guide section 10.

use http::Method;
use serde_json::json;

use super::tests::{App, PASSWORD, cookie, value};
use crate::testing::Answer;
use palisade_test::kept::Kept;
use palisade_test::on_both;

const OTHER: &str = "sieben blaue Dächer am Hang";

/// Logs in with these cookies.
async fn log_in(app: &App, name: &str, cookies: &str, remember: bool) -> Answer {
    let body = json!({ "username": name, "password": PASSWORD, "remember": remember });
    let answer = app.json(Method::POST, "/auth/login", &[("cookie", cookies)], &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer
}

async fn opens(app: &App, session: &str) -> bool {
    app.get("/any", &[("cookie", session)]).await.status() == 200
}

/// The whole line that sets the session's cookie.
fn line(answer: &Answer) -> String {
    let mut lines = answer.headers().get_all("set-cookie").iter().filter_map(|line| line.to_str().ok());
    lines.rfind(|line| line.starts_with("__Host-palisade=")).expect("a session").to_owned()
}

on_both!(
    nobody_chooses_the_session_of_somebody_else,
    what_was_stolen_ends_with_what_its_owner_does,
    a_stolen_session_makes_nothing_that_outlives_it,
    how_long_a_cookie_lasts,
    other_rights_are_another_secret,
    a_logout_or_login_with_the_secret_before,
);

async fn nobody_chooses_the_session_of_somebody_else(kept: Kept) {
    let app = App::new(&kept, "").await;
    for name in ["ann", "mallory"] {
        app.register(name).await;
    }
    // One that was made up, and one that is good, planted in the browser of whoever logs in next.
    let planted = cookie(&log_in(&app, "mallory", "a=1", false).await).expect("a session");
    let made_up = format!("__Host-palisade={}", "A".repeat(43));
    for before in [made_up.as_str(), planted.as_str()] {
        let own = cookie(&log_in(&app, "ann", before, false).await).expect("a session");
        assert_ne!(own, before);
        assert!(opens(&app, &own).await && !opens(&app, before).await, "{before}");
    }
    // Each login has its own.
    let (one, two) = (app.session("ann").await, app.session("ann").await);
    assert!(one != two && opens(&app, &one).await && opens(&app, &two).await);
}

async fn what_was_stolen_ends_with_what_its_owner_does(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let same_site = ("sec-fetch-site", "same-origin");
    // A logout.
    let stolen = app.session("ann").await;
    let out = app.harness.send(Method::POST, "/auth/logout", &[("cookie", &stolen), same_site], "").await;
    assert_eq!(out.header("clear-site-data"), "\"cache\", \"storage\"");
    assert!(line(&out).contains("Max-Age=0") && !opens(&app, &stolen).await, "replayed");
    // Another password: the browser goes on under another secret, whoever has a copy of the old one does not.
    let (stolen, elsewhere) = (app.session("ann").await, app.session("ann").await);
    let body = json!({ "current_password": PASSWORD, "new_password": OTHER });
    let changed = app.json(Method::POST, "/auth/password", &[("cookie", &stolen)], &body).await;
    assert_eq!(changed.status(), 204, "{}", changed.text());
    let own = cookie(&changed).expect("another secret");
    assert!(opens(&app, &own).await && !opens(&app, &stolen).await && !opens(&app, &elsewhere).await);
    let back = json!({ "current_password": OTHER, "new_password": PASSWORD });
    let own = cookie(&app.json(Method::POST, "/auth/password", &[("cookie", &own)], &back).await).expect("a session");
    // The list, on which a stranger is seen and ended; one's own by this way too.
    let stolen = app.session("ann").await;
    let list = value(&app.get("/auth/sessions", &[("cookie", &own)]).await);
    let all = list.as_array().unwrap();
    assert_eq!(all.len(), 2, "{list}");
    assert!(all.iter().all(|one| one["address"] == "192.0.2.7" && one["created"].is_string()), "{list}");
    let id =
        |current: bool| all.iter().find(|one| one["current"] == current).unwrap()["id"].as_str().unwrap().to_owned();
    let end = async |session: &str, id: &str| {
        let path = format!("/auth/sessions/{id}");
        app.harness.send(Method::DELETE, &path, &[("cookie", session), same_site], "").await
    };
    assert_eq!(end(&own, &id(false)).await.status(), 204);
    assert!(!opens(&app, &stolen).await && opens(&app, &own).await);
    assert_eq!(end(&own, &id(false)).await.status(), 404, "once");
    let last = end(&own, &id(true)).await;
    assert!(line(&last).contains("Max-Age=0") && !last.header("clear-site-data").is_empty());
    assert!(!opens(&app, &own).await);
    // All others at once.
    let (one, two, own) = (app.session("ann").await, app.session("ann").await, app.session("ann").await);
    let all = app.harness.send(Method::DELETE, "/auth/sessions", &[("cookie", &own), same_site], "").await;
    assert_eq!(all.status(), 204);
    assert!(!opens(&app, &one).await && !opens(&app, &two).await && opens(&app, &own).await);
}

async fn a_stolen_session_makes_nothing_that_outlives_it(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let stolen = app.session("ann").await;
    app.harness.clock().advance(std::time::Duration::from_secs(11 * 60));
    assert!(opens(&app, &stolen).await);
    let headers = [("cookie", stolen.as_str())];
    for (method, path, body) in [
        (Method::POST, "/auth/keys", json!({ "name": "k", "scopes": ["a"] })),
        (Method::POST, "/auth/password", json!({ "current_password": PASSWORD, "new_password": OTHER })),
        (Method::PATCH, "/auth/me", json!({ "email": "thief@example.com" })),
        (Method::DELETE, "/auth/sessions", json!({})),
    ] {
        let answer = app.json(method, path, &headers, &body).await;
        assert_eq!(answer.refusal().map(|code| code.name), Some("auth.step_up"), "{path}");
    }
}

async fn how_long_a_cookie_lasts(kept: Kept) {
    let app =
        App::with(&kept, "registration = \"open\"\n[session]\nidle = \"30m\"\nabsolute = \"2h\"\nremember = \"10d\"")
            .await;
    app.register("ann").await;
    let minutes = |n: u64| app.harness.clock().advance(std::time::Duration::from_secs(n * 60));
    let plain = log_in(&app, "ann", "a=1", false).await;
    let text = line(&plain);
    assert!(text.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax") && !text.contains("Max-Age"), "{text}");
    let remembered = log_in(&app, "ann", "a=1", true).await;
    assert!(line(&remembered).contains("; Max-Age=864000"), "{}", line(&remembered));
    let (plain, remembered) = (cookie(&plain).unwrap(), cookie(&remembered).unwrap());
    // It stays so under another secret, for the rest of its time.
    let body = json!({ "current_password": PASSWORD, "new_password": OTHER });
    let changed = app.json(Method::POST, "/auth/password", &[("cookie", &remembered)], &body).await;
    let text = line(&changed);
    let left: u64 = text.split_once("; Max-Age=").expect("it lasts").1.parse().unwrap();
    assert!((863_900..=864_000).contains(&left), "{text}");
    let remembered = cookie(&changed).unwrap();
    assert!(!opens(&app, &plain).await, "a new password ends it");
    let back = json!({ "current_password": OTHER, "new_password": PASSWORD });
    let changed = app.json(Method::POST, "/auth/password", &[("cookie", &remembered)], &back).await;
    let remembered = cookie(&changed).unwrap();
    let plain = app.session("ann").await;
    minutes(29);
    assert!(opens(&app, &plain).await);
    minutes(31);
    assert!(!opens(&app, &plain).await && opens(&app, &remembered).await, "idle");
    let busy = app.session("ann").await;
    for _ in 0..5 {
        minutes(20);
        assert!(opens(&app, &busy).await);
    }
    minutes(20);
    assert!(!opens(&app, &busy).await && opens(&app, &remembered).await, "absolute");
    minutes(10 * 24 * 60);
    assert!(!opens(&app, &remembered).await);
}

/// The lines that say what becomes of the session.
fn lines(answer: &Answer) -> Vec<&str> {
    let all = answer.headers().get_all("set-cookie").iter().filter_map(|line| line.to_str().ok());
    all.filter(|line| line.starts_with("__Host-palisade=")).collect()
}

/// Two accounts, of which one manages the other.
struct Managed {
    app: App,
    administrator: String,
    path: String,
}

impl Managed {
    async fn new(kept: &Kept) -> Self {
        let app = App::new(kept, "").await;
        let root = app.register("root").await;
        app.make_admin(root["id"].as_str().unwrap()).await;
        let ann = app.register("ann").await;
        let path = format!("/auth/users/{}", ann["id"].as_str().unwrap());
        let administrator = app.session("root").await;
        Self { app, administrator, path }
    }

    async fn give(&self, roles: &[&str]) {
        let headers = [("cookie", self.administrator.as_str())];
        let changed = self.app.json(Method::PATCH, &self.path, &headers, &json!({ "roles": roles })).await;
        assert_eq!(changed.status(), 200, "{}", changed.text());
    }

    /// The grace is over. What was revoked meanwhile is known, as it is where time goes by itself.
    async fn later(&self) {
        self.app.harness.clock().advance(std::time::Duration::from_secs(10));
        let live = self.app.harness.handle().live();
        let ready = live.policy.controls().auth.control.as_ref().unwrap().open(&live.policy).await.unwrap();
        ready.identity.catch_up().await.unwrap();
    }
}

/// An administrator changes what somebody may do: whatever the next request of their session is answered with, the answer
/// brings the secret under which it goes on.
async fn other_rights_are_another_secret(kept: Kept) {
    let managed = Managed::new(&kept).await;
    let app = &managed.app;
    let mut session = app.session("ann").await;
    for (roles, path, status) in [
        (&["user"][..], "/any", 200),
        (&[], "/admin", 403),
        (&["admin"], "/admin", 200),
        (&["user"], "/auth/me", 200),
        (&["admin"], "/auth/nothing", 404),
        (&[], "/open", 200),
    ] {
        managed.give(roles).await;
        let answer = app.get(path, &[("cookie", &session)]).await;
        assert_eq!(answer.status(), status, "{path}: {}", answer.text());
        let [line] = lines(&answer)[..] else { panic!("{path}: {:?}", lines(&answer)) };
        assert!(line.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"), "{line}");
        assert!(answer.header("cache-control").contains("no-store"), "{path}: {}", answer.header("cache-control"));
        let next = cookie(&answer).unwrap();
        assert_ne!(next, session, "{path}");
        // A request beside it, whose answer brings the same.
        let beside = app.get(path, &[("cookie", &session)]).await;
        assert_eq!((beside.status(), cookie(&beside)), (status, Some(next.clone())), "{path}");
        let after = app.get(path, &[("cookie", &next)]).await;
        assert_eq!((after.status(), lines(&after).len()), (status, 0), "{path}");
        session = next;
        managed.later().await;
    }
    // Nothing that is under the pages of the session is lost with its secret.
    let token = value(&app.get("/auth/csrf", &[("cookie", &session)]).await)["csrf_token"].as_str().unwrap().to_owned();
    managed.give(&["user"]).await;
    let first = app.harness.send(Method::POST, "/any", &[("cookie", &session), ("x-csrf-token", &token)], "x").await;
    let next = cookie(&first).expect("another secret");
    let then = app.harness.send(Method::POST, "/any", &[("cookie", &next), ("x-csrf-token", &token)], "x").await;
    assert_eq!((first.status(), then.status()), (200, 200));
    // A copy of the secret before, when nobody of good faith sends it any more.
    managed.later().await;
    assert!(opens(app, &next).await && !opens(app, &session).await);
    assert!(!opens(app, &next).await, "whoever has the copy may have had more");
}

/// What an endpoint does to the session is the last word on it.
async fn a_logout_or_login_with_the_secret_before(kept: Kept) {
    let managed = Managed::new(&kept).await;
    let app = &managed.app;
    let session = app.session("ann").await;
    managed.give(&["user"]).await;
    let next = cookie(&app.get("/any", &[("cookie", &session)]).await).expect("another secret");
    let own = [("cookie", session.as_str()), ("sec-fetch-site", "same-origin")];
    let out = app.harness.send(Method::POST, "/auth/logout", &own, "").await;
    assert_eq!((out.status(), lines(&out).len()), (204, 1));
    assert!(line(&out).contains("Max-Age=0") && !opens(app, &next).await);

    let session = app.session("ann").await;
    managed.give(&[]).await;
    let other = log_in(app, "ann", &session, false).await;
    let [_] = lines(&other)[..] else { panic!("{:?}", lines(&other)) };
    assert!(opens(app, &cookie(&other).unwrap()).await && !opens(app, &session).await);

    let session = app.session("ann").await;
    managed.give(&["user"]).await;
    let body = json!({ "current_password": PASSWORD, "new_password": OTHER });
    let changed = app.json(Method::POST, "/auth/password", &[("cookie", &session)], &body).await;
    assert_eq!((changed.status(), lines(&changed).len()), (204, 1), "{}", changed.text());
    assert!(opens(app, &cookie(&changed).unwrap()).await && !opens(app, &session).await);
}
