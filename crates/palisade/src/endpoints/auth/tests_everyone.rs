//! Every endpoint by every kind of credential, with the list of those that are let in: `everyone.txt`, which may only
//! shrink. An endpoint that is new is in the registry, and so in this table; whoever may use it has to be written down.

use std::collections::BTreeSet;

use http::Method;
use palisade_identity::service::{GrantKind, Method as Proves};
use palisade_identity::token::{Claims, kind};

use super::tests::{App, bearer, value};

/// Who is let in where: `POST /token: *`, or `GET /me: user session, user token`.
const LIST: &str = include_str!("everyone.txt");
/// How many pairs that are. It may be made smaller, and nothing else.
const PAIRS: usize = 0;

/// What lies under `/.palisade` and beside it.
const OTHERS: [(&str, &str); 5] = [
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/.well-known/oauth-protected-resource"),
    ("GET", "/.palisade/problems/auth.required"),
    ("GET", "/.palisade/csrf"),
    ("POST", "/old-token"),
];

/// Kinds of credentials, by what a request is sent with.
struct Everyone {
    kinds: Vec<(&'static str, Vec<(&'static str, String)>)>,
    /// What stands for `{id}`: Ann's own session, key, account; a role.
    session: String,
    key: String,
    user: String,
}

impl App {
    fn signed(&self, kind: &str, change: impl FnOnce(&mut Claims)) -> String {
        let live = self.harness.handle().live();
        let auth = live.policy.controls().auth.control.as_ref().unwrap();
        let ready = auth.ready().unwrap();
        let now = live.policy.clock().now();
        let mut claims = Claims::new(ready.issuer(), "", [ready.issuer()]);
        claims.issued_at = Some(now.0 / 1000);
        claims.expires_at = Some(now.0 / 1000 + 600);
        claims.id = Some(ready.fresh_id());
        claims.client = Some("palisade".into());
        change(&mut claims);
        let signer = match kind {
            kind::ASSERTION => ready.rings().assertion_signer(),
            _ => ready.rings().signer(),
        };
        format!("Bearer {}", signer.sign(kind, &claims).unwrap().expose())
    }

    async fn everyone(&self, ids: &[(&str, String)]) -> Everyone {
        let id = |name: &str| ids.iter().find(|(known, _)| *known == name).map(|(_, id)| id.clone()).unwrap();
        let (ann, bob, root) = (self.session("ann").await, self.session("bob").await, self.session("root").await);
        let tokens = self.token("ann", "").await;
        let admin = bearer(&self.token("root", "").await);
        let narrow = bearer(&self.token("root", "&scope=notes:read").await);
        let key = self.key(&ann, &["notes:read"]).await;
        let admin_key = self.key(&root, &["notes:read"]).await;
        let client = self.client(Proves::Post, &[GrantKind::ClientCredentials]).await;
        let form = format!("grant_type=client_credentials&client_id={}&client_secret={}", client.id, client.secret);
        let itself = bearer(&value(&self.form("/auth/token", &[], &format!("{form}&scope=notes:read")).await));
        let about = |subject: String| move |claims: &mut Claims| claims.subject = Some(subject);
        let list = value(&self.get("/auth/sessions", &[("cookie", &ann)]).await);
        let session = list.as_array().unwrap().iter().find(|one| one["current"] == true).unwrap()["id"].clone();
        let keys = value(&self.get("/auth/keys", &[("cookie", &ann)]).await);
        let authorization = |value: String| vec![("authorization", value)];
        let kinds = vec![
            ("nobody", vec![]),
            ("user session", vec![("cookie", ann)]),
            ("other session", vec![("cookie", bob)]),
            ("admin session", vec![("cookie", root)]),
            ("user token", authorization(bearer(&tokens))),
            ("admin token", authorization(admin)),
            ("narrow token", authorization(narrow)),
            ("client token", authorization(itself)),
            ("user key", vec![("x-api-key", key)]),
            ("admin key", vec![("x-api-key", admin_key)]),
            ("refresh token", authorization(format!("Bearer {}", tokens["refresh_token"].as_str().unwrap()))),
            ("ended session", vec![("cookie", format!("__Host-palisade={}", "A".repeat(43)))]),
            (
                "expired token",
                authorization(self.signed(kind::ACCESS, |claims| {
                    about(id("root"))(claims);
                    claims.issued_at = Some(1_700_000_000);
                    claims.expires_at = Some(1_700_000_600);
                })),
            ),
            (
                "foreign audience",
                authorization(self.signed(kind::ACCESS, |claims| {
                    about(id("root"))(claims);
                    claims.audience = vec!["https://other.example".into()];
                })),
            ),
            ("id token", authorization(self.signed(kind::ID, about(id("root"))))),
            ("logout token", authorization(self.signed(kind::LOGOUT, about(id("root"))))),
            ("assertion", authorization(self.signed(kind::ASSERTION, about(id("root"))))),
            (
                "assertion header",
                vec![("palisade-assertion", self.signed(kind::ASSERTION, about(id("root"))).replace("Bearer ", ""))],
            ),
            ("forged headers", vec![("x-forwarded-user", id("root")), ("x-forwarded-roles", "admin".into())]),
            ("junk", authorization("Bearer junk".into())),
        ];
        let key = keys[0]["id"].as_str().unwrap().to_owned();
        Everyone { kinds, session: session.as_str().unwrap().to_owned(), key, user: id("ann") }
    }
}

