use std::time::Duration;

use super::*;
use crate::opaque::{ResetLink, SetupLink, VerifyLink};
use crate::password::Weakness;

const NEXT: &str = "another-horse-battery-43";

on_both! {
    /// Threats 20: whoever registered the address first keeps nothing once its owner comes.
    async fn a_reset_leaves_nothing_of_the_attackers(world: World) {
        let account = world.user_at("victim", "victim@example.com").await;
        let identity = &world.identity;
        let checked = world.login("victim").await;
        let session = identity.start_session(&checked, StartSession::default(), &from(1)).await.expect("a session");
        let tokens = identity.grant(&checked, NewGrant::default(), &from(1)).await.expect("tokens");
        let new = NewKey { name: "k".into(), scopes: vec!["a".into()], expires_in: None, rate: None };
        let (key, _) = identity.create_key(account.id, new).await.expect("a key");
        assert!(identity.key(&key).await.is_ok());
        let letter = identity.ask_reset("VICTIM@example.com").await.expect("asked").expect("a letter");
        assert_eq!(letter.email, "victim@example.com");
        world.clock.advance(Duration::from_millis(5));
        let done = identity.reset_password(&letter.link, NEXT, &from(2)).await.expect("reset");
        assert!(done.email_verified, "the link came by mail");
        assert!(identity.session(&session.secret).await.is_err());
        assert!(identity.token(tokens.access.text.expose(), &[]).await.is_err());
        assert!(identity.refresh(&tokens.refresh, None, false, &from(1)).await.is_err());
        assert!(identity.key(&key).await.is_err() && identity.keys_of(account.id).await.expect("a list").is_empty());
        assert!(identity.check_password("victim", PASSWORD, &from(1)).await.is_err());
        assert!(identity.check_password("victim", NEXT, &from(1)).await.is_ok());
        let again = identity.reset_password(&letter.link, PASSWORD, &from(2)).await;
        assert_eq!(again.err(), Some(LinkError::NotValid), "once");
    }
}

on_both! {
    async fn resets_that_do_nothing(world: World) {
        let alice = world.user_at("alice", "alice@example.com").await;
        let identity = &world.identity;
        assert!(identity.ask_reset("nobody@example.com").await.expect("asked").is_none());
        assert!(identity.ask_reset("nonsense").await.expect("asked").is_none());
        let stranger = ResetLink::generate().expect("a link");
        assert_eq!(identity.reset_password(&stranger, NEXT, &from(1)).await.err(), Some(LinkError::NotValid));
        let first = identity.ask_reset("alice@example.com").await.expect("asked").expect("a letter");
        let second = identity.ask_reset("alice@example.com").await.expect("asked").expect("a letter");
        assert_eq!(identity.reset_password(&first.link, NEXT, &from(1)).await.err(), Some(LinkError::NotValid), "the older one");
        let weak = identity.reset_password(&second.link, "alice", &from(1)).await;
        assert!(matches!(&weak, Err(LinkError::Weak(why)) if why.contains(&Weakness::Short)), "{weak:?}");
        world.clock.advance(Duration::from_secs(3600));
        assert_eq!(identity.reset_password(&second.link, NEXT, &from(1)).await.err(), Some(LinkError::NotValid), "too late");
        let moved = identity.ask_reset("alice@example.com").await.expect("asked").expect("a letter");
        let edit = Edit { email: Some(Some("alice@elsewhere.example")), ..Edit::default() };
        identity.edit_user(alice.id, edit).await.expect("changed");
        assert_eq!(identity.reset_password(&moved.link, NEXT, &from(1)).await.err(), Some(LinkError::NotValid), "another address by now");
        identity.edit_user(alice.id, Edit { enabled: Some(false), ..Edit::default() }).await.expect("disabled");
        assert!(identity.ask_reset("alice@elsewhere.example").await.expect("asked").is_none());
        // A text of one purpose is no link of another.
        let verify = VerifyLink::generate().expect("a link").reveal();
        assert!(ResetLink::parse(verify.expose()).is_none());
    }
}

on_both! {
    async fn a_reset_unlocks(world: World) {
        world.user_at("alice", "alice@example.com").await;
        let identity = &world.identity;
        for n in 0..=PER_ACCOUNT {
            let _ = identity.check_password("alice", "wrong-password", &from(n as u8)).await;
        }
        assert!(identity.check_password("alice", PASSWORD, &from(99)).await.is_err());
        let letter = identity.ask_reset("alice@example.com").await.expect("asked").expect("a letter");
        identity.reset_password(&letter.link, NEXT, &from(1)).await.expect("reset");
        assert!(identity.check_password("alice", NEXT, &from(99)).await.is_ok());
    }
}

