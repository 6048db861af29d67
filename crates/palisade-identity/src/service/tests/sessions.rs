use std::time::Duration;

use super::*;
use crate::opaque::Session;

async fn started(world: &World, name: &str) -> Started {
    let checked = world.login(name).await;
    world.identity.start_session(&checked, StartSession::default(), &from(1)).await.expect("a session")
}

async fn valid(identity: &Identity, secret: &Session) -> Result<Caller, NotValid> {
    match identity.session(secret, &from(1)).await {
        Ok((caller, rotated)) => {
            assert!(rotated.is_none(), "another secret, for no reason");
            Ok(caller)
        }
        Err(Unrecognised::NotValid(why)) => Err(why),
        Err(other) => panic!("{other}"),
    }
}

on_both! {
    async fn a_session_is_recognised_and_ends(world: World) {
        let alice = world.user("alice").await;
        let started = started(&world, "alice").await;
        let identity = &world.identity;
        assert!(identity.session_cached(&started.secret).is_none(), "not seen yet");
        let caller = valid(identity, &started.secret).await.expect("valid");
        assert_eq!(caller.account().expect("an account").id, alice.id);
        assert!(!caller.is_narrow() && caller.covers("anything"));
        assert!(caller.fresh(world.clock.now(), Duration::from_secs(60)).is_some());
        assert!(caller.fresh(world.clock.now().plus(Duration::from_secs(61)), Duration::from_secs(60)).is_none());
        assert!(identity.session_cached(&started.secret).is_some_and(|known| known.is_ok()));
        assert_eq!(valid(identity, &Session::generate().unwrap()).await.err(), Some(NotValid::Unknown));

        assert!(identity.end_session(&started.secret).await.expect("ended"));
        assert_eq!(valid(identity, &started.secret).await.err(), Some(NotValid::Unknown));
        assert!(!identity.end_session(&started.secret).await.expect("nothing to end"));
    }
}

on_both! {
    async fn idle_and_absolute_ends(world: World) {
        world.user("alice").await;
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let first = started(&world, "alice").await;
        for _ in 0..3 {
            world.clock.advance(minutes(29));
            assert!(valid(&world.identity, &first.secret).await.is_ok());
        }
        world.clock.advance(minutes(30));
        assert_eq!(valid(&world.identity, &first.secret).await.err(), Some(NotValid::Expired));
        let second = started(&world, "alice").await;
        for _ in 0..(12 * 60 / 20 - 1) {
            world.clock.advance(minutes(20));
            assert!(valid(&world.identity, &second.secret).await.is_ok());
        }
        world.clock.advance(minutes(20));
        assert_eq!(valid(&world.identity, &second.secret).await.err(), Some(NotValid::Expired));
        world.identity.sweep().await.expect("swept");
        assert_eq!(valid(&world.identity, &second.secret).await.err(), Some(NotValid::Expired));
        assert!(world.identity.sessions_of(second.account.id).await.expect("a list").is_empty());
    }
}

on_both! {
    /// The last use is written down, so that another instance does not take an active session for an idle one.
    async fn another_instance_sees_the_use(world: World) {
        world.user("alice").await;
        let started = started(&world, "alice").await;
        let other = world.another().await;
        assert!(valid(&other, &started.secret).await.is_ok());
        for _ in 0..3 {
            world.clock.advance(Duration::from_secs(20 * 60));
            assert!(valid(&world.identity, &started.secret).await.is_ok());
            world.identity.sweep().await.expect("written");
        }
        assert!(valid(&other, &started.secret).await.is_ok());
    }
}

on_both! {
    async fn rotation_ends_the_old_secret(world: World) {
        world.user("alice").await;
        let started = started(&world, "alice").await;
        let identity = &world.identity;
        let other = world.another().await;
        assert!(valid(identity, &started.secret).await.is_ok() && valid(&other, &started.secret).await.is_ok());
        world.clock.advance(Duration::from_secs(600));
        let checked = world.login("alice").await;
        let rotated = identity.rotate_session(&started.secret, Some(&checked)).await.expect("rotated");
        assert_eq!(rotated.max_age, None);
        let next = rotated.secret;
        assert_eq!(valid(identity, &started.secret).await.err(), Some(NotValid::Unknown));
        let caller = valid(identity, &next).await.expect("the new one");
        assert!(caller.fresh(world.clock.now(), Duration::from_secs(60)).is_some(), "proved again");
        other.catch_up().await.expect("the feed");
        assert_eq!(valid(&other, &started.secret).await.err(), Some(NotValid::Unknown));
        assert!(valid(&other, &next).await.is_ok());
        world.user("bob").await;
        let bob = world.login("bob").await;
        assert!(identity.rotate_session(&next, Some(&bob)).await.is_err(), "another's proof");
    }
}

