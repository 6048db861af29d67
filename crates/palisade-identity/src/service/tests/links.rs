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
        let letter = identity.ask_reset("VICTIM@example.com", &from(1)).await.expect("asked").letter().expect("a letter");
        assert_eq!(letter.email, "victim@example.com");
        world.clock.advance(Duration::from_millis(5));
        let done = identity.reset_password(&letter.link, NEXT, &from(2)).await.expect("reset");
        assert!(done.email_verified, "the link came by mail");
        assert!(identity.session(&session.secret, &from(1)).await.is_err());
        assert!(identity.token(tokens.access.text.expose(), &[]).await.is_err());
        assert!(identity.refresh(&tokens.refresh, None, false, &TokenRequest::default(), &from(1)).await.is_err());
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
        assert!(identity.ask_reset("nobody@example.com", &from(1)).await.expect("asked").letter().is_none());
        assert!(identity.ask_reset("nonsense", &from(1)).await.expect("asked").letter().is_none());
        let stranger = ResetLink::generate().expect("a link");
        assert_eq!(identity.reset_password(&stranger, NEXT, &from(1)).await.err(), Some(LinkError::NotValid));
        let first = identity.ask_reset("alice@example.com", &from(1)).await.expect("asked").letter().expect("a letter");
        let second = identity.ask_reset("alice@example.com", &from(1)).await.expect("asked").letter().expect("a letter");
        assert_eq!(identity.reset_password(&first.link, NEXT, &from(1)).await.err(), Some(LinkError::NotValid), "the older one");
        let weak = identity.reset_password(&second.link, "alice", &from(1)).await;
        assert!(matches!(&weak, Err(LinkError::Weak(why)) if why.contains(&Weakness::Short)), "{weak:?}");
        world.clock.advance(Duration::from_secs(3600));
        assert_eq!(identity.reset_password(&second.link, NEXT, &from(1)).await.err(), Some(LinkError::NotValid), "too late");
        let moved = identity.ask_reset("alice@example.com", &from(1)).await.expect("asked").letter().expect("a letter");
        let edit = Edit { email: Some(Some("alice@elsewhere.example")), ..Edit::default() };
        identity.edit_user(alice.id, edit).await.expect("changed");
        assert_eq!(identity.reset_password(&moved.link, NEXT, &from(1)).await.err(), Some(LinkError::NotValid), "another address by now");
        identity.edit_user(alice.id, Edit { enabled: Some(false), ..Edit::default() }).await.expect("disabled");
        assert!(identity.ask_reset("alice@elsewhere.example", &from(1)).await.expect("asked").letter().is_none());
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
        let letter = identity.ask_reset("alice@example.com", &from(1)).await.expect("asked").letter().expect("a letter");
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
        let letter = identity.ask_verification(alice.id, &from(1)).await.expect("asked").letter().expect("a letter");
        assert!(identity.verify_email(&letter.link, Some(here.id)).await.expect("verified").email_verified);
        assert_eq!(identity.verify_email(&letter.link, None).await.err(), Some(LinkError::NotValid), "once");
        assert!(identity.ask_verification(alice.id, &from(1)).await.expect("asked").letter().is_none(), "nothing to verify");
        assert!(identity.session(&here.secret, &from(1)).await.is_ok() && identity.session(&there.secret, &from(1)).await.is_err());

        world.user_at("bob", "bob@example.com").await;
        assert!(identity.ask_email_change(alice.id, "bob@example.com", &from(1)).await.expect("asked").letter().is_none(), "taken");
        assert_eq!(identity.ask_email_change(alice.id, "nonsense", &from(1)).await.err(), Some(LinkError::Email));
        let letter = identity.ask_email_change(alice.id, "alice@elsewhere.example", &from(1)).await.expect("asked").letter().expect("a letter");
        assert_eq!(letter.email, "alice@elsewhere.example");
        let before = identity.find_user("alice").await.expect("asked").expect("there");
        assert_eq!(before.verified_email(), Some("alice@example.com"), "nothing yet");
        let moved = identity.change_email(&letter.link, None).await.expect("changed");
        assert_eq!(moved.from.as_deref(), Some("alice@example.com"), "who is told");
        let after = moved.account;
        assert_eq!(after.verified_email(), Some("alice@elsewhere.example"));
        assert!(identity.session(&here.secret, &from(1)).await.is_ok(), "not the first verification");
        assert_eq!(identity.change_email(&letter.link, None).await.err(), Some(LinkError::NotValid));
        let late = identity.ask_email_change(alice.id, "late@example.com", &from(1)).await.expect("asked").letter().expect("a letter");
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
        let link = world.identity.setup_link().await.expect("asked").expect("a link");
        let first = NewUser { name: "first", email: None, password: PASSWORD };
        world.identity.add_user(first, &["admin".into()], false, &from(1)).await.expect("made by the command");
        let late = NewUser { name: "late", email: None, password: PASSWORD };
        assert_eq!(world.identity.set_up(&link, late, &from(1)).await.err(), Some(LinkError::NotValid));
    }
}

