use super::*;
use crate::password::Weakness;

async fn register(world: &World, name: &str, email: Option<&str>, password: &str) -> Result<Account, UserError> {
    world.identity.register(NewUser { name, email, password }, &from(1)).await
}

on_both! {
    async fn what_registers_and_what_does_not(world: World) {
        let alice = register(&world, "Alice", Some("alice@example.com"), PASSWORD).await.expect("registered");
        assert!(alice.roles.is_empty() && !alice.email_verified && alice.verified_email().is_none());
        assert_eq!(alice.name, "Alice");
        for (name, email, why) in [
            ("ALICE", None, UserError::NameTaken),
            ("\u{ff21}lice", None, UserError::NameTaken),
            ("bob", Some("Alice@EXAMPLE.com"), UserError::EmailTaken),
            ("bob ", None, UserError::Name(BadName::Character)),
            ("\u{430}lice", None, UserError::Name(BadName::MixedScripts)),
            ("bob", Some("nonsense"), UserError::Email(BadEmail)),
            ("victim@example.com", None, UserError::Name(BadName::At)),
            ("victim@example.com", Some("mallory@example.com"), UserError::Name(BadName::At)),
        ] {
            assert_eq!(register(&world, name, email, PASSWORD).await.err(), Some(why), "{name}");
        }
        let own = register(&world, "carol@example.com", Some("Carol@example.com"), PASSWORD).await;
        assert!(own.is_ok(), "one's own address: {own:?}");
        let weak = register(&world, "bob", None, "password").await.err();
        assert!(matches!(&weak, Some(UserError::Weak(why)) if why.contains(&Weakness::Short)), "{weak:?}");
        let context = register(&world, "bartholomew", None, "bartholomew-12").await.err();
        assert!(matches!(&context, Some(UserError::Weak(why)) if why.contains(&Weakness::Context)), "{context:?}");
    }
}

on_both! {
    /// An id is never given twice, also where the name is.
    async fn a_deleted_name_is_another_account(world: World) {
        let first = register(&world, "alice", None, PASSWORD).await.expect("registered");
        let checked = world.login("alice").await;
        let session = world.identity.start_session(&checked, StartSession::default(), &from(1)).await.expect("a session");
        assert!(world.identity.delete_user(first.id).await.expect("deleted"));
        assert!(!world.identity.delete_user(first.id).await.expect("asked"));
        assert!(world.identity.session(&session.secret, &from(1)).await.is_err());
        let second = register(&world, "alice", None, PASSWORD).await.expect("registered");
        assert_ne!(first.id, second.id);
        let late = world.identity.start_session(&checked, StartSession::default(), &from(1)).await.err();
        assert_eq!(late, Some(Unrecognised::NotValid(NotValid::Disabled)), "the old proof is no proof of the new account");
    }
}

on_both! {
    async fn accounts_are_found_listed_and_changed(world: World) {
        let identity = &world.identity;
        let mut ids = Vec::new();
        for name in ["alice", "bob", "carol"] {
            let email = format!("{name}@example.com");
            ids.push(register(&world, name, Some(&email), PASSWORD).await.expect("registered").id);
        }
        let names = |list: Vec<Account>| list.into_iter().map(|account| account.name).collect::<Vec<_>>();
        assert_eq!(names(identity.list_users(None, 2).await.expect("a list")), ["alice", "bob"]);
        assert_eq!(names(identity.list_users(Some(ids[1]), 2).await.expect("a list")), ["carol"]);
        for text in ["BOB", "bob@example.com", &ids[1].to_string()] {
            assert_eq!(identity.find_user(text).await.expect("asked").map(|account| account.id), Some(ids[1]), "{text}");
        }
        assert_eq!(identity.find_user("nobody").await.expect("asked"), None);
        let taken = Edit { name: Some("ALICE"), ..Edit::default() };
        assert_eq!(identity.edit_user(ids[1], taken).await.err(), Some(UserError::NameTaken));
        let verified = Edit { email_verified: Some(true), ..Edit::default() };
        assert!(identity.edit_user(ids[1], verified).await.expect("changed").email_verified);
        let moved = Edit { email: Some(Some("bob@elsewhere.example")), ..Edit::default() };
        assert!(!identity.edit_user(ids[1], moved).await.expect("changed").email_verified, "another address");
        assert_eq!(identity.edit_user(UserId(Uuid::nil()), Edit::default()).await.err(), Some(UserError::NoUser));
    }
}

on_both! {
    async fn a_password_is_changed(world: World) {
        register(&world, "alice", None, PASSWORD).await.expect("registered");
        let identity = &world.identity;
        let checked = world.login("alice").await;
        let (here, there) = (
            identity.start_session(&checked, StartSession::default(), &from(1)).await.expect("a session"),
            identity.start_session(&checked, StartSession::default(), &from(2)).await.expect("a session"),
        );
        let next = "another-horse-battery-43";
        identity.change_password(&checked, next, Some(here.id), &from(1)).await.expect("changed");
        assert!(identity.session(&here.secret, &from(1)).await.is_ok(), "the one it was done in");
        assert!(identity.session(&there.secret, &from(1)).await.is_err());
        assert!(identity.check_password("alice", PASSWORD, &from(1)).await.is_err());
        assert!(identity.check_password("alice", next, &from(1)).await.is_ok());
        let stale = identity.start_session(&checked, StartSession::default(), &from(1)).await.err();
        assert_eq!(stale, Some(Unrecognised::NotValid(NotValid::Revoked)), "a proof of the old password");
        assert!(identity.change_password(&checked, PASSWORD, None, &from(1)).await.is_err());
    }
}
