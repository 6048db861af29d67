use super::*;

async fn why(identity: &Identity, name: &str, password: &str, origin: &Origin) -> Result<(), Why> {
    match identity.check_password(name, password, origin).await {
        Ok(_) => Ok(()),
        Err(LoginError::Refused { why, .. }) => Err(why),
        Err(other) => panic!("{other}"),
    }
}

on_both! {
    async fn a_password_lets_its_user_in_by_name_and_address(world: World) {
        let identity = &world.identity;
        let new = NewUser { name: "Alice", email: Some("Alice@Example.com"), password: PASSWORD };
        identity.register(new, &from(1)).await.expect("registered");
        for name in ["alice", "ALICE", "alice@example.com", "ALICE@EXAMPLE.COM", "\u{ff41}lice"] {
            assert_eq!(why(identity, name, PASSWORD, &from(2)).await, Ok(()), "{name}");
        }
        assert_eq!(why(identity, "alice", "correct-horse-battery-43", &from(2)).await, Err(Why::Wrong));
        assert_eq!(why(identity, "alice ", PASSWORD, &from(2)).await, Err(Why::Unknown));
        assert_eq!(why(identity, "bob", PASSWORD, &from(2)).await, Err(Why::Unknown));
        assert_eq!(why(identity, "alice", "", &from(2)).await, Err(Why::Wrong));
        assert_eq!(why(identity, "alice", &"x".repeat(100_000), &from(2)).await, Err(Why::Wrong));
    }
}

on_both! {
    /// PostgreSQL refuses a statement with a NUL in a text, which would tell it from any other name.
    async fn a_nul_is_a_name_that_nobody_has(world: World) {
        let identity = &world.identity;
        let alice = world.user_at("alice", "alice@example.com").await;
        for name in ["\0", "alice\0", "alice@example.com\0", "\0@\0", "a\0@example.com"] {
            assert_eq!(why(identity, name, PASSWORD, &from(1)).await, Err(Why::Unknown), "{name:?}");
            assert_eq!(identity.find_user(name).await, Ok(None), "{name:?}");
            assert!(identity.ask_reset(name, &from(250)).await.expect("asked").letter().is_none(), "{name:?}");
        }
        let nul = "a\0";
        assert_eq!(why(identity, "alice", nul, &from(1)).await, Err(Why::Wrong));
        assert_eq!(identity.client(nul).await, Ok(None));
        assert_eq!(identity.revoke_client(nul).await, Ok(false));
        assert_eq!(identity.revoke_key(None, nul).await, Ok(false));
        assert_eq!(identity.rotate_key(None, nul).await.err(), Some(KeyError::NoKey));
        assert_eq!(identity.revoke_consent(alice.id, nul).await, Ok(false));
        assert_eq!(identity.delete_role(nul).await, Ok(false));
        assert_eq!(identity.set_permissions(nul, &[]).await.err(), Some(RoleError::NoRole));
        let edit = Edit { roles: Some(&[nul.to_owned()]), ..Edit::default() };
        assert_eq!(identity.edit_user(alice.id, edit).await.err(), Some(UserError::NoRole(nul.into())));
        let origin = Origin { agent: "a\0b".into(), ..from(1) };
        let checked = identity.check_password("alice", PASSWORD, &origin).await.expect("in");
        identity.start_session(&checked, StartSession::default(), &origin).await.expect("a session");
        identity.grant(&checked, NewGrant::default(), &origin).await.expect("tokens");
        let new = NewKey { name: nul.into(), scopes: vec!["a".into()], expires_in: None, rate: None };
        assert_eq!(identity.create_key(alice.id, new).await.err(), Some(KeyError::Name));
    }
}

