//! A session gets another secret when what its user may do has changed.

use std::time::Duration;

use palisade_store::sessions;

use super::*;
use crate::opaque::Session;
use crate::refresh::GRACE;

async fn started(world: &World, name: &str, remember: bool) -> Started {
    let checked = world.login(name).await;
    let how = StartSession { remember, ..StartSession::default() };
    world.identity.start_session(&checked, how, &from(1)).await.expect("a session")
}

/// What a browser at `from(1)` gets: its caller, and the secret that its answer brings.
async fn asks(identity: &Identity, secret: &Session) -> Result<(Caller, Option<Session>), NotValid> {
    asks_from(identity, secret, &from(1)).await
}

async fn asks_from(
    identity: &Identity,
    secret: &Session,
    origin: &Origin,
) -> Result<(Caller, Option<Session>), NotValid> {
    match identity.session(secret, origin).await {
        Ok((caller, rotated)) => Ok((caller, rotated.map(|rotated| rotated.secret))),
        Err(Unrecognised::NotValid(why)) => Err(why),
        Err(other) => panic!("{other}"),
    }
}

async fn give(identity: &Identity, user: UserId, roles: &[&str]) {
    let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
    identity.edit_user(user, Edit { roles: Some(&roles), ..Edit::default() }).await.expect("changed");
}

fn same(one: &Session, other: &Session) -> bool {
    one.stored().matches(other)
}

fn is_replayed<T>(asked: Result<T, NotValid>) -> bool {
    matches!(asked, Err(NotValid::Replayed { .. }))
}

on_both! {
    async fn a_change_of_roles_gives_another_secret(world: World) {
        let alice = world.user("alice").await;
        let started = started(&world, "alice", false).await;
        let (identity, other) = (&world.identity, world.another().await);
        for instance in [identity, &other] {
            let (caller, next) = asks(instance, &started.secret).await.expect("valid");
            assert!(next.is_none() && !caller.account().expect("an account").has_role("admin"));
        }
        give(identity, alice.id, &["admin"]).await;
        assert!(identity.session_cached(&started.secret).is_none(), "memory does not decide it");
        let (caller, next) = asks(identity, &started.secret).await.expect("served");
        let next = next.expect("another secret");
        assert!(caller.account().expect("an account").has_role("admin") && !same(&next, &started.secret));
        assert_eq!(identity.sessions_of(alice.id).await.expect("a list").len(), 1, "the same session");

        // Beside it, here and at another instance: served, and told the same again until that has arrived.
        other.catch_up().await.expect("the feed");
        for instance in [identity, &other] {
            let (caller, again) = asks(instance, &started.secret).await.expect("served");
            assert!(caller.account().expect("an account").has_role("admin"));
            assert!(same(&again.expect("told again"), &next));
        }
        for instance in [&other, identity] {
            assert!(asks(instance, &next).await.expect("valid").1.is_none());
            assert!(asks(instance, &next).await.expect("valid").1.is_none());
            assert!(instance.session_cached(&next).is_some_and(|known| known.is_ok()), "from memory again");
            assert!(asks(instance, &started.secret).await.expect("under way").1.is_none(), "it has arrived");
        }

        // Later it is a copy in somebody's hands.
        world.clock.advance(GRACE);
        assert!(asks(&other, &next).await.is_ok());
        assert!(is_replayed(asks(&other, &started.secret).await));
        identity.catch_up().await.expect("the feed");
        for instance in [&other, identity] {
            assert_eq!(asks(instance, &next).await.err(), Some(NotValid::Unknown), "the session has ended");
            assert_eq!(asks(instance, &started.secret).await.err(), Some(NotValid::Unknown), "once is enough");
        }
    }
}