on_both! {
    async fn an_address_is_verified_and_changed(world: World) {
        let alice = world.user_at("alice", "alice@example.com").await;
        let identity = &world.identity;
        let checked = world.login("alice").await;
        let here = identity.start_session(&checked, StartSession::default(), &from(1)).await.expect("a session");
        let there = identity.start_session(&checked, StartSession::default(), &from(2)).await.expect("a session");
        let letter = identity.ask_verification(alice.id).await.expect("asked").expect("a letter");
        assert!(identity.verify_email(&letter.link, Some(here.id)).await.expect("verified").email_verified);
        assert_eq!(identity.verify_email(&letter.link, None).await.err(), Some(LinkError::NotValid), "once");
        assert!(identity.ask_verification(alice.id).await.expect("asked").is_none(), "nothing to verify");
        assert!(identity.session(&here.secret).await.is_ok() && identity.session(&there.secret).await.is_err());

        world.user_at("bob", "bob@example.com").await;
        assert!(identity.ask_email_change(alice.id, "bob@example.com").await.expect("asked").is_none(), "taken");
        assert_eq!(identity.ask_email_change(alice.id, "nonsense").await.err(), Some(LinkError::Email));
        let letter = identity.ask_email_change(alice.id, "alice@elsewhere.example").await.expect("asked").expect("a letter");
        assert_eq!(letter.email, "alice@elsewhere.example");
        let before = identity.find_user("alice").await.expect("asked").expect("there");
        assert_eq!(before.verified_email(), Some("alice@example.com"), "nothing yet");
        let after = identity.change_email(&letter.link, None).await.expect("changed");
        assert_eq!(after.verified_email(), Some("alice@elsewhere.example"));
        assert!(identity.session(&here.secret).await.is_ok(), "not the first verification");
        assert_eq!(identity.change_email(&letter.link, None).await.err(), Some(LinkError::NotValid));
        let late = identity.ask_email_change(alice.id, "late@example.com").await.expect("asked").expect("a letter");
        world.user_at("late", "late@example.com").await;
        assert_eq!(identity.change_email(&late.link, None).await.err(), Some(LinkError::EmailTaken));
    }
}

on_both! {
    /// Threats 3.
    async fn the_first_administrator(world: World) {
        let identity = &world.identity;
        let registrations: Vec<_> = (0..20).map(|n| {
            let identity = identity.clone();
            tokio::spawn(async move {
                let name = format!("user{n}");
                identity.register(NewUser { name: &name, email: None, password: PASSWORD }, &from(n)).await
            })
        }).collect();
        for registration in registrations {
            assert!(registration.await.expect("no panic").expect("registered").roles.is_empty());
        }
        let old = identity.setup_link().await.expect("asked").expect("a link");
        let link = identity.setup_link().await.expect("asked").expect("a link");
        let new = |password| NewUser { name: "root", email: None, password };
        assert_eq!(identity.set_up(&old, new(PASSWORD), &from(1)).await.err(), Some(LinkError::NotValid), "the older one");
        assert!(identity.is_setup_link(&link).await.expect("asked"));
        assert!(matches!(identity.set_up(&link, new("root"), &from(1)).await, Err(LinkError::Weak(_))), "and it is still good");
        let root = identity.set_up(&link, new(PASSWORD), &from(1)).await.expect("made");
        assert!(root.has_role("admin"));
        assert!(!identity.is_setup_link(&link).await.expect("asked"));
        let second = NewUser { name: "root2", email: None, password: PASSWORD };
        assert_eq!(identity.set_up(&link, second, &from(1)).await.err(), Some(LinkError::NotValid), "once");
        assert!(identity.setup_link().await.expect("asked").is_none(), "there is an administrator");
    }
}

on_both! {
    async fn a_setup_link_ends(world: World) {
        let link = world.identity.setup_link().await.expect("asked").expect("a link");
        world.clock.advance(Duration::from_secs(15 * 60));
        let new = NewUser { name: "root", email: None, password: PASSWORD };
        assert_eq!(world.identity.set_up(&link, new.clone(), &from(1)).await.err(), Some(LinkError::NotValid));
        let stranger = SetupLink::generate().expect("a link");
        assert_eq!(world.identity.set_up(&stranger, new, &from(1)).await.err(), Some(LinkError::NotValid));
        assert!(world.identity.list_users(None, 10).await.expect("a list").is_empty());
    }
}