on_both! {
    /// Neither the answer nor the work tells whether somebody has a name or an address.
    async fn a_registration_that_is_to_be_proved(world: World) {
        let identity = &world.identity;
        let new = |name: &'static str, email: &'static str| NewUser { name, email: Some(email), password: PASSWORD };
        let before = identity.pool().taken();
        let made = identity.register_by_mail(new("alice", "alice@example.com"), &from(1)).await.expect("asked");
        let Registered::New(letter) = made else { panic!("{made:?}") };
        let work = identity.pool().taken().0 - before.0;
        assert!(identity.check_password("alice", PASSWORD, &from(1)).await.is_err(), "not proved yet");
        for (name, email, holder) in [
            ("alice", "other@example.com", None),
            ("other", "Alice@example.com", Some(letter.account.id)),
            ("alice", "alice@example.com", Some(letter.account.id)),
        ] {
            let before = identity.pool().taken();
            let taken = identity.register_by_mail(new(name, email), &from(1)).await.expect("asked");
            let Registered::Taken(found) = taken else { panic!("{taken:?}") };
            assert_eq!(found.map(|account| account.id), holder, "{name} {email}");
            assert_eq!(identity.pool().taken().0 - before.0, work, "{name} {email}");
        }
        assert!(matches!(
            identity.register_by_mail(new("alice2", "alice@example.com"), &from(1)).await,
            Ok(Registered::Enough)
        ), "the fourth mail within an hour");
        let none = NewUser { name: "none", email: None, password: PASSWORD };
        assert_eq!(identity.register_by_mail(none, &from(1)).await.err(), Some(LinkError::Email));
        assert!(matches!(
            identity.register_by_mail(NewUser { name: "x", email: Some("x@example.com"), password: "x" }, &from(1)).await,
            Err(LinkError::Weak(_))
        ));
        assert!(identity.verify_email(&letter.link, None).await.expect("proved").email_verified);
        assert!(identity.check_password("alice", PASSWORD, &from(1)).await.is_ok());
    }
}

on_both! {
    async fn who_proves_nothing_within_a_day_keeps_no_name(world: World) {
        let identity = &world.identity;
        let new = |name: &'static str, email: &'static str| NewUser { name, email: Some(email), password: PASSWORD };
        let made = identity.register_by_mail(new("alice", "alice@example.com"), &from(1)).await.expect("asked");
        let Registered::New(letter) = made else { panic!("{made:?}") };
        identity.register_by_mail(new("bob", "bob@example.com"), &from(1)).await.expect("asked");
        let reset = identity.ask_reset("bob@example.com", &from(1)).await.expect("asked").letter().expect("a letter");
        identity.reset_password(&reset.link, NEXT, &from(1)).await.expect("a reset proves as well");
        world.user_at("carol", "carol@example.com").await;
        world.clock.advance(Duration::from_secs(24 * 3600 - 1));
        identity.sweep().await.expect("swept");
        assert!(identity.find_user("alice").await.expect("asked").is_some(), "not yet");
        world.clock.advance(Duration::from_secs(2));
        identity.sweep().await.expect("swept");
        assert!(identity.find_user("alice").await.expect("asked").is_none());
        assert_eq!(identity.verify_email(&letter.link, None).await.err(), Some(LinkError::NotValid));
        for name in ["bob", "carol"] {
            assert!(identity.find_user(name).await.expect("asked").is_some(), "{name}");
        }
        let again = identity.register_by_mail(new("alice", "alice@elsewhere.example"), &from(1)).await.expect("asked");
        assert!(matches!(again, Registered::New(_)), "the name is free again: {again:?}");
    }
}

