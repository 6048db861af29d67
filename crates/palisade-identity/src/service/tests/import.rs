use super::*;

const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuGxNYQUXsUs6E1PBKQa2T3tVUJbDnZxe";

async fn import(world: &World, format: Format, text: &str, dry_run: bool) -> (ImportReport, Vec<(u64, String)>) {
    let options = ImportOptions {
        format,
        columns: vec![],
        roles: vec!["user".into()],
        superusers: Some("admin".into()),
        dry_run,
    };
    let mut failures = Vec::new();
    let mut on = |event: ImportEvent<'_>| {
        if let ImportEvent::Failed { line, why, .. } = event {
            failures.push((line, why.to_string()));
        }
    };
    let report = world.identity.import_users(text.as_bytes(), &options, &mut on).await.expect("a report");
    assert_eq!(report.read, report.imported + report.known + report.failed, "nothing is lost");
    (report, failures)
}

on_both! {
    async fn accounts_of_other_applications_log_in(world: World) {
        let bcrypt = bcrypt::hash_with_salt("correct-horse", 4, *b"0123456789abcdef").expect("a hash").to_string();
        let csv = format!("id,username,email,hashed_password,is_active,is_superuser,is_verified\n\
            7,Alice,alice@example.com,{bcrypt},true,1,true\n\
            8,bob,bob@example.com,{bcrypt},0,false,false\n\
            9,carol,carol@example.com,!unusable,1,0,0\n");
        let (report, failures) = import(&world, Format::Csv, &csv, false).await;
        assert_eq!((report.imported, report.without_password, failures), (3, 1, vec![]));
        let identity = &world.identity;
        let alice = identity.find_user("7").await.expect("asked").expect("by the application's id");
        assert_eq!((alice.name.as_str(), alice.verified_email()), ("Alice", Some("alice@example.com")));
        assert_eq!(alice.roles, ["admin", "user"]);
        assert!(identity.check_password("alice", "correct-horse", &from(1)).await.is_ok());
        assert!(identity.check_password("bob", "correct-horse", &from(1)).await.is_err(), "not active");
        assert!(identity.check_password("carol", "!unusable", &from(1)).await.is_err());

        // Again, as after an interruption: what is there is known, also Alice with her upgraded hash.
        let more = format!("{csv}10,dave,dave@example.com,{bcrypt},1,0,0\n");
        let (report, _) = import(&world, Format::Csv, &more, false).await;
        assert_eq!((report.imported, report.known), (1, 3));
    }
}

on_both! {
    async fn lines_of_json(world: World) {
        let text = format!("{{\"id\":\"6a1\",\"email\":\"Zoe@example.com\",\"hashed_password\":\"{BCRYPT}\",\"is_active\":true,\"is_superuser\":false,\"is_verified\":true}}\n\n\
            {{\"username\":\"yan\",\"password\":\"{BCRYPT}\",\"roles\":[\"admin\"],\"other\":{{}}}}\n\
            [1]\n\
            not json\n\
            {{\"username\":{{}},\"password\":\"{BCRYPT}\"}}\n");
        let (report, failures) = import(&world, Format::JsonLines, &text, false).await;
        assert_eq!((report.imported, failures.len()), (2, 3), "{failures:?}");
        assert_eq!(failures.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 5, 6]);
        // fastapi-users knows no names: the address is one.
        let zoe = world.identity.find_user("zoe@EXAMPLE.com").await.expect("asked").expect("there");
        assert_eq!((zoe.name.as_str(), zoe.app_id.as_deref()), ("Zoe@example.com", Some("6a1")));
        assert_eq!(world.identity.find_user("yan").await.expect("asked").expect("there").roles, ["admin", "user"]);
    }
}

