use std::collections::HashSet;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use palisade_base::Timestamp;
use proptest::prelude::*;

use super::*;

const LIFE: Lifetimes = Lifetimes { idle: Duration::from_secs(3600), absolute: Duration::from_secs(7 * 86_400) };

fn public() -> Binding {
    Binding { client: "app".into(), confidential: false, dpop: None }
}

fn home() -> Place {
    Place::new([192, 0, 2, 1].into(), "firefox")
}

fn at(seconds: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]
    Timestamp((seconds * 1000.0) as i64)
}

/// A store of one family.
struct Store {
    family: Family,
    binding: Binding,
}

impl Store {
    fn start(binding: Binding) -> (Self, RefreshToken) {
        let (family, token) = Family::start(binding.clone(), LIFE, at(0.0)).expect("entropy");
        (Self { family, binding }, token)
    }

    /// The token and whether it was given before, or why not: a replay, or (`None`) nothing to report.
    fn refresh(
        &mut self,
        token: &RefreshToken,
        place: Place,
        now: f64,
    ) -> Result<(RefreshToken, bool), Option<Replay>> {
        self.refresh_as(&self.binding.clone(), token, place, at(now))
    }

    fn refresh_as(
        &mut self,
        binding: &Binding,
        token: &RefreshToken,
        place: Place,
        now: Timestamp,
    ) -> Result<(RefreshToken, bool), Option<Replay>> {
        // Through the forms in which both travel, every time.
        let token = RefreshToken::parse(token.reveal().expose()).expect("its text");
        self.family = Family::from_bytes(&self.family.to_bytes()).expect("what was written");
        match self.family.present(&token, binding, place, now).expect("entropy") {
            Outcome::Refreshed { family, token, again } => {
                assert!(family.version() > self.family.version());
                self.family = family;
                Ok((token, again))
            }
            Outcome::Replayed { family, how } => {
                if let Some(family) = family {
                    assert!(family.version() > self.family.version());
                    self.family = family;
                }
                assert!(self.family.ended().is_some());
                Err(Some(how))
            }
            Outcome::Expired | Outcome::Unknown => Err(None),
        }
    }
}

fn same(one: &RefreshToken, other: &RefreshToken) -> bool {
    one.reveal().expose() == other.reveal().expose()
}

#[test]
fn a_lost_answer_is_given_again() {
    let (mut store, first) = Store::start(public());
    let (second, again) = store.refresh(&first, home(), 1.0).expect("refreshed");
    assert!(!again && !same(&first, &second));
    for _ in 0..3 {
        let (repeated, again) = store.refresh(&first, home(), 10.9).expect("within grace");
        assert!(again && same(&repeated, &second));
    }
    let (third, again) = store.refresh(&second, home(), 11.0).expect("refreshed");
    assert!(!again && !same(&third, &second));
}

#[test]
fn what_ends_a_family() {
    let away = || Place::new([198, 51, 100, 7].into(), "firefox");
    let other_kind = || Place::new([192, 0, 2, 1].into(), "curl");
    let cases: [(&str, f64, Place, Replay); 4] = [
        ("past the window", 11.0, home(), Replay::Spent),
        ("another address", 1.0, away(), Replay::OtherPlace),
        ("another kind of client", 1.0, other_kind(), Replay::OtherPlace),
        ("much later", 3000.0, home(), Replay::Spent),
    ];
    for (name, now, place, how) in cases {
        let (mut store, first) = Store::start(public());
        let (second, _) = store.refresh(&first, home(), 1.0).expect("refreshed");
        assert_eq!(store.refresh(&first, place, now).err(), Some(Some(how)), "{name}");
        assert_eq!(store.family.ended(), Some(End::Replay(how)), "{name}");
        assert_eq!(store.refresh(&second, home(), now).err(), Some(Some(Replay::AfterEnd)), "{name}");
    }
    // The successor was used.
    let (mut store, first) = Store::start(public());
    let (second, _) = store.refresh(&first, home(), 1.0).expect("refreshed");
    let (third, _) = store.refresh(&second, home(), 1.1).expect("refreshed");
    assert_eq!(store.refresh(&first, home(), 1.2).err(), Some(Some(Replay::SuccessorUsed)));
    assert_eq!(store.refresh(&third, home(), 1.3).err(), Some(Some(Replay::AfterEnd)));
    // The 65th time.
    let (mut store, first) = Store::start(public());
    let _ = store.refresh(&first, home(), 1.0).expect("refreshed");
    for _ in 0..64 {
        assert!(store.refresh(&first, home(), 2.0).is_ok());
    }
    assert_eq!(store.refresh(&first, home(), 2.0).err(), Some(Some(Replay::TooOften)));
    // Another client, with a token that would be good; and another key.
    let strangers = [
        Binding { client: "other".into(), ..public() },
        Binding { confidential: true, ..public() },
        Binding { dpop: Some([1; 32]), ..public() },
    ];
    for stranger in strangers {
        let (mut store, first) = Store::start(public());
        let verdict = store.refresh_as(&stranger, &first, home(), at(1.0));
        assert_eq!(verdict.err(), Some(Some(Replay::OtherClient)));
        assert_eq!(store.refresh(&first, home(), 1.0).err(), Some(Some(Replay::AfterEnd)));
    }
    // After logout, also within grace.
    for why in [End::Logout, End::Password, End::Disabled] {
        let (mut store, first) = Store::start(public());
        let (second, _) = store.refresh(&first, home(), 1.0).expect("refreshed");
        store.family.end(why);
        for token in [&first, &second] {
            assert_eq!(store.refresh(token, home(), 1.5).err(), Some(Some(Replay::AfterEnd)));
        }
        assert_eq!(store.family.ended(), Some(why));
    }
}

