use std::time::Duration;

use super::*;
use crate::refresh::{RefreshToken, Replay};

async fn tokens(world: &World) -> Tokens {
    let checked = world.login("alice").await;
    world.identity.grant(&checked, NewGrant::default(), &from(1)).await.expect("tokens")
}

fn text(token: &RefreshToken) -> String {
    token.reveal().expose().clone()
}

on_both! {
    async fn fifty_refreshes_at_once_leave_one_successor(world: World) {
        world.user("alice").await;
        let first = tokens(&world).await;
        let (a, b) = (world.identity.clone(), world.another().await);
        let tasks: Vec<_> = (0..50)
            .map(|n| {
                let identity = if n % 2 == 0 { a.clone() } else { b.clone() };
                let token = first.refresh.clone();
                tokio::spawn(async move { identity.refresh(&token, None, false, &TokenRequest::default(), &from(1)).await })
            })
            .collect();
        let mut successors = std::collections::HashSet::new();
        for task in tasks {
            let next = task.await.expect("no panic").expect("nobody is logged out");
            successors.insert(text(&next.refresh));
            assert!(world.identity.token(next.access.text.expose(), &[]).await.is_ok());
        }
        assert_eq!(successors.len(), 1);
        let successor = RefreshToken::parse(successors.iter().next().expect("one")).expect("a token");
        assert!(world.identity.refresh(&successor, None, false, &TokenRequest::default(), &from(1)).await.is_ok(), "and it goes on");
    }
}

on_both! {
    async fn a_replay_ends_the_family(world: World) {
        world.user("alice").await;
        let identity = &world.identity;
        let first = tokens(&world).await;
        let second = identity.refresh(&first.refresh, None, false, &TokenRequest::default(), &from(1)).await.expect("refreshed");
        world.clock.advance(Duration::from_secs(11));
        let replayed = identity.refresh(&first.refresh, None, false, &TokenRequest::default(), &from(1)).await;
        assert!(matches!(replayed, Err(GrantError::Replayed { how: Replay::Spent, .. })), "{replayed:?}");
        let after = identity.refresh(&second.refresh, None, false, &TokenRequest::default(), &from(1)).await;
        assert!(matches!(after, Err(GrantError::Replayed { how: Replay::AfterEnd, .. })), "{after:?}");
        let access = identity.token(second.access.text.expose(), &[]).await.err();
        assert_eq!(access, Some(Unrecognised::NotValid(NotValid::Revoked)), "its access tokens too");

        let first = tokens(&world).await;
        identity.refresh(&first.refresh, None, false, &TokenRequest::default(), &from(1)).await.expect("refreshed");
        let elsewhere = identity.refresh(&first.refresh, None, false, &TokenRequest::default(), &from(2)).await;
        assert!(matches!(elsewhere, Err(GrantError::Replayed { how: Replay::OtherPlace, .. })), "{elsewhere:?}");

        let first = tokens(&world).await;
        let client = identity.refresh(&first.refresh, Some("thief"), false, &TokenRequest::default(), &from(1)).await;
        assert!(matches!(client, Err(GrantError::Replayed { how: Replay::OtherClient, .. })), "{client:?}");
    }
}

on_both! {
    async fn made_up_tokens_do_nothing(world: World) {
        let other = world.sibling().await;
        world.user("alice").await;
        other.user("alice").await;
        let (own, foreign) = (tokens(&world).await, tokens(&other).await);
        let refused = world.identity.refresh(&foreign.refresh, None, false, &TokenRequest::default(), &from(1)).await;
        assert_eq!(refused.err(), Some(GrantError::NotValid(NotValid::Unknown)));
        assert!(!world.identity.revoke_refresh(&foreign.refresh, None).await.expect("asked"));
        // The right family, a made-up rest.
        let mut bytes = data_encoding::BASE64URL_NOPAD.decode(&text(&own.refresh).as_bytes()[5..]).expect("base64");
        bytes[40] ^= 1;
        let forged = format!("palr_{}", data_encoding::BASE64URL_NOPAD.encode(&bytes));
        let forged = RefreshToken::parse(&forged).expect("a spelling");
        assert!(!world.identity.revoke_refresh(&forged, None).await.expect("asked"));
        assert!(world.identity.refresh(&forged, None, false, &TokenRequest::default(), &from(1)).await.is_err());
        assert!(world.identity.refresh(&own.refresh, None, false, &TokenRequest::default(), &from(1)).await.is_ok(), "untouched");
    }
}

