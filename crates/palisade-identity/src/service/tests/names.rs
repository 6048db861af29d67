use super::*;

/// Threats 33: pairs of names, and whether the second may register beside the first.
const PAIRS: [(&str, &str, bool); 30] = [
    ("admin", "Admin", false),
    ("admin", "ADMIN", false),
    ("admin", "\u{ff21}\u{ff44}\u{ff4d}\u{ff49}\u{ff4e}", false),
    ("admin", "admin ", false),
    ("admin", " admin", false),
    ("admin", "\u{430}dmin", false),
    ("admin", "adm\u{131}n", true),
    ("admin", "admin\u{200b}", false),
    ("admin", "admin\u{301}", true),
    ("admin", "admin\0", false),
    ("caf\u{e9}", "cafe\u{301}", false),
    ("caf\u{e9}", "CAFE\u{301}", false),
    ("caf\u{e9}", "cafe", true),
    ("strasse", "stra\u{df}e", true),
    ("STRA\u{1e9e}E", "stra\u{df}e", false),
    ("\u{c4}pfel", "\u{e4}pfel", false),
    ("\u{c4}pfel", "A\u{308}pfel", false),
    ("i\u{307}stanbul", "\u{130}stanbul", false),
    ("istanbul", "\u{130}stanbul", true),
    ("\u{3c3}ofia", "\u{3a3}OFIA", false),
    ("\u{43f}\u{451}\u{442}\u{440}", "\u{41f}\u{401}\u{422}\u{420}", false),
    ("\u{43f}\u{451}\u{442}\u{440}", "\u{43f}\u{435}\u{442}\u{440}", true),
    ("\u{30a2}\u{30a4}", "\u{ff71}\u{ff72}", false),
    ("ohm", "\u{2126}hm", false),
    ("k\u{e5}re", "\u{212a}\u{212b}RE", false),
    ("a.b", "ab", true),
    ("a_b", "a-b", true),
    ("o'neil", "O'NEIL", false),
    ("o'neil", "o\u{2019}neil", false),
    ("\u{17f}am", "SAM", true),
];

on_both! {
    async fn the_same_names_meet_on_both_databases(world: World) {
        for (index, (first, second, beside)) in PAIRS.into_iter().enumerate() {
            // Each pair under a prefix of its own would change its scripts; so each has a fresh start instead.
            for name in [first, second] {
                if let Some(account) = world.identity.find_user(name).await.expect("asked") {
                    world.identity.delete_user(account.id).await.expect("deleted");
                }
            }
            let register = async |name: &str| {
                world.identity.add_for_test(name).await
            };
            let made = register(first).await;
            // `ſam` is refused on its own: an old letter that no keyboard writes.
            if made.is_err() {
                assert_eq!(first, "\u{17f}am", "{index}: {made:?}");
                continue;
            }
            let second_made = register(second).await;
            assert_eq!(second_made.is_ok(), beside, "{index}: {first:?} {second:?} {second_made:?}");
        }
    }
}

impl Identity {
    /// An account without a password, so that sixty of them take no time.
    async fn add_for_test(&self, name: &str) -> Result<(), String> {
        let name = Name::parse(name).map_err(|why| why.to_string())?;
        let tx = self.store().begin().await.map_err(|why| why.to_string())?;
        let row = palisade_store::users::Model {
            name: name.shown().into(),
            name_key: name.key().into(),
            ..palisade_store::users::new(0)
        };
        palisade_store::users::insert(&tx, row).await.map_err(|why| why.to_string())?;
        let _ = tx.commit().await.map_err(|why| why.to_string())?;
        Ok(())
    }
}