impl Everyone {
    fn path(&self, pattern: &str) -> String {
        let id = match pattern {
            _ if pattern.starts_with("/keys") => &self.key,
            _ if pattern.starts_with("/users") => &self.user,
            _ if pattern.starts_with("/roles") => "nothing",
            _ => &self.session,
        };
        pattern.replace("{id}", id)
    }
}

/// Whether an endpoint has let somebody in: it has looked at what they want, and not only at who they are.
fn is_in(answer: &crate::testing::Answer) -> bool {
    let code = answer.refusal().map_or("", |code| code.name);
    !matches!((answer.status(), code), (401, _) | (303, "auth.required") | (403, "auth.forbidden" | "auth.step_up"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_by_every_credential() {
    let app = App::new("paths = { token = \"/old-token\" }\n[rate_limit]\ndefault = \"off\"\n");
    let mut ids = Vec::new();
    for name in ["ann", "bob", "root"] {
        ids.push((name, app.register(name).await["id"].as_str().unwrap().to_owned()));
    }
    app.make_admin(&ids[2].1).await;
    let mut everyone = app.everyone(&ids).await;
    let own = super::all().map(|(method, path)| (method.clone(), path.to_owned(), format!("/auth{path}")));
    let others = OTHERS.iter().map(|(method, path)| (method.parse().unwrap(), (*path).to_owned(), (*path).to_owned()));
    let mut let_in: BTreeSet<(String, &'static str)> = BTreeSet::new();
    let mut lines = Vec::new();
    for (method, name, pattern) in own.chain(others).collect::<Vec<(Method, String, String)>>() {
        let endpoint = format!("{method} {name}");
        let mut who = Vec::new();
        for place in 0..everyone.kinds.len() {
            let target = if pattern == name { pattern.clone() } else { format!("/auth{}", everyone.path(&name)) };
            let (kind, credential) = everyone.kinds[place].clone();
            let mut answer = None;
            for (content, body) in [("application/json", "{}"), ("application/x-www-form-urlencoded", "")] {
                let mut headers = vec![("content-type", content), ("sec-fetch-site", "same-origin")];
                headers.extend(credential.iter().map(|(name, value)| (*name, value.as_str())));
                answer = Some(app.harness.send(method.clone(), &target, &headers, body).await);
                if answer.as_ref().is_some_and(|answer| answer.status() != 415) {
                    break;
                }
            }
            let answer = answer.unwrap();
            if !is_in(&answer) {
                continue;
            }
            who.push(kind);
            let_in.insert((endpoint.clone(), kind));
            // What is somebody else's is not even there.
            if kind == "other session" && name.contains("{id}") {
                assert!(answer.status() >= 400, "{endpoint} of Ann's by Bob: {}", answer.status());
            }
            if method == Method::DELETE || name == "/logout" || name.ends_with("/rotate") {
                everyone = app.everyone(&ids).await;
            }
        }
        if !who.is_empty() {
            let all = who.len() == everyone.kinds.len();
            lines.push(format!("{endpoint}: {}", if all { "*".to_owned() } else { who.join(", ") }));
        }
    }
    let kinds: Vec<&'static str> = everyone.kinds.iter().map(|(kind, _)| *kind).collect();
    let mut listed: BTreeSet<(String, &'static str)> = BTreeSet::new();
    for line in LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (endpoint, who) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
        for kind in &kinds {
            if who == "*" || who.split(", ").any(|one| one == *kind) {
                listed.insert((endpoint.to_owned(), kind));
            }
        }
        for one in who.split(", ").filter(|one| *one != "*") {
            assert!(kinds.contains(&one), "{line}: there is no `{one}`");
        }
    }
    let whole = lines.join("\n");
    let opened: Vec<_> = let_in.difference(&listed).collect();
    assert!(opened.is_empty(), "let in, and not on the list: {opened:?}\nAll:\n{whole}");
    let unneeded: Vec<_> = listed.difference(&let_in).collect();
    assert!(unneeded.is_empty(), "on the list, and not let in any more: take it out: {unneeded:?}\nAll:\n{whole}");
    assert_eq!(listed.len(), PAIRS, "the list may only shrink: then make the number smaller");
}