on_both! {
    async fn refreshing_ends_after_its_time(world: World) {
        world.user("alice").await;
        let first = tokens(&world).await;
        world.clock.advance(Duration::from_secs(7 * 24 * 3600 + 1));
        let refused = world.identity.refresh(&first.refresh, None, false, &TokenRequest::default(), &from(1)).await;
        assert_eq!(refused.err(), Some(GrantError::NotValid(NotValid::Expired)));
    }
}

on_both! {
    /// During the time of grace the database holds nothing that could be presented.
    async fn a_dump_holds_no_refresh_token(world: World) {
        world.user("alice").await;
        let first = tokens(&world).await;
        let second = world.identity.refresh(&first.refresh, None, false, &TokenRequest::default(), &from(1)).await.expect("refreshed");
        let raw = |token| data_encoding::BASE64URL_NOPAD.decode(&text(token).as_bytes()[5..]).expect("base64");
        let dumped = world.dump().await;
        for token in [&first.refresh, &second.refresh] {
            // The secret and the tag: family and generation are no secrets.
            let bytes = raw(token);
            assert!(!dumped.holds(&bytes[20..36]), "the secret");
            assert!(!dumped.holds(&bytes[52..68]), "the tag");
        }
        // And later not even the encrypted successor.
        let row =
            palisade_store::families::by_id(world.identity.store(), first.grant).await.expect("read").expect("there");
        world.clock.advance(Duration::from_secs(11));
        world.identity.sweep().await.expect("swept");
        let tidied =
            palisade_store::families::by_id(world.identity.store(), first.grant).await.expect("read").expect("there");
        assert!(tidied.record.len() < row.record.len());
        assert!(world.identity.refresh(&second.refresh, None, false, &TokenRequest::default(), &from(1)).await.is_ok());
    }
}

on_both! {
    /// A login without scopes was granted all that its user may; an access token may be asked for less, once.
    async fn less_than_was_granted(world: World) {
        world.user("alice").await;
        let checked = world.login("alice").await;
        let first = world.identity.grant(&checked, NewGrant::default(), &from(1)).await.expect("tokens");
        let less = TokenRequest { scopes: vec!["notes:read".into()], ..TokenRequest::default() };
        let second = world.identity.refresh(&first.refresh, None, false, &less, &from(1)).await.expect("refreshed");
        assert_eq!(second.scopes, ["notes:read"]);
        let caller = world.identity.token(second.access.text.expose(), &[]).await.expect("valid");
        assert!(caller.is_narrow() && caller.covers("notes:read") && !caller.covers("notes:write"));
        let all = TokenRequest::default();
        let third = world.identity.refresh(&second.refresh, None, false, &all, &from(1)).await.expect("refreshed");
        let caller = world.identity.token(third.access.text.expose(), &[]).await.expect("valid");
        assert!(!caller.is_narrow(), "the family was granted all");
    }
}

on_both! {
    /// A program that logs in instead of refreshing: the oldest logins make room, and all of them end when they are to.
    async fn an_account_has_so_many_families(world: World) {
        use crate::service::sessions::MAX_FAMILIES;
        let alice = world.user("alice").await;
        let checked = world.login("alice").await;
        let all = TokenRequest::default();
        let mut tokens = Vec::new();
        for _ in 0..MAX_FAMILIES + 2 {
            tokens.push(world.identity.grant(&checked, NewGrant::default(), &from(1)).await.expect("tokens").refresh);
            world.clock.advance(std::time::Duration::from_millis(1));
        }
        assert_eq!(world.identity.sessions_of(alice.id).await.expect("a list").len() as u64, MAX_FAMILIES);
        for (number, old) in tokens.iter().take(3).enumerate() {
            let refreshed = world.identity.refresh(old, None, false, &all, &from(1)).await;
            assert_eq!(refreshed.is_ok(), number == 2, "{number}");
        }
        let ended = world.identity.end_sessions_of(alice.id, None).await.expect("ended");
        assert_eq!(ended, MAX_FAMILIES);
        for old in tokens.iter().rev().step_by(100) {
            assert!(world.identity.refresh(old, None, false, &all, &from(1)).await.is_err());
        }
    }
}
