use std::time::Duration;

use super::*;
use crate::opaque::ApiKey;

fn new_key() -> NewKey {
    NewKey { name: "ci".into(), scopes: vec!["notes:read".into()], expires_in: None, rate: None }
}

async fn refused(identity: &Identity, key: &ApiKey) -> Option<NotValid> {
    match identity.key(key).await {
        Ok(_) => None,
        Err(Unrecognised::NotValid(why)) => Some(why),
        Err(other) => panic!("{other}"),
    }
}

on_both! {
    async fn a_key_carries_its_scopes_and_nothing_else(world: World) {
        let alice = world.user("alice").await;
        let identity = &world.identity;
        let new = NewKey { rate: Some("10/minute".parse().unwrap()), ..new_key() };
        let (key, info) = identity.create_key(alice.id, new).await.expect("a key");
        assert_eq!((info.id.as_str(), info.used_at), (key.id(), None));
        assert!(identity.key_cached(&key).is_none());
        let caller = identity.key(&key).await.expect("valid");
        assert!(caller.is_narrow() && caller.covers("notes:read") && !caller.covers("notes:write"));
        assert!(caller.fresh(world.clock.now(), Duration::from_secs(60)).is_none());
        assert!(matches!(caller.credential(), Credential::Key { rate: Some(_), .. }));
        assert!(identity.key_cached(&key).is_some_and(|known| known.is_ok()));
        identity.sweep().await.expect("written");
        assert!(identity.keys_of(alice.id).await.expect("a list")[0].used_at.is_some());

        let stranger = ApiKey::generate("live").expect("a key");
        assert_eq!(refused(identity, &stranger).await, Some(NotValid::Unknown));
        // The right id, another secret.
        let text = key.reveal();
        let hash = palisade_store::keys::by_id(identity.store(), key.id()).await.expect("read").expect("there").hash;
        assert!(!hash.windows(8).any(|window| text.expose().as_bytes().windows(8).any(|known| known == window)));
    }
}

on_both! {
    async fn keys_end(world: World) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let identity = &world.identity;
        let other = world.another().await;
        let (key, info) = identity.create_key(alice.id, new_key()).await.expect("a key");
        assert_eq!((refused(identity, &key).await, refused(&other, &key).await), (None, None));
        assert!(!identity.revoke_key(Some(bob.id), &info.id).await.expect("asked"), "not bob's");
        assert!(identity.revoke_key(Some(alice.id), &info.id).await.expect("revoked"));
        assert_eq!(refused(identity, &key).await, Some(NotValid::Unknown));
        other.catch_up().await.expect("the feed");
        assert_eq!(refused(&other, &key).await, Some(NotValid::Unknown));

        let short = NewKey { expires_in: Some(Duration::from_secs(60)), ..new_key() };
        let (key, _) = identity.create_key(alice.id, short).await.expect("a key");
        assert_eq!(refused(identity, &key).await, None);
        world.clock.advance(Duration::from_secs(60));
        assert_eq!(refused(identity, &key).await, Some(NotValid::Expired));

        let (key, _) = identity.create_key(alice.id, new_key()).await.expect("a key");
        assert_eq!(refused(identity, &key).await, None);
        identity.edit_user(alice.id, Edit { enabled: Some(false), ..Edit::default() }).await.expect("disabled");
        assert_eq!(refused(identity, &key).await, Some(NotValid::Disabled));
        assert_eq!(identity.create_key(alice.id, new_key()).await.err(), Some(KeyError::NoUser));
    }
}

on_both! {
    async fn a_replaced_key_goes_on_for_the_overlap(world: World) {
        let alice = world.user("alice").await;
        let identity = &world.identity;
        let (old, info) = identity.create_key(alice.id, new_key()).await.expect("a key");
        let (next, next_info) = identity.rotate_key(Some(alice.id), &info.id).await.expect("rotated");
        assert_eq!((refused(identity, &old).await, refused(identity, &next).await), (None, None));
        assert_eq!(next_info.scopes, info.scopes);
        assert_eq!(identity.rotate_key(Some(alice.id), &info.id).await.err(), Some(KeyError::Replaced));
        world.clock.advance(Duration::from_secs(24 * 3600));
        assert_eq!(refused(identity, &old).await, Some(NotValid::Expired));
        assert_eq!(refused(identity, &next).await, None);
    }
}

on_both! {
    async fn keys_that_are_not_made(world: World) {
        let alice = world.user("alice").await;
        let cases = [
            (NewKey { name: String::new(), ..new_key() }, KeyError::Name),
            (NewKey { name: "a\nb".into(), ..new_key() }, KeyError::Name),
            (NewKey { name: "x".repeat(101), ..new_key() }, KeyError::Name),
            (NewKey { scopes: vec![], ..new_key() }, KeyError::Scopes),
            (NewKey { scopes: vec!["a b".into()], ..new_key() }, KeyError::Scopes),
            (NewKey { scopes: vec!["\"".into()], ..new_key() }, KeyError::Scopes),
            (NewKey { expires_in: Some(Duration::ZERO), ..new_key() }, KeyError::Expiry),
            (NewKey { expires_in: Some(Duration::MAX), ..new_key() }, KeyError::Expiry),
        ];
        for (new, why) in cases {
            assert_eq!(world.identity.create_key(alice.id, new.clone()).await.err(), Some(why), "{new:?}");
        }
    }
}