#[test]
fn who_can_try_again_gets_no_grace() {
    for binding in [Binding { confidential: true, ..public() }, Binding { dpop: Some([9; 32]), ..public() }] {
        let (mut store, first) = Store::start(binding);
        let plain = store.family.to_bytes().len();
        let (second, _) = store.refresh(&first, home(), 1.0).expect("refreshed");
        assert_eq!(store.family.to_bytes().len(), plain, "no successor is kept");
        let (_, again) = store.refresh(&second, home(), 2.0).expect("refreshed");
        assert!(!again);
        let (mut store, first) = Store::start(store.binding);
        let _ = store.refresh(&first, home(), 1.0).expect("refreshed");
        assert_eq!(store.refresh(&first, home(), 1.0).err(), Some(Some(Replay::Spent)));
    }
}

#[test]
fn lives() {
    let (mut store, mut token) = Store::start(public());
    assert_eq!(store.refresh(&token, home(), 3600.0).err(), Some(None), "idle for an hour");
    assert_eq!(store.family.ended(), None, "which is no attack");
    let week = 7.0 * 86_400.0;
    let mut now = 0.0;
    while now + 3000.0 < week {
        now += 3000.0;
        token = store.refresh(&token, home(), now).expect("refreshed").0;
    }
    assert_eq!(store.refresh(&token, home(), week).err(), Some(None), "a week in all");
    assert_eq!(store.family.forget_at(), at(week));
}

#[test]
fn made_up_tokens_change_nothing() {
    let (mut store, first) = Store::start(public());
    let (_, stranger) = Store::start(public());
    assert_eq!(store.refresh(&stranger, home(), 1.0).err(), Some(None));
    let text = first.reveal();
    let bytes = data_encoding::BASE64URL_NOPAD.decode(&text.expose().as_bytes()[5..]).expect("base64url");
    let before = store.family.to_bytes();
    for place in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[place] ^= 1;
        let text = format!("palr_{}", data_encoding::BASE64URL_NOPAD.encode(&forged));
        let forged = RefreshToken::parse(&text).expect("well-formed");
        assert_eq!(store.refresh(&forged, home(), 1.0).err(), Some(None), "{place}");
    }
    assert_eq!(store.family.to_bytes(), before);
    for text in ["", "palr_", "palr_AAAA", &text.expose()[..90], &format!("{}A", text.expose()), &text.expose()[5..]] {
        assert!(RefreshToken::parse(text).is_none(), "{text}");
    }
    assert!(store.refresh(&first, home(), 1.0).is_ok());
}

/// Fifty at once, with a store that compares and swaps: one successor, nobody logged out.
#[test]
fn fifty_at_once_leave_one_successor() {
    let (family, first) = Family::start(public(), LIFE, at(0.0)).expect("entropy");
    let (store, barrier) = (Mutex::new(family), Barrier::new(50));
    let refresh = || {
        barrier.wait();
        loop {
            let seen = store.lock().expect("whole").clone();
            let outcome = seen.present(&first, &public(), home(), at(1.0)).expect("entropy");
            let Outcome::Refreshed { family, token, again } = outcome else { panic!("logged out: {outcome:?}") };
            let mut stored = store.lock().expect("whole");
            if stored.version() == seen.version() {
                *stored = family;
                return (token.reveal().expose().clone(), again);
            }
        }
    };
    let given: Vec<(String, bool)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..50).map(|_| scope.spawn(refresh)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(given.iter().map(|(token, _)| token).collect::<HashSet<_>>().len(), 1);
    assert_eq!(given.iter().filter(|(_, again)| !again).count(), 1);
}

/// What is stored holds no token, and what it holds does not open without one.
#[test]
fn a_dump_holds_no_token() {
    let (mut store, first) = Store::start(public());
    let (second, _) = store.refresh(&first, home(), 1.0).expect("refreshed");
    let dump = store.family.to_bytes();
    for token in [&first, &second] {
        let text = token.reveal();
        let bytes = data_encoding::BASE64URL_NOPAD.decode(&text.expose().as_bytes()[5..]).expect("base64url");
        let secret = &bytes[20..52];
        assert!(!dump.windows(8).any(|window| secret.windows(8).any(|part| part == window)));
    }
    assert!(!format!("{:?} {first:?}", store.family).contains("palr_"));
    // After grace the sealed successor goes.
    assert!(!store.family.tidy(at(10.9)));
    assert!(store.family.tidy(at(11.0)) && !store.family.tidy(at(12.0)));
    assert!(store.family.to_bytes().len() + 90 < dump.len());
    assert!(store.refresh(&second, home(), 12.0).is_ok());
}

