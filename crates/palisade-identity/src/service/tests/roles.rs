use super::*;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

on_both! {
    async fn roles_are_made_changed_and_deleted(world: World) {
        let identity = &world.identity;
        let names = async || identity.list_roles().await.expect("a list").into_iter().map(|role| role.name).collect::<Vec<_>>();
        assert_eq!(names().await, BUILT_IN.iter().rev().copied().collect::<Vec<_>>());
        let role = identity.add_role("editor", &words(&["notes:write", "notes:read", "notes:read"])).await.expect("made");
        assert_eq!(role.permissions, ["notes:read", "notes:write"]);
        assert_eq!(identity.add_role("editor", &[]).await.err(), Some(RoleError::Exists));
        for bad in ["", "a b", "a\"", "é", &"x".repeat(65)] {
            assert_eq!(identity.add_role(bad, &[]).await.err(), Some(RoleError::Name), "{bad}");
        }
        assert_eq!(identity.add_role("x", &words(&["a b"])).await.err(), Some(RoleError::Permission));
        assert_eq!(identity.set_permissions("nothing", &[]).await.err(), Some(RoleError::NoRole));

        let alice = world.user("alice").await;
        let edit = Edit { roles: Some(&words(&["editor"])), ..Edit::default() };
        assert!(identity.edit_user(alice.id, edit).await.expect("changed").may("notes:write"));
        let other = world.another().await;
        let may = async |identity: &Identity, what: &str| identity.user(alice.id).await.expect("asked").expect("there").may(what);
        assert!(may(&other, "notes:write").await && !may(&other, "notes:delete").await);
        identity.set_permissions("editor", &words(&["notes:delete"])).await.expect("changed");
        other.catch_up().await.expect("the feed");
        for instance in [identity, &other] {
            assert!(!may(instance, "notes:write").await && may(instance, "notes:delete").await);
        }
        assert_eq!(identity.delete_role("admin").await.err(), Some(RoleError::BuiltIn));
        assert!(identity.delete_role("editor").await.expect("deleted"));
        assert!(!identity.delete_role("editor").await.expect("asked"));
        other.catch_up().await.expect("the feed");
        assert!(!may(&other, "notes:delete").await && !may(identity, "notes:delete").await);
    }
}