on_both! {
    /// Fixation: the session that was there before a login is worth nothing after it.
    async fn a_login_ends_the_session_before(world: World) {
        world.user("mallory").await;
        world.user("alice").await;
        let planted = started(&world, "mallory").await;
        assert!(valid(&world.identity, &planted.secret).await.is_ok());
        let checked = world.login("alice").await;
        let replaces = Session::parse(planted.secret.reveal().expose());
        let how = StartSession { replaces, ..StartSession::default() };
        let own = world.identity.start_session(&checked, how, &from(1)).await.expect("a session");
        assert_eq!(valid(&world.identity, &planted.secret).await.err(), Some(NotValid::Unknown));
        assert_ne!(own.id, planted.id);
    }
}

on_both! {
    async fn own_sessions_are_listed_and_ended(world: World) {
        let alice = world.user("alice").await;
        let bob = world.user("bob").await;
        let (first, second) = (started(&world, "alice").await, started(&world, "alice").await);
        let others = started(&world, "bob").await;
        let checked = world.login("alice").await;
        let tokens = world.identity.grant(&checked, NewGrant::default(), &from(1)).await.expect("tokens");
        let identity = &world.identity;
        let listed = identity.sessions_of(alice.id).await.expect("a list");
        assert_eq!(listed.len(), 3);
        assert!(listed.iter().any(|session| session.id == tokens.grant && !session.is_browser));
        assert!(!identity.end_session_of(bob.id, first.id).await.expect("asked"), "not bob's");
        assert!(!identity.end_session_of(alice.id, others.id).await.expect("asked"));
        assert!(!identity.end_session_of(bob.id, tokens.grant).await.expect("asked"));
        assert!(identity.end_session_of(alice.id, first.id).await.expect("ended"));
        assert_eq!(valid(identity, &first.secret).await.err(), Some(NotValid::Unknown));
        assert!(valid(identity, &second.secret).await.is_ok());
        assert_eq!(identity.end_sessions_of(alice.id, Some(second.id)).await.expect("ended"), 1);
        assert!(valid(identity, &second.secret).await.is_ok() && valid(identity, &others.secret).await.is_ok());
        let refused = identity.token(tokens.access.text.expose(), &[]).await.err();
        assert_eq!(refused, Some(Unrecognised::NotValid(NotValid::Revoked)), "the access token ended with its family");
    }
}

on_both! {
    async fn a_dump_holds_no_session(world: World) {
        world.user("alice").await;
        let started = started(&world, "alice").await;
        let secret = started.secret.reveal();
        let raw = data_encoding::BASE64URL_NOPAD.decode(secret.expose().as_bytes()).expect("base64");
        let dump = world.dump().await;
        for needle in [raw.as_slice(), secret.expose().as_bytes(), PASSWORD.as_bytes()] {
            assert!(!dump.holds(needle));
        }
        let hash = started.secret.stored();
        assert!(dump.holds(hash.as_bytes()), "its hash is there: the dump is one");
    }
}

on_both! {
    /// One that is remembered stays so, whatever secret it has, and for no longer than it was to last.
    async fn a_session_that_is_remembered(world: World) {
        let day = Duration::from_secs(24 * 3600);
        world.user("alice").await;
        let checked = world.login("alice").await;
        let how = StartSession { remember: true, ..StartSession::default() };
        let started = world.identity.start_session(&checked, how, &from(1)).await.expect("a session");
        assert_eq!(started.max_age, Some(30 * day));
        world.clock.advance(20 * day);
        assert!(valid(&world.identity, &started.secret).await.is_ok(), "idle for twenty days");
        let rotated = world.identity.rotate_session(&started.secret, None).await.expect("rotated");
        // The clock goes on by itself as well.
        let minute = Duration::from_secs(60);
        assert!(rotated.max_age.is_some_and(|left| left <= 10 * day && left > 10 * day - minute), "{rotated:?}");
        world.clock.advance(10 * day - minute);
        assert!(valid(&world.identity, &rotated.secret).await.is_ok());
        world.clock.advance(minute);
        assert_eq!(valid(&world.identity, &rotated.secret).await.err(), Some(NotValid::Expired));
    }
}