on_both! {
    /// A role that permits something else, one that is deleted, one that is taken; and nothing for anybody else.
    async fn whatever_changes_what_a_user_may(world: World) {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let identity = &world.identity;
        identity.add_role("editor", &words(&["notes:read"])).await.expect("made");
        identity.add_role("other", &words(&["notes:read"])).await.expect("made");
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        give(identity, alice.id, &["editor", "user"]).await;
        let mut secret = started(&world, "alice", false).await.secret;
        let bobs = started(&world, "bob", false).await.secret;
        let mut turns = async |what: &str| {
            let (_, next) = asks(identity, &secret).await.expect("served");
            secret = next.unwrap_or_else(|| panic!("{what}"));
            assert!(asks(identity, &secret).await.expect("valid").1.is_none(), "{what}: once");
            // Nothing of one change is left when the next one comes.
            world.clock.advance(GRACE);
        };
        identity.set_permissions("editor", &words(&["notes:read", "notes:write"])).await.expect("changed");
        turns("a role that permits more").await;
        identity.set_permissions("editor", &[]).await.expect("changed");
        turns("a role that permits less").await;
        give(identity, alice.id, &["user"]).await;
        turns("a role that is taken").await;
        give(identity, alice.id, &["editor"]).await;
        turns("one that is given for another").await;
        identity.delete_role("editor").await.expect("deleted");
        turns("a role that is gone").await;

        // What changes nothing for her.
        identity.set_permissions("other", &words(&["notes:write"])).await.expect("changed");
        give(identity, bob.id, &["other"]).await;
        let edit = Edit { name: Some("alicia"), email: Some(Some("alicia@example.com")), ..Edit::default() };
        identity.edit_user(alice.id, edit).await.expect("changed");
        assert!(asks(identity, &secret).await.expect("valid").1.is_none());
        assert!(asks(identity, &bobs).await.expect("served").1.is_some(), "his own");
    }
}

on_both! {
    /// Any number of requests of one browser at once, at two instances: all are served, and one secret comes of it.
    async fn many_at_once(world: World) {
        let alice = world.user("alice").await;
        let secret = Arc::new(started(&world, "alice", false).await.secret);
        let (identity, other) = (world.identity.clone(), world.another().await);
        assert!(asks(&identity, &secret).await.is_ok() && asks(&other, &secret).await.is_ok());
        give(&identity, alice.id, &["admin"]).await;
        other.catch_up().await.expect("the feed");
        let mut all = tokio::task::JoinSet::new();
        for place in 0..24 {
            let (instance, secret) = (if place % 2 == 0 { &identity } else { &other }.clone(), Arc::clone(&secret));
            all.spawn(async move { asks(&instance, &secret).await });
        }
        let answers = all.join_all().await;
        let mut brought = answers.into_iter().filter_map(|answer| answer.expect("served").1);
        let next = brought.next().expect("another secret");
        assert!(brought.all(|again| same(&again, &next)), "one and the same");
        other.catch_up().await.expect("the feed");
        for instance in [&identity, &other] {
            assert!(asks(instance, &next).await.expect("valid").1.is_none());
        }
        assert_eq!(identity.sessions_of(alice.id).await.expect("a list").len(), 1);
    }
}

on_both! {
    async fn another_change_while_the_answer_is_lost(world: World) {
        let alice = world.user("alice").await;
        let identity = &world.identity;
        let first = started(&world, "alice", false).await.secret;
        give(identity, alice.id, &["admin"]).await;
        let lost = asks(identity, &first).await.expect("served").1.expect("another");
        give(identity, alice.id, &["user"]).await;
        let arrives = asks(identity, &first).await.expect("served").1.expect("and another");
        assert!(!same(&lost, &arrives));
        assert_eq!(asks(identity, &lost).await.err(), Some(NotValid::Unknown), "nobody has it");
        assert!(asks(identity, &arrives).await.expect("valid").1.is_none());
        // And once more: what was under way with the first one has been overtaken twice, and ends nothing.
        give(identity, alice.id, &["admin"]).await;
        assert_eq!(asks(identity, &first).await.err(), Some(NotValid::Unknown));
        let last = asks(identity, &arrives).await.expect("served").1.expect("another");
        assert!(asks(identity, &last).await.is_ok());
    }
}

on_both! {
    /// Grace is for the browser that the change found, and not for whoever has a copy elsewhere.
    async fn a_copy_elsewhere_ends_the_session(world: World) {
        let alice = world.user("alice").await;
        let identity = &world.identity;
        for elsewhere in [from(9), Origin { agent: "curl".into(), ..from(1) }] {
            let first = started(&world, "alice", false).await;
            let bystander = started(&world, "alice", false).await;
            let role = if identity.user(alice.id).await.expect("asked").expect("there").has_role("admin") { "user" } else { "admin" };
            give(identity, alice.id, &[role]).await;
            let next = asks(identity, &first.secret).await.expect("served").1.expect("another");
            let asked = asks_from(identity, &first.secret, &elsewhere).await;
            assert_eq!(asked.err(), Some(NotValid::Replayed { user: alice.id.0, session: first.id }));
            assert_eq!(asks(identity, &next).await.err(), Some(NotValid::Unknown));
            assert!(asks(identity, &bystander.secret).await.is_ok(), "no other session of theirs");
        }
    }
}

