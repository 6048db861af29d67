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
        let by_session = other.session(&session.secret).await.expect("valid");
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