on_both! {
    async fn an_account_locks_and_opens_again(world: World) {
        let identity = &world.identity;
        world.user("alice").await;
        for n in 0..PER_ACCOUNT {
            assert_eq!(why(identity, "alice", "wrong-password", &from(n as u8)).await, Err(Why::Wrong));
        }
        assert_eq!(why(identity, "ALICE", "wrong-password", &from(99)).await, Err(Why::Locked { just: true }));
        assert_eq!(why(identity, "alice", PASSWORD, &from(98)).await, Err(Why::Locked { just: false }));
        world.clock.advance(WINDOW);
        assert_eq!(why(identity, "alice", PASSWORD, &from(98)).await, Ok(()));
        for n in 0..PER_ACCOUNT {
            assert_eq!(why(identity, "alice", "wrong-password", &from(n as u8)).await, Err(Why::Wrong));
            if n == PER_ACCOUNT - 2 {
                assert_eq!(why(identity, "alice", PASSWORD, &from(98)).await, Ok(()), "and the count starts again");
            }
        }
        // Nobody's name locks in the same way.
        for _ in 0..PER_ACCOUNT {
            assert_eq!(why(identity, "nobody", "wrong-password", &from(97)).await, Err(Why::Unknown));
        }
        assert_eq!(why(identity, "nobody", "wrong-password", &from(97)).await, Err(Why::Locked { just: true }));
    }
}