on_both! {
    async fn mail_has_its_measure(world: World) {
        let identity = &world.identity;
        world.user_at("alice", "alice@example.com").await;
        let mut letters = Vec::new();
        for n in 0..PER_RECIPIENT + 2 {
            match identity.ask_reset("alice@example.com", &from(n as u8)).await.expect("asked") {
                Asked::Letter(letter) => letters.push(letter),
                Asked::Enough(user) => assert!(n >= PER_RECIPIENT && user.is_some(), "{n}"),
                Asked::Nobody => panic!("{n}"),
            }
        }
        assert_eq!(letters.len(), PER_RECIPIENT as usize);
        let last = letters.last().expect("one");
        identity.reset_password(&last.link, NEXT, &from(1)).await.expect("whoever asks on does not take it away");
        for n in 0..PER_RECIPIENT + 2 {
            let nobody = identity.ask_reset("nobody@example.com", &from(100)).await.expect("asked");
            assert_eq!(matches!(nobody, Asked::Enough(None)), n >= PER_RECIPIENT, "{n}: counted for nobody as well");
        }
        for n in 0..PER_ASKER - (PER_RECIPIENT + 2) {
            identity.ask_reset(&format!("n{n}@example.com"), &from(100)).await.expect("asked");
        }
        let refused = identity.ask_reset("alice@example.com", &from(100)).await.err();
        let Some(LinkError::Wait { retry_after }) = refused else { panic!("{refused:?}") };
        assert!(retry_after <= MAIL_WINDOW && retry_after > MAIL_WINDOW / 2, "{retry_after:?}");
        // A sweep in between gives nobody more.
        world.clock.advance(Duration::from_secs(20 * 60));
        identity.sweep().await.expect("swept");
        assert!(identity.ask_reset("a@example.com", &from(100)).await.is_err());
        world.clock.advance(MAIL_WINDOW);
        assert!(identity.ask_reset("alice@example.com", &from(100)).await.expect("asked").letter().is_some());
    }
}

on_both! {
    async fn notices_have_theirs(world: World) {
        let identity = &world.identity;
        let alice = world.user_at("alice", "alice@example.com").await;
        assert!(identity.notice(alice.id, "lock-out", 1).await.expect("asked").is_none(), "not proved: a stranger's, perhaps");
        identity.edit_user(alice.id, Edit { email_verified: Some(true), ..Edit::default() }).await.expect("proved");
        assert!(identity.notice(alice.id, "new-device", 1).await.expect("asked").is_some(), "another kind");
        assert!(identity.notice(alice.id, "lock-out", 1).await.expect("asked").is_none(), "the second");
        world.clock.advance(MAIL_WINDOW);
        assert!(identity.notice(alice.id, "lock-out", 1).await.expect("asked").is_some());
        identity.edit_user(alice.id, Edit { enabled: Some(false), ..Edit::default() }).await.expect("disabled");
        world.clock.advance(MAIL_WINDOW);
        assert!(identity.notice(alice.id, "lock-out", 1).await.expect("asked").is_none());
    }
}

on_both! {
    /// Whoever was in a stolen session asked for another address; its owner throws them out, and the link is worth nothing.
    async fn a_change_of_address_ends_with_what_asked_for_it(world: World) {
        let alice = world.user_at("alice", "alice@example.com").await;
        let identity = &world.identity;
        for (number, how) in ["password", "sessions", "disabled"].into_iter().enumerate() {
            let email = format!("thief-{number}@example.com");
            let asked = identity.ask_email_change(alice.id, &email, &from(9)).await.expect("asked");
            let letter = asked.letter().expect("a letter");
            world.clock.advance(Duration::from_millis(5));
            match how {
                "password" => {
                    let checked = world.login("alice").await;
                    identity.change_password(&checked, NEXT, None, &from(1)).await.expect("changed");
                }
                "sessions" => {
                    identity.end_sessions_of(alice.id, None).await.expect("ended");
                }
                _ => {
                    for enabled in [false, true] {
                        let edit = Edit { enabled: Some(enabled), ..Edit::default() };
                        identity.edit_user(alice.id, edit).await.expect("edited");
                    }
                }
            }
            let moved = identity.change_email(&letter.link, None).await;
            assert_eq!(moved.err(), Some(LinkError::NotValid), "{how}");
        }
    }
}

on_both! {
    /// A reset that was asked for before another password was set is one too many.
    async fn a_new_password_ends_resets(world: World) {
        world.user_at("alice", "alice@example.com").await;
        let identity = &world.identity;
        let letter = identity.ask_reset("alice@example.com", &from(1)).await.expect("asked").letter().expect("a letter");
        let checked = world.login("alice").await;
        identity.change_password(&checked, NEXT, None, &from(1)).await.expect("changed");
        let late = identity.reset_password(&letter.link, PASSWORD, &from(1)).await;
        assert_eq!(late.err(), Some(LinkError::NotValid));
    }
}

on_both! {
    /// Mails that somebody else asks for, and that may go to nobody, do not keep an owner from a reset.
    async fn asking_for_other_mails_blocks_no_reset(world: World) {
        world.user_at("alice", "alice@example.com").await;
        let mallory = world.user_at("mallory", "mallory@example.com").await;
        let identity = &world.identity;
        for _ in 0..=PER_RECIPIENT {
            identity.ask_email_change(mallory.id, "alice@example.com", &from(9)).await.expect("asked");
        }
        let asked = identity.ask_reset("alice@example.com", &from(1)).await.expect("asked");
        assert!(asked.letter().is_some());
    }
}
