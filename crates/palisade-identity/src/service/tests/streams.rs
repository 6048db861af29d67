use std::time::Duration;

use super::*;

on_both! {
    /// Threats 38.
    async fn a_stream_hears_of_its_end(world: World) {
        let alice = world.user("alice").await;
        let identity = &world.identity;
        let other = world.another().await;
        let checked = world.login("alice").await;
        let session = identity.start_session(&checked, StartSession::default(), &from(1)).await.expect("a session");
        let tokens = identity.grant(&checked, NewGrant::default(), &from(1)).await.expect("tokens");
        let new = NewKey { name: "k".into(), scopes: vec!["a".into()], expires_in: None, rate: None };
        let (key, info) = identity.create_key(alice.id, new).await.expect("a key");
        let (by_session, _) = other.session(&session.secret, &from(1)).await.expect("valid");
        let by_token = other.token(tokens.access.text.expose(), &[]).await.expect("valid");
        let by_key = other.key(&key).await.expect("valid");
        for caller in [&by_session, &by_token, &by_key] {
            assert!(other.still(caller).await.is_ok(), "{caller:?}");
        }
        let (mut here, mut there) = (identity.subscribe(), other.subscribe());
        identity.end_session(&session.secret).await.expect("ended");
        let told = here.try_recv().expect("told at once");
        assert!(told.own && told.change.subject == session.id.to_string());
        assert!(there.try_recv().is_err(), "not yet");
        other.catch_up().await.expect("the feed");
        let told = there.try_recv().expect("told");
        assert!(!told.own && told.change.subject == session.id.to_string());
        assert!(other.still(&by_session).await.is_err());
        assert!(other.still(&by_token).await.is_ok());
        identity.revoke_key(None, &info.id).await.expect("revoked");
        assert!(other.still(&by_key).await.is_err());
        identity.end_session_of(alice.id, tokens.grant).await.expect("ended");
        other.catch_up().await.expect("the feed");
        assert!(other.still(&by_token).await.is_err());

        let tokens = identity.grant(&checked, NewGrant::default(), &from(1)).await.expect("tokens");
        let caller = identity.token(tokens.access.text.expose(), &[]).await.expect("valid");
        world.clock.advance(Duration::from_millis(5));
        identity.edit_user(alice.id, Edit { enabled: Some(false), ..Edit::default() }).await.expect("disabled");
        assert!(identity.still(&caller).await.is_err());
        identity.edit_user(alice.id, Edit { enabled: Some(true), ..Edit::default() }).await.expect("enabled");
        assert!(identity.still(&caller).await.is_err(), "what was issued before stays void");
    }
}

on_both! {
    async fn a_stream_ends_with_its_token(world: World) {
        world.user("alice").await;
        let checked = world.login("alice").await;
        let tokens = world.identity.grant(&checked, NewGrant::default(), &from(1)).await.expect("tokens");
        let caller = world.identity.token(tokens.access.text.expose(), &[]).await.expect("valid");
        world.clock.advance(Duration::from_secs(16 * 60));
        assert!(world.identity.still(&caller).await.is_err());
    }
}

on_both! {
    /// Strangers use up all connections, as with made-up sessions that have to be looked up: what is revoked elsewhere is
    /// known in time all the same.
    async fn news_wait_for_no_connection(world: World) {
        let alice = world.user("alice").await;
        let checked = world.login("alice").await;
        let tokens = world.identity.grant(&checked, NewGrant::default(), &from(1)).await.expect("tokens");
        let other = world.another_with(1).await;
        assert!(other.token(tokens.access.text.expose(), &[]).await.is_ok());
        world.identity.end_session_of(alice.id, tokens.grant).await.expect("ended");
        let held = other.store().begin().await.expect("the one connection");
        let told = tokio::time::timeout(Duration::from_secs(1), other.catch_up()).await;
        told.expect("it waits for a connection").expect("the feed");
        let refused = other.token_cached(tokens.access.text.expose(), &[]);
        assert_eq!(refused.and_then(Result::err), Some(NotValid::Revoked));
        drop(held);
    }
}

on_both! {
    /// Much is to be swept out, or somebody holds a row of it: the feed is read on meanwhile.
    async fn news_wait_for_no_sweep(world: World) {
        world.user("alice").await;
        let checked = world.login("alice").await;
        let session = world.identity.start_session(&checked, StartSession::default(), &from(1)).await.expect("a session");
        let other = world.another().await;
        assert!(other.session(&session.secret, &from(1)).await.is_ok());
        world.clock.advance(Duration::from_secs(120));
        assert!(other.session(&session.secret, &from(1)).await.is_ok(), "a use, which its sweep writes down");
        // On SQLite this is the one writer, on PostgreSQL whoever has the row.
        let held = world.identity.store().begin().await.expect("a transaction");
        palisade_store::sessions::seen(&held, session.id, world.clock.now().0 + 1).await.expect("held");
        let follower = other.clone();
        let following = tokio::spawn(async move { follower.follow(|_| {}).await });
        let mut looks = std::collections::BTreeSet::new();
        palisade_test::eventually(Duration::from_secs(3), "it looks again and again", async || {
            looks.insert(other.feed_read_at().0);
            looks.len() > 4
        })
        .await
        .expect("in time");
        following.abort();
        drop(held);
    }
}
