//! Killed at any moment, a process leaves everything behind that it acknowledged.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;

use super::*;
use crate::opaque::Session;
use crate::refresh::RefreshToken;

const DATABASE: &str = "PALISADE_TEST_DATABASE";
const KEY: &str = "PALISADE_TEST_KEY";

/// What the child said that it had done.
#[derive(Debug, Default)]
struct Said {
    registered: Vec<String>,
    /// Families that go on, by the last token that was handed out.
    open: Vec<String>,
    /// Refresh and access tokens that were revoked.
    revoked: Vec<(String, String)>,
    /// Sessions of browsers that go on, and that have ended.
    sessions: Vec<String>,
    ended: Vec<String>,
    logins: usize,
}

fn keyring(hex: &str, clock: &Clock) -> Keyring {
    let private = Secret::new(HEXLOWER.decode(hex.as_bytes()).expect("hex"));
    Keyring::new(SigningKey::from_private(Algorithm::EdDsa, private).expect("a key"), clock.now())
}

async fn instance(url: &str, key: &str) -> Identity {
    let options = Options::parse(&Secret::new(url.to_owned()), std::path::Path::new("/")).expect("a URL");
    let clock = Clock::real();
    let store = Store::open(&options).await.expect("a database");
    let identity = World::instance(store, clock.clone(), keyring(key, &clock));
    identity.catch_up().await.expect("the feed");
    identity
}

/// No test of its own: what the tests below start and kill.
#[tokio::test]
async fn child() {
    let (Ok(url), Ok(key)) = (std::env::var(DATABASE), std::env::var(KEY)) else { return };
    let identity = instance(&url, &key).await;
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        // Whoever reads has killed us.
        let _ = writeln!(out, "said {line}").and_then(|()| out.flush());
    };
    let name = format!("user-{}", Uuid::now_v7().simple());
    let new = NewUser { name: &name, email: None, password: PASSWORD };
    identity.register(new, &from(1)).await.expect("registered");
    say(format!("registered {name}"));
    let checked = identity.check_password(&name, PASSWORD, &from(1)).await.expect("logged in");
    say("login".into());
    for round in 0_u64.. {
        let name = format!("user-{}", Uuid::now_v7().simple());
        identity.add_for_test(&name).await.expect("added");
        say(format!("registered {name}"));
        let session = identity.start_session(&checked, StartSession::default(), &from(1)).await.expect("a session");
        let cookie = session.secret.reveal();
        say(format!("session {}", cookie.expose()));
        if round % 2 == 1 {
            assert!(identity.end_session(&session.secret).await.expect("ended"));
            say(format!("ended {}", cookie.expose()));
        }
        let first = identity.grant(&checked, NewGrant::default(), &from(1)).await.expect("tokens");
        say(format!("granted {}", first.refresh.reveal().expose()));
        let second =
            identity.refresh(&first.refresh, None, false, &TokenRequest::default(), &from(1)).await.expect("refreshed");
        let (before, after) = (first.refresh.reveal(), second.refresh.reveal());
        say(format!("refreshed {} {}", before.expose(), after.expose()));
        if round % 2 == 0 {
            assert!(identity.revoke_refresh(&second.refresh, None).await.expect("revoked"));
            say(format!("revoked {} {}", after.expose(), second.access.text.expose()));
        }
    }
}

impl Said {
    fn hear(&mut self, line: &str) {
        // The harness prints the name of its test in front of the first line.
        let Some((_, said)) = line.trim_end().split_once("said ") else { return };
        match said.split(' ').collect::<Vec<_>>().as_slice() {
            ["registered", name] => self.registered.push((*name).to_owned()),
            ["login"] => self.logins += 1,
            ["session", cookie] => self.sessions.push((*cookie).to_owned()),
            ["ended", cookie] => {
                self.sessions.retain(|session| session != cookie);
                self.ended.push((*cookie).to_owned());
            }
            ["granted", token] => self.open.push((*token).to_owned()),
            ["refreshed", before, after] => {
                self.open.retain(|token| token != before);
                self.open.push((*after).to_owned());
            }
            ["revoked", refresh, access] => {
                self.open.retain(|token| token != refresh);
                self.revoked.push(((*refresh).to_owned(), (*access).to_owned()));
            }
            _ => {}
        }
    }

