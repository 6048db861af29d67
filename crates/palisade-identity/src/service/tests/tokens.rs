use std::time::Duration;

use super::*;
use crate::token::Refused;

async fn refused(identity: &Identity, text: &str) -> Option<NotValid> {
    match identity.token(text, &[]).await {
        Ok(_) => None,
        Err(Unrecognised::NotValid(why)) => Some(why),
        Err(other) => panic!("{other}"),
    }
}

async fn tokens(world: &World, name: &str, scopes: &[&str]) -> Tokens {
    let checked = world.login(name).await;
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    world.identity.grant(&checked, NewGrant { scopes, ..NewGrant::default() }, &from(1)).await.expect("tokens")
}

on_both! {
    async fn an_access_token_says_who_is_asking_until_it_ends(world: World) {
        let alice = world.user("alice").await;
        let identity = &world.identity;
        let full = tokens(&world, "alice", &[]).await;
        let caller = identity.token(full.access.text.expose(), &[]).await.expect("valid");
        assert_eq!(caller.account().expect("an account").id, alice.id);
        assert!(!caller.is_narrow() && caller.client().is_none());
        assert!(caller.fresh(world.clock.now(), Duration::from_secs(60)).is_none(), "a token manages nothing");
        let narrow = tokens(&world, "alice", &["notes:read"]).await;
        let caller = identity.token(narrow.access.text.expose(), &[]).await.expect("valid");
        assert!(caller.is_narrow() && caller.covers("notes:read") && !caller.covers("notes:write"));

        let other = ["https://other.example.com".to_owned()];
        let elsewhere = identity.token(full.access.text.expose(), &other).await.err();
        assert_eq!(elsewhere, Some(Unrecognised::NotValid(NotValid::Token(Refused::Audience))), "cached, and yet judged");
        assert_eq!(refused(identity, full.refresh.reveal().expose()).await, Some(NotValid::Token(Refused::Form)));
        world.clock.advance(Duration::from_secs(15 * 60 + 31));
        assert_eq!(refused(identity, full.access.text.expose()).await, Some(NotValid::Token(Refused::Expired)));
    }
}

on_both! {
    async fn a_token_of_another_key_or_issuer_is_refused(world: World) {
        let other = world.sibling().await;
        world.user("alice").await;
        other.user("alice").await;
        let foreign = tokens(&other, "alice", &[]).await;
        assert_eq!(
            refused(&world.identity, foreign.access.text.expose()).await,
            Some(NotValid::Token(Refused::UnknownKey))
        );
        let own = tokens(&world, "alice", &[]).await;
        let renamed = world.identity.with(Settings::new("https://elsewhere.example.com"));
        assert_eq!(refused(&renamed, own.access.text.expose()).await, Some(NotValid::Token(Refused::Issuer)));
        // A signing key that is taken out takes its tokens with it, cached or not.
        assert_eq!(refused(&world.identity, own.access.text.expose()).await, None);
        let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        world.identity.set_keyring(Keyring::new(key, world.clock.now()));
        assert_eq!(refused(&world.identity, own.access.text.expose()).await, Some(NotValid::Token(Refused::UnknownKey)));
    }
}

on_both! {
    async fn what_ends_a_token_ends_it_everywhere(world: World) {
        let identity = &world.identity;
        let other = world.another().await;
        for (how, name) in
            ["revoked", "family", "disabled", "password", "deleted"].into_iter().zip(["a1", "a2", "a3", "a4", "a5"])
        {
            let account = world.user(name).await;
            let tokens = tokens(&world, name, &[]).await;
            let text = tokens.access.text.expose();
            assert_eq!((refused(identity, text).await, refused(&other, text).await), (None, None), "{how}");
            world.clock.advance(Duration::from_millis(5));
            match how {
                "revoked" => assert!(identity.revoke_token(text, None).await.expect("revoked")),
                "family" => assert!(identity.revoke_refresh(&tokens.refresh, None).await.expect("revoked")),
                "disabled" => {
                    let edit = Edit { enabled: Some(false), ..Edit::default() };
                    identity.edit_user(account.id, edit).await.map(|_| ()).expect("disabled");
                }
                "password" => {
                    let checked = world.login(name).await;
                    let next = "another-horse-battery-43";
                    identity.change_password(&checked, next, None, &from(1)).await.expect("changed");
                }
                _ => assert!(identity.delete_user(account.id).await.expect("deleted")),
            }
            assert!(refused(identity, text).await.is_some(), "{how}: at once where it was done");
            assert_eq!(refused(&other, text).await, None, "{how}: the other has not read the feed");
            other.catch_up().await.expect("the feed");
            assert!(refused(&other, text).await.is_some(), "{how}");
            let late = world.another().await;
            assert!(refused(&late, text).await.is_some(), "{how}: also where somebody starts later");
            if how != "revoked" {
                let refreshed = other.refresh(&tokens.refresh, None, false, &TokenRequest::default(), &from(1)).await;
                assert!(refreshed.is_err(), "{how}: {refreshed:?}");
            }
            if how == "disabled" {
                let edit = Edit { enabled: Some(true), ..Edit::default() };
                identity.edit_user(account.id, edit).await.map(|_| ()).expect("enabled");
                assert!(refused(identity, text).await.is_some(), "what was ended stays so");
            }
        }
    }
}

on_both! {
    async fn roles_are_those_of_now(world: World) {
        let alice = world.user("alice").await;
        let text = tokens(&world, "alice", &[]).await.access.text;
        let other = world.another().await;
        let role = async |identity: &Identity| {
            identity.token(text.expose(), &[]).await.expect("valid").account().expect("an account").has_role("admin")
        };
        assert!(!role(&other).await);
        let admin = ["admin".to_owned()];
        let edit = Edit { roles: Some(&admin), ..Edit::default() };
        world.identity.edit_user(alice.id, edit).await.expect("changed");
        assert!(role(&world.identity).await);
        other.catch_up().await.expect("the feed");
        assert!(role(&other).await);
        let edit = Edit { roles: Some(&[]), ..Edit::default() };
        world.identity.edit_user(alice.id, edit).await.expect("changed");
        other.catch_up().await.expect("the feed");
        assert!(!role(&other).await && !role(&world.identity).await);
        let edit = Edit { roles: Some(&["nothing".to_owned()]), ..Edit::default() };
        assert_eq!(world.identity.edit_user(alice.id, edit).await.err(), Some(UserError::NoRole("nothing".into())));
    }
}

on_both! {
    async fn a_feed_that_is_not_read_grows_stale(world: World) {
        assert_eq!(world.identity.feed_state(), FeedState::Fresh);
        world.clock.advance(Duration::from_secs(6));
        assert_eq!(world.identity.feed_state(), FeedState::Stale);
        world.identity.catch_up().await.expect("the feed");
        assert_eq!(world.identity.feed_state(), FeedState::Fresh);
    }
}

on_both! {
    /// Whoever holds a token could otherwise fill the feed of all instances with it.
    async fn what_is_revoked_is_not_revoked_again(world: World) {
        world.user("alice").await;
        let checked = world.login("alice").await;
        let tokens = world.identity.grant(&checked, NewGrant::default(), &from(1)).await.expect("tokens");
        let text = tokens.access.text.expose();
        assert_eq!(world.identity.revoke_token(text, None).await, Ok(true));
        assert_eq!(world.identity.revoke_token(text, None).await, Ok(false));
    }
}