on_both! {
    async fn what_fails_is_told_with_its_line(world: World) {
        world.user_at("alice", "alice@example.com").await;
        let csv = format!("id,username,email,password,roles\n\
            1,alice,,{BCRYPT},\n\
            2,bob,alice@example.com,{BCRYPT},\n\
            3,carol,carol@example.com,pbkdf2_sha256$4000000000$salt$aaaa,\n\
            4,dave,dave@example.com,plaintext,\n\
            5,\"e v\",eve@example.com,{BCRYPT},\n\
            6,frank,nonsense,{BCRYPT},\n\
            7,grace,grace@example.com,{BCRYPT},wizard\n\
            8,heidi,heidi@example.com,{BCRYPT},admin\n\
            8,ivan,ivan@example.com,{BCRYPT},\n\
            9,,,{BCRYPT},\n\
            10,\"quo\"te,x@example.com,{BCRYPT},\n");
        let (dry, _) = import(&world, Format::Csv, &csv, true).await;
        assert!(world.identity.find_user("heidi").await.expect("asked").is_none(), "a dry run stores nothing");
        let (report, mut failures) = import(&world, Format::Csv, &csv, false).await;
        assert_eq!(dry, report);
        failures.sort();
        assert_eq!((report.imported, report.known, failures.len()), (1, 0, 10), "{failures:?}");
        let said = |line: u64| failures.iter().find(|(at, _)| *at == line).map(|(_, why)| why.clone()).unwrap_or_default();
        for (line, part) in [
            (2, "has this name"), (3, "has this e-mail address"), (4, "cost too much"), (5, "no known format"), (6, "the name"),
            (7, "the e-mail address"), (8, "palisade role add wizard"), (10, "id of the application"), (11, "neither"), (12, "quote"),
        ] {
            assert!(said(line).contains(part), "{line}: {:?}", said(line));
        }
    }
}

on_both! {
    async fn files_that_are_none(world: World) {
        let options = ImportOptions { format: Format::Csv, columns: vec![], roles: vec![], superusers: None, dry_run: false };
        let mut on = |_: ImportEvent<'_>| {};
        for text in ["", "a,b\n1,2\n", "username\nalice\n", "password\nx\n"] {
            let refused = world.identity.import_users(text.as_bytes(), &options, &mut on).await;
            assert!(matches!(refused, Err(ImportError::Header(_))), "{text:?} {refused:?}");
        }
        let options = ImportOptions { roles: vec!["nothing".into()], ..options };
        let refused = world.identity.import_users(&b"username,password\n"[..], &options, &mut on).await;
        assert!(matches!(refused, Err(ImportError::NoRole(_))), "{refused:?}");
    }
}

on_both! {
    /// An imported hash costs several times one of ours: the time of a refusal must not say whose account has moved in.
    async fn a_refusal_takes_as_long_for_nobody_as_for_an_import(world: World) {
        let bcrypt = bcrypt::hash_with_salt("correct-horse", 12, *b"0123456789abcdef").expect("a hash").to_string();
        let csv = format!("username,hashed_password,is_active\nalice,{bcrypt},true\nbob,{bcrypt},false\n");
        let (report, failures) = import(&world, Format::Csv, &csv, false).await;
        assert_eq!((report.imported, failures), (2, vec![]));
        let identity = &world.identity;
        let refuse = async |name: &str| {
            let begun = std::time::Instant::now();
            assert!(identity.check_password(name, "wrong-password", &from(1)).await.is_err(), "{name}");
            begun.elapsed()
        };
        let import = refuse("alice").await;
        let slowest = identity.slowest_import();
        assert!(!slowest.is_zero() && slowest <= import);
        for name in ["nobody", "bob"] {
            let took = refuse(name).await;
            assert!(took >= slowest.min(Duration::from_secs(1)), "{name}: {took:?}, and {slowest:?} for an import");
        }
        world.clock.advance(Duration::from_secs(3600));
        assert_eq!(identity.slowest_import(), Duration::ZERO, "nobody waits for what is long gone");
    }
}

on_both! {
    /// What meets in two batches of one file is seen without storing any of it.
    async fn a_dry_run_says_what_the_run_will(world: World) {
        let mut csv = String::from("id,username,email,password\n");
        for n in 0..450 {
            csv += &format!("{n},user{n},user{n}@example.com,{BCRYPT}\n");
        }
        csv += &format!("1000,other,user3@example.com,{BCRYPT}\n1001,user4,,{BCRYPT}\n5,another,,{BCRYPT}\n");
        csv += &format!("6,user6,user6@example.com,{BCRYPT}\n");
        let (dry, said) = import(&world, Format::Csv, &csv, true).await;
        let (run, happened) = import(&world, Format::Csv, &csv, false).await;
        assert_eq!((dry, said), (run, happened));
        assert_eq!((run.imported, run.known, run.failed), (450, 1, 3));
    }
}