#[test]
fn damaged_records_are_not_read() {
    let (mut store, first) = Store::start(Binding { client: "é".repeat(300), ..public() });
    let _ = store.refresh(&first, home(), 1.0).expect("refreshed");
    let bytes = store.family.to_bytes();
    for length in 0..bytes.len() {
        assert!(Family::from_bytes(&bytes[..length]).is_none(), "{length}");
    }
    assert!(Family::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_none());
    assert_eq!(Family::from_bytes(&bytes).map(|family| family.to_bytes()), Some(bytes));
}

/// What may happen to a family.
#[derive(Debug, Clone)]
enum Act {
    /// Some token of those issued so far comes: which, from which place, as which client.
    Present {
        which: prop::sample::Index,
        place: bool,
        client: bool,
    },
    /// As the client does that is not under attack: the newest token, from its place.
    Newest,
    Wait(u16),
    Tidy,
    Logout,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), prop::bool::weighted(0.9), prop::bool::weighted(0.95))
            .prop_map(|(which, place, client)| Act::Present { which, place, client }),
        6 => Just(Act::Newest),
        4 => (0..12_000_u16).prop_map(Act::Wait),
        1 => Just(Act::Tidy),
        1 => prop::bool::weighted(0.2).prop_map(|end| if end { Act::Logout } else { Act::Tidy }),
    ]
}

/// The rules as one would say them, with every token remembered.
#[derive(Default)]
struct Model {
    /// For each token: when and from which place it was used first, and how often again.
    used: Vec<Option<(Timestamp, bool, u32)>>,
    issued_at: i64,
    ended: bool,
}

impl Model {
    fn expect(&mut self, which: usize, place: bool, client: bool, now: i64) -> Result<(usize, bool), Option<Replay>> {
        let newest = self.used.len() - 1;
        if self.ended {
            return Err(Some(Replay::AfterEnd));
        }
        let verdict = match self.used[which] {
            _ if !client => Err(Some(Replay::OtherClient)),
            None if now - self.issued_at >= 3_600_000 => return Err(None),
            None => {
                self.used[which] = Some((Timestamp(now), place, 0));
                self.used.push(None);
                self.issued_at = now;
                return Ok((newest + 1, false));
            }
            Some(_) if which + 1 < newest => Err(Some(Replay::SuccessorUsed)),
            Some((at, ..)) if now - at.0 >= 10_000 => Err(Some(Replay::Spent)),
            Some((_, first, _)) if first != place => Err(Some(Replay::OtherPlace)),
            Some((.., 64)) => Err(Some(Replay::TooOften)),
            Some((at, place, times)) => {
                self.used[which] = Some((at, place, times + 1));
                return Ok((newest, true));
            }
        };
        self.ended = true;
        verdict
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever comes in whatever order, the family says what the naive rules say, and never accepts two tokens as
    /// current.
    #[test]
    fn agrees_with_the_rules(acts in prop::collection::vec(act(), 1..80)) {
        let (mut store, first) = Store::start(public());
        let mut model = Model { used: vec![None], ..Model::default() };
        let mut tokens = vec![first];
        let mut now = 0_i64;
        for act in acts {
            let (which, place, client) = match act {
                Act::Present { which, place, client } => (which.index(tokens.len()), place, client),
                Act::Newest => (tokens.len() - 1, true, true),
                Act::Wait(ms) => {
                    now += i64::from(ms);
                    continue;
                }
                Act::Tidy => {
                    store.family.tidy(Timestamp(now));
                    continue;
                }
                Act::Logout => {
                    store.family.end(End::Logout);
                    model.ended = true;
                    continue;
                }
            };
            let from = if place { home() } else { Place::new([203, 0, 113, 9].into(), "firefox") };
            let binding = if client { public() } else { Binding { client: "other".into(), ..public() } };
            let expected = model.expect(which, place, client, now);
            let found = store.refresh_as(&binding, &tokens[which], from, Timestamp(now));
            match (found, expected) {
                (Ok((token, again)), Ok((index, expected))) => {
                    prop_assert_eq!(again, expected);
                    if index == tokens.len() {
                        tokens.push(token);
                    } else {
                        prop_assert!(same(&token, &tokens[index]));
                    }
                }
                (Err(found), Err(expected)) => prop_assert_eq!(found, expected),
                (found, expected) => prop_assert!(false, "{found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), text in ".{0,120}") {
        let _ = Family::from_bytes(&bytes);
        let _ = RefreshToken::parse(&text);
    }
}