on_both! {
    /// A request that was under way when the secret was replaced does what it says to the session as it is.
    async fn what_is_done_with_the_secret_before(world: World) {
        let alice = world.user("alice").await;
        let identity = &world.identity;
        let mut admin = false;
        let mut turned = async || {
            let first = started(&world, "alice", true).await.secret;
            admin = !admin;
            give(identity, alice.id, &[if admin { "admin" } else { "user" }]).await;
            let next = asks(identity, &first).await.expect("served").1.expect("another");
            (first, next)
        };
        // Logout.
        let (first, next) = turned().await;
        assert!(identity.end_session(&first).await.expect("ended"));
        assert_eq!(asks(identity, &next).await.err(), Some(NotValid::Unknown));
        // Another login in the same browser.
        let (first, next) = turned().await;
        let checked = world.login("alice").await;
        let how = StartSession { replaces: Some(first), ..StartSession::default() };
        identity.start_session(&checked, how, &from(1)).await.expect("a session");
        assert_eq!(asks(identity, &next).await.err(), Some(NotValid::Unknown));
        // A proof, which has no grace: both are worth nothing.
        let (first, next) = turned().await;
        let proved = identity.rotate_session(&first, Some(&checked)).await.expect("rotated");
        assert!(proved.max_age.is_some(), "it is remembered as before");
        for old in [&first, &next] {
            assert_eq!(asks(identity, old).await.err(), Some(NotValid::Unknown));
        }
        assert!(asks(identity, &proved.secret).await.expect("valid").1.is_none());
        let (first, next) = turned().await;
        world.clock.advance(GRACE);
        assert!(identity.rotate_session(&first, Some(&checked)).await.is_err(), "too late");
        assert!(asks(identity, &next).await.is_ok());
    }
}

on_both! {
    /// The end of a session stays where it was, and its account's state is looked at as before.
    async fn nothing_lives_longer_by_it(world: World) {
        let alice = world.user("alice").await;
        let identity = &world.identity;
        let (plain, remembered) = (started(&world, "alice", false).await.secret, started(&world, "alice", true).await.secret);
        give(identity, alice.id, &["admin"]).await;
        let day = Duration::from_secs(24 * 3600);
        let rotated = identity.session(&remembered, &from(1)).await.expect("served").1.expect("another");
        assert!(rotated.max_age.is_some_and(|left| left <= 30 * day && left > 29 * day), "{rotated:?}");
        let next = asks(identity, &plain).await.expect("served").1.expect("another");
        world.clock.advance(Duration::from_secs(30 * 60));
        assert_eq!(asks(identity, &next).await.err(), Some(NotValid::Expired));
        give(identity, alice.id, &["user"]).await;
        assert_eq!(asks(identity, &next).await.err(), Some(NotValid::Expired), "and gets no other");
        identity.edit_user(alice.id, Edit { enabled: Some(false), ..Edit::default() }).await.expect("disabled");
        identity.edit_user(alice.id, Edit { enabled: Some(true), ..Edit::default() }).await.expect("enabled");
        for secret in [&rotated.secret, &remembered, &next, &plain] {
            assert_eq!(asks(identity, secret).await.err(), Some(NotValid::Unknown), "disabling ended it");
        }
    }
}

on_both! {
    /// During the grace the database has hashes, and a text that needs a secret which is not in it; afterwards not even that.
    async fn a_dump_holds_no_successor(world: World) {
        let alice = world.user("alice").await;
        let started = started(&world, "alice", false).await;
        give(&world.identity, alice.id, &["admin"]).await;
        let next = asks(&world.identity, &started.secret).await.expect("served").1.expect("another");
        let row = async || sessions::by_id(world.identity.store(), started.id).await.expect("asked").expect("there");
        let sealed = row().await.successor.expect("for whoever holds the one before");
        let dump = world.dump().await;
        for secret in [&started.secret, &next] {
            let text = secret.reveal();
            let raw = data_encoding::BASE64URL_NOPAD.decode(text.expose().as_bytes()).expect("base64");
            assert!(!dump.holds(&raw) && !dump.holds(text.expose().as_bytes()));
            assert!(dump.holds(secret.stored().as_bytes()), "its hash is there: the dump is one");
        }
        assert!(dump.holds(&sealed) && next.open(&sealed).is_none());
        world.clock.advance(GRACE + Duration::from_millis(1));
        world.identity.sweep().await.expect("swept");
        assert_eq!(row().await.successor, None);
        assert!(asks(&world.identity, &next).await.is_ok());
    }
}