    /// The last line may be cut, and what it tells of was not acknowledged.
    fn listen(child: Child, kill_after: Duration) -> Self {
        // Whatever comes, also a test that fails.
        struct Ended(Child);
        impl Drop for Ended {
            fn drop(&mut self) {
                let _ = self.0.kill();
                let _ = self.0.wait();
            }
        }
        let mut ended = Ended(child);
        let child = &mut ended.0;
        let out = child.stdout.take().expect("a pipe");
        let (sender, receiver) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut line = String::new();
            while out.read_line(&mut line).is_ok_and(|read| read > 0) {
                if !line.ends_with('\n') || sender.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
        let mut said = Self::default();
        // The clock starts when the loop does: before, there is nothing to lose.
        let patience = Instant::now() + Duration::from_secs(60);
        while said.logins == 0 {
            let left = patience.saturating_duration_since(Instant::now());
            said.hear(&receiver.recv_timeout(left).expect("the child says something"));
        }
        let end = Instant::now() + kill_after;
        while let Ok(line) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            said.hear(&line);
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("its end");
        reader.join().expect("no panic");
        receiver.try_iter().for_each(|line| said.hear(&line));
        said
    }

    async fn is_kept(&self, identity: &Identity) {
        for name in &self.registered {
            assert!(identity.find_user(name).await.expect("asked").is_some(), "{name} was registered");
        }
        for (refresh, access) in &self.revoked {
            let token = RefreshToken::parse(refresh).expect("a token");
            assert!(
                identity.refresh(&token, None, false, &TokenRequest::default(), &from(1)).await.is_err(),
                "revoked, and refreshes"
            );
            assert!(identity.token(access, &[]).await.is_err(), "revoked, and is accepted");
        }
        let is_good = async |cookie: &String| {
            let session = Session::parse(cookie).expect("a session");
            identity.session(&session, &from(1)).await.is_ok()
        };
        for cookie in &self.ended {
            assert!(!is_good(cookie).await, "ended, and is accepted");
        }
        for cookie in &self.sessions {
            // As below; and of one account only so many go on.
            let may_be_gone = Some(cookie) == self.sessions.last() || self.sessions.len() > 90;
            assert!(is_good(cookie).await || may_be_gone, "a login is lost");
        }
        for refresh in &self.open {
            let token = RefreshToken::parse(refresh).expect("a token");
            let next = identity.refresh(&token, None, false, &TokenRequest::default(), &from(1)).await;
            // A rotation or a revocation whose answer never came may have taken place.
            let unheard = matches!(&next, Err(GrantError::Replayed { how: crate::refresh::Replay::AfterEnd, .. }));
            assert!(next.is_ok() || (unheard && Some(refresh) == self.open.last()), "{next:?}");
        }
    }
}

async fn killed(url: &str, kills: u64) {
    let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
    let key = HEXLOWER.encode(key.private().expose());
    let (mut registered, mut revoked, mut sessions, mut ended) = (0, 0, 0, 0);
    for kill in 0..kills {
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["service::tests::durability::child", "--exact", "--nocapture", "--test-threads=1"])
            .envs([(DATABASE, url), (KEY, &key)])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        // Everywhere in the first quarter of a second, in no order.
        let after = Duration::from_millis(10 + kill * 37 % 240);
        let said = tokio::task::spawn_blocking(move || Said::listen(child, after)).await.expect("no panic");
        let identity = instance(url, &key).await;
        said.is_kept(&identity).await;
        registered += said.registered.len();
        revoked += said.revoked.len();
        sessions += said.sessions.len();
        ended += said.ended.len();
        identity.store().close().await;
    }
    assert!(registered as u64 > kills && revoked > 0, "{registered} registered, {revoked} revoked");
    assert!(sessions > 0 && ended > 0, "{sessions} sessions go on, {ended} have ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("palisade.db");
    let store = Store::open(&Options::sqlite(&file)).await.expect("a database");
    store.migrate().await.expect("migrated");
    store.close().await;
    killed(&format!("sqlite:{}", file.display()), 50).await;
}

/// The client is killed; that PostgreSQL itself survives its own end is in `weather`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_on_postgres() {
    let server = Postgres::shared().await.expect("PostgreSQL");
    let database = server.database().await.expect("a database");
    let options = Options::parse(&Secret::new(database.url()), std::path::Path::new("")).expect("a URL");
    let store = Store::open(&options).await.expect("a database");
    store.migrate().await.expect("migrated");
    store.close().await;
    killed(&database.url(), 10).await;
}

/// Ten times PostgreSQL itself is killed under load: what was acknowledged is there when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_killed_ten_times() {
    // What a crash of the machine would take is not what is tried here, but its log has to be written.
    let server = Postgres::with(&[("fsync", "on"), ("full_page_writes", "on")], None).await.expect("PostgreSQL");
    let world = World::new(Place::Postgres(server.database().await.expect("a database"))).await;
    world.user("alice").await;
    let checked = world.login("alice").await;
    let mut done = 0;
    for kill in 0..10_u64 {
        let acknowledged = {
            let identity = world.identity.clone();
            let work = async {
                let mut done: Vec<(RefreshToken, bool)> = Vec::new();
                loop {
                    let Ok(first) = identity.grant(&checked, NewGrant::default(), &from(1)).await else { return done };
                    let Ok(second) =
                        identity.refresh(&first.refresh, None, false, &TokenRequest::default(), &from(1)).await
                    else {
                        // Handed out, and its refresh may or may not have taken place: grace is for that.
                        done.push((first.refresh, true));
                        return done;
                    };
                    match identity.revoke_refresh(&second.refresh, None).await {
                        Ok(_) => done.push((second.refresh, false)),
                        Err(_) => return done,
                    }
                }
            };
            let killer = async {
                tokio::time::sleep(Duration::from_millis(50 + kill * 29)).await;
                server.kill();
            };
            tokio::join!(work, killer).0
        };
        server.restart().await.expect("back");
        done += acknowledged.len();
        for (token, lives) in acknowledged {
            let refreshed = world.identity.refresh(&token, None, false, &TokenRequest::default(), &from(1)).await;
            assert_eq!(refreshed.is_ok(), lives, "{refreshed:?}");
        }
    }
    assert!(done > 10, "{done} things were acknowledged before the kills");
}