on_both! {
    async fn of_many_guesses_at_once_only_the_allowed_are_checked(world: World) {
        let new = NewUser { name: "alice", email: Some("alice@example.com"), password: PASSWORD };
        world.identity.register(new, &from(1)).await.expect("registered");
        let guesses = (0..60_u8).map(|n| {
            let identity = world.identity.clone();
            tokio::spawn(async move {
                let name = if n % 2 == 0 { "Alice" } else { "alice@example.com" };
                identity.check_password(name, "wrong-password", &from(n)).await
            })
        });
        let (mut wrong, mut locked) = (0, 0);
        for guess in guesses.collect::<Vec<_>>() {
            match guess.await.expect("no panic") {
                Err(LoginError::Refused { why: Why::Wrong, .. }) => wrong += 1,
                Err(LoginError::Refused { why: Why::Locked { .. }, .. }) => locked += 1,
                // The pool sheds: not checked either.
                Err(LoginError::Trouble(Trouble::Busy { .. })) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(wrong <= PER_ACCOUNT && wrong > 0, "{wrong} were checked, {locked} were not");
    }
}

on_both! {
    async fn an_address_has_to_wait(world: World) {
        let identity = &world.identity;
        world.user("alice").await;
        let counters = |name: &str| attempts::Counters::new(attempts::Whose::Nobody(name), from(7).address, false);
        for n in 0..PER_ADDRESS {
            let allowed = counters(&n.to_string()).count(identity.store(), world.clock.now()).await.expect("counted");
            assert_eq!(allowed, attempts::Allowed::Yes { after: std::time::Duration::ZERO });
        }
        let refused = identity.check_password("alice", PASSWORD, &from(7)).await;
        let Err(LoginError::Wait { retry_after }) = refused else { panic!("{refused:?}") };
        assert!(retry_after <= WINDOW && retry_after > WINDOW / 2, "{retry_after:?}");
        assert_eq!(why(identity, "alice", PASSWORD, &from(8)).await, Ok(()), "from elsewhere");
        world.clock.advance(retry_after);
        assert_eq!(why(identity, "alice", PASSWORD, &from(7)).await, Ok(()));
    }
}

on_both! {
    async fn strangers_cannot_lock_a_known_device_out(world: World) {
        let identity = &world.identity;
        world.user("alice").await;
        let checked = world.login("alice").await;
        assert!(!checked.is_known_device());
        let started = identity.start_session(&checked, StartSession::default(), &from(1)).await.expect("a session");
        let device = started.device.expect("a new device");
        let on_device = |last| Origin { device: crate::opaque::Device::parse(device.reveal().expose()), ..from(last) };
        for n in 0..PER_ADDRESS + 5 {
            let _ = identity.check_password("alice", "wrong-password", &from((n % 2) as u8)).await;
            if n == PER_ACCOUNT {
                assert_eq!(why(identity, "alice", PASSWORD, &from(5)).await, Err(Why::Locked { just: false }));
            }
            if n > PER_ACCOUNT + 3 {
                break;
            }
        }
        let checked = identity.check_password("alice", PASSWORD, &on_device(1)).await.expect("from the known device");
        assert!(checked.is_known_device());
        // Another account's device is no known one.
        world.user("mallory").await;
        assert_eq!(why(identity, "mallory", PASSWORD, &on_device(3)).await, Ok(()));
        let own = identity.check_password("mallory", PASSWORD, &on_device(3)).await.expect("in");
        assert!(!own.is_known_device());
        // And its own guesses are counted.
        for _ in 0..PER_ACCOUNT {
            assert_eq!(why(identity, "alice", "wrong-password", &on_device(1)).await, Err(Why::Wrong));
        }
        assert_eq!(why(identity, "alice", PASSWORD, &on_device(1)).await, Err(Why::Locked { just: true }));
    }
}

on_both! {
    async fn a_foreign_hash_is_replaced_at_login(world: World) {
        let identity = &world.identity;
        let account = world.user("alice").await;
        let made = bcrypt::hash_with_salt("password1", 4, *b"0123456789abcdef").expect("a hash").to_string();
        let row = palisade_store::users::by_id(identity.store(), account.id.0).await.expect("read").expect("there");
        let tx = identity.store().begin().await.expect("a transaction");
        palisade_store::users::replace(&tx, palisade_store::users::Model { password: Some(made), ..row })
            .await
            .expect("set");
        let _ = tx.commit().await.expect("committed");
        assert_eq!(why(identity, "alice", "password1", &from(1)).await, Ok(()));
        let row = palisade_store::users::by_id(identity.store(), account.id.0).await.expect("read").expect("there");
        assert!(row.password.expect("a hash").starts_with("$argon2id$"));
        assert_eq!(why(identity, "alice", "password1", &from(1)).await, Ok(()));
    }
}

on_both! {
    /// No oracle: whatever keeps somebody out, one hash of the same size is made, and the answer is one variant.
    async fn whatever_keeps_somebody_out_is_as_much_work(world: World) {
        let identity = &world.identity;
        for name in ["wrong", "disabled", "locked", "empty"] {
            world.user(name).await;
        }
        let find = |name: &'static str| async move { identity.find_user(name).await.expect("asked").expect("there") };
        let off = Edit { enabled: Some(false), ..Edit::default() };
        identity.edit_user(find("disabled").await.id, off).await.expect("disabled");
        let new = NewUser { name: "unproved", email: Some("unproved@example.com"), password: PASSWORD };
        let made = identity.register_by_mail(new, &from(1)).await.expect("registered");
        assert!(matches!(made, Registered::New(_)), "{made:?}");
        let row = palisade_store::users::by_id(identity.store(), find("empty").await.id.0).await.expect("read").expect("there");
        let tx = identity.store().begin().await.expect("a transaction");
        palisade_store::users::replace(&tx, palisade_store::users::Model { password: None, ..row }).await.expect("set");
        let _ = tx.commit().await.expect("committed");
        for n in 0..PER_ACCOUNT {
            assert_eq!(why(identity, "locked", "wrong-password", &from(n as u8)).await, Err(Why::Wrong));
        }
        let mut works = Vec::new();
        for (name, password, reason) in [
            ("nobody", PASSWORD, Why::Unknown),
            ("nobody@example.com", PASSWORD, Why::Unknown),
            ("wrong", "wrong-password", Why::Wrong),
            ("disabled", PASSWORD, Why::Disabled),
            ("unproved", PASSWORD, Why::Unproved),
            ("unproved@example.com", PASSWORD, Why::Unproved),
            ("empty", PASSWORD, Why::NoPassword),
            ("locked", PASSWORD, Why::Locked { just: true }),
            ("locked", PASSWORD, Why::Locked { just: false }),
        ] {
            let before = identity.pool().taken();
            assert_eq!(why(identity, name, password, &from(100)).await, Err(reason), "{name}");
            let after = identity.pool().taken();
            works.push((after.0 - before.0, after.1 - before.1));
        }
        assert_eq!(works[0].0, 1, "one hash");
        assert!(works.iter().all(|work| *work == works[0]), "{works:?}");
    }
}
