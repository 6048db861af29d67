use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use palisade_base::{Clock, Secret};
use palisade_vault::{Dir, File, KeyFile, Memory, Provider, Store as _};

use super::*;
use crate::password::{Cost, Hasher, Password, Stored, Verdict};
use crate::token::{Claims, kind};

pub(super) fn token(key: &SigningKey) -> String {
    let mut claims = Claims::new("i", "s", ["a"]);
    claims.expires_at = Some(4_000_000_000);
    key.sign(kind::ACCESS, &claims).unwrap().expose().clone()
}

fn id(key: &SigningKey) -> String {
    key.verifying_key().id().unwrap().to_owned()
}

fn open(store: &Arc<Memory>, settings: Settings, clock: &Clock) -> Rings {
    Rings::open(Arc::clone(store) as Arc<dyn Provider>, settings, clock.clone()).unwrap()
}

fn soon(lead: u64) -> Rotation {
    Rotation { lead: Duration::from_secs(lead), ..Rotation::default() }
}

#[test]
fn a_rotation_is_seen_by_all_before_it_counts() {
    let (store, clock) = (Arc::new(Memory::new()), Clock::adjustable());
    let (one, two) = (open(&store, Settings::default(), &clock), open(&store, Settings::default(), &clock));
    assert_eq!(id(&one.signer()), id(&two.signer()), "the second takes what the first has made");
    let (first, old) = (id(&one.signer()), token(&one.signer()));
    let done = rotate(store.as_ref(), Name::Signing, &soon(600), clock.now()).unwrap();
    assert_eq!((done.versions, done.name), (2, Name::Signing));

    let before = one.generation();
    assert!(one.refresh().unwrap() && !one.refresh().unwrap());
    assert!(one.generation() > before);
    assert_eq!(id(&one.signer()), first, "published, and not used yet");
    assert!(one.jwk_set().contains(&done.id));
    clock.advance(Duration::from_secs(601));
    assert_eq!(id(&one.signer()), done.id);
    assert_eq!(two.keys().verify(&token(&one.signer())).err(), Some(crate::token::Refused::UnknownKey));
    assert!(two.ask_again() && !two.ask_again(), "asked for once a second");
    assert!(two.keys().verify(&token(&one.signer())).is_ok() && two.keys().verify(&old).is_ok());

    clock.advance(Settings::default().access_life);
    assert!(one.refresh().unwrap());
    assert!(one.keys().verify(&old).is_err() && !one.jwk_set().contains(&first));
    assert!(store.get("signing-key").unwrap().expose().contains(&first), "kept a little for slow clocks");
    clock.advance(Duration::from_secs(3601));
    one.refresh().unwrap();
    rotate(store.as_ref(), Name::Mac, &soon(0), clock.now()).unwrap();
    assert!(one.refresh().unwrap());
    assert!(!store.get("signing-key").unwrap().expose().contains(&first), "a private key that is done goes");
}

#[test]
fn a_stolen_key_is_gone_at_once() {
    let (store, clock) = (Arc::new(Memory::new()), Clock::adjustable());
    let rings = open(&store, Settings::default(), &clock);
    let old = token(&rings.signer());
    let revoke = Rotation { revoke: true, ..soon(600) };
    let done = rotate(store.as_ref(), Name::Signing, &revoke, clock.now()).unwrap();
    assert!(rings.refresh().unwrap());
    assert_eq!(id(&rings.signer()), done.id);
    assert!(rings.keys().verify(&old).is_err());
    assert!(matches!(rotate(store.as_ref(), Name::Pepper, &revoke, clock.now()), Err(Error::PepperKept)));
}

#[test]
fn keys_are_replaced_on_schedule_and_by_one_instance() {
    let (store, clock) = (Arc::new(Memory::new()), Clock::adjustable());
    let rings: Vec<Rings> = (0..4).map(|_| open(&store, Settings::default(), &clock)).collect();
    let first = id(&rings[0].signer());
    clock.advance(Duration::from_secs(90 * 86_400 + 1));
    std::thread::scope(|scope| {
        for rings in &rings {
            scope.spawn(|| rings.refresh().unwrap());
        }
    });
    let count = |name: &str| store.list().unwrap().iter().find(|listed| listed.name == name).unwrap().versions;
    assert_eq!([count("signing-key"), count("assertion-key"), count("mac-key")], [Some(2); 3]);
    assert_eq!(id(&rings[0].signer()), first);
    clock.advance(Settings::default().lead);
    assert_ne!(id(&rings[0].signer()), first);
}

#[test]
fn another_algorithm_takes_over_without_a_break_where_it_can() {
    let (store, clock) = (Arc::new(Memory::new()), Clock::adjustable());
    let with = |algorithm| Settings { algorithm, ..Settings::default() };
    let rings = open(&store, with(Algorithm::EdDsa), &clock);
    let old = token(&rings.signer());
    rings.adopt(Arc::clone(&store) as Arc<dyn Provider>, with(Algorithm::Es256)).unwrap();
    assert_eq!(rings.signer().verifying_key().algorithm(), Algorithm::EdDsa, "not before all know the new one");
    clock.advance(Settings::default().lead);
    assert_eq!(rings.signer().verifying_key().algorithm(), Algorithm::Es256);
    assert!(rings.keys().verify(&old).is_ok() && rings.keys().verify(&token(&rings.signer())).is_ok());
    rings.adopt(Arc::clone(&store) as Arc<dyn Provider>, with(Algorithm::Hs256)).unwrap();
    assert_eq!(rings.signer().verifying_key().algorithm(), Algorithm::Hs256);
    assert!(rings.keys().verify(&old).is_err(), "shared secrets and public keys are never side by side");
    let jwks: serde_json::Value = serde_json::from_str(&rings.jwk_set()).unwrap();
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 1, "the assertion's alone");
    assert_eq!(jwks["keys"][0]["kid"], id(&rings.assertion_signer()));
}

#[test]
fn tags_outlive_a_rotation_and_not_a_revocation() {
    let (store, clock) = (Arc::new(Memory::new()), Clock::adjustable());
    let rings = open(&store, Settings::default(), &clock);
    let old = rings.mac(b"session 1");
    rotate(store.as_ref(), Name::Mac, &soon(0), clock.now()).unwrap();
    rings.refresh().unwrap();
    let new = rings.mac(b"session 1");
    assert_ne!(old, new);
    for tag in [old, new] {
        assert!(rings.checks(b"session 1", &tag));
        assert!(!rings.checks(b"session 2", &tag));
        assert!(!rings.checks(b"session 1", &tag[..31]) && !rings.checks(b"", b""));
    }
    rotate(store.as_ref(), Name::Mac, &Rotation { revoke: true, ..soon(0) }, clock.now()).unwrap();
    rings.refresh().unwrap();
    assert!(!rings.checks(b"session 1", &new));
}

#[test]
fn peppers_rotate_and_retire() {
    let (store, clock) = (Arc::new(Memory::new()), Clock::adjustable());
    let settings = Settings { pepper: true, ..Settings::default() };
    let rings = open(&store, settings.clone(), &clock);
    let cost = Cost::DEFAULT;
    let word = Password::new("correct horse battery").unwrap();
    let hash = |rings: &Rings| Stored::parse(&Hasher::new(cost, rings.peppers()).hash(&word).unwrap()).unwrap();
    let verify = |rings: &Rings, stored: &Stored| Hasher::new(cost, rings.peppers()).verify(Some(stored), Some(&word));
    let old = hash(&rings);
    assert_eq!(verify(&rings, &old), Ok(Verdict::Right { upgrade: false }));
    rotate(store.as_ref(), Name::Pepper, &soon(600), clock.now()).unwrap();
    rings.refresh().unwrap();
    assert_eq!(verify(&rings, &old), Ok(Verdict::Right { upgrade: false }), "not in use yet");
    clock.advance(Duration::from_secs(601));
    assert!(rings.refresh().unwrap(), "its turn");
    assert_eq!(verify(&rings, &old), Ok(Verdict::Right { upgrade: true }));
    assert_eq!(verify(&rings, &hash(&rings)), Ok(Verdict::Right { upgrade: false }));
    clock.advance(Duration::from_secs(10 * 365 * 86_400));
    rings.refresh().unwrap();
    assert_eq!(verify(&rings, &old), Ok(Verdict::Right { upgrade: true }), "never forgotten");
    rings.adopt(Arc::clone(&store) as Arc<dyn Provider>, Settings { pepper: false, ..settings }).unwrap();
    assert_eq!(verify(&rings, &old), Ok(Verdict::Right { upgrade: true }), "off: checked, and stored without");
    assert_eq!(verify(&rings, &hash(&rings)), Ok(Verdict::Right { upgrade: false }));
}

fn made_by_openssl(dir: &Path, name: &str, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split(' ')).output().expect("openssl");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    std::fs::write(dir.join(name), done.stdout).unwrap();
}

#[test]
fn what_an_operator_provides() {
    let dir = tempfile::tempdir().unwrap();
    let provider = || Arc::new(Dir::new(dir.path())) as Arc<dyn Provider>;
    let open = |algorithm| Rings::open(provider(), Settings { algorithm, ..Settings::default() }, Clock::real());
    let said = open(Algorithm::EdDsa).unwrap_err().to_string();
    for part in ["signing-key", "assertion-key", "mac-key", "openssl genpkey -algorithm ed25519", "rand -hex 32"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(said.contains(&dir.path().join("mac-key").display().to_string()), "{said}");

    // What the message says, done.
    made_by_openssl(dir.path(), "signing-key", "genpkey -algorithm ed25519");
    made_by_openssl(dir.path(), "assertion-key", "genpkey -algorithm ed25519");
    made_by_openssl(dir.path(), "mac-key", "rand -hex 32");
    let rings = open(Algorithm::EdDsa).unwrap();
    let old = token(&rings.signer());
    assert!(rings.keys().verify(&old).is_ok());
    let wrong = open(Algorithm::Es256).unwrap_err().to_string();
    assert!(wrong.contains("a key for EdDSA, and the policy wants ES256"), "{wrong}");

    // A rotation by hand: the new key first, the old one below.
    let first = std::fs::read_to_string(dir.path().join("signing-key")).unwrap();
    made_by_openssl(dir.path(), "signing-key", "genpkey -algorithm ed25519");
    let second = std::fs::read_to_string(dir.path().join("signing-key")).unwrap();
    std::fs::write(dir.path().join("signing-key"), format!("{second}{first}")).unwrap();
    assert!(rings.refresh().unwrap());
    assert!(rings.keys().verify(&old).is_ok());
    let new = token(&rings.signer());
    std::fs::write(dir.path().join("signing-key"), second).unwrap();
    rings.refresh().unwrap();
    assert!(rings.keys().verify(&old).is_err() && rings.keys().verify(&new).is_ok());

    made_by_openssl(dir.path(), "signing-key", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256");
    assert_eq!(open(Algorithm::Es256).unwrap().signer().verifying_key().algorithm(), Algorithm::Es256);
    made_by_openssl(dir.path(), "signing-key", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048");
    assert_eq!(open(Algorithm::Rs256).unwrap().signer().verifying_key().algorithm(), Algorithm::Rs256);
    made_by_openssl(dir.path(), "signing-key", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024");
    assert!(matches!(open(Algorithm::Rs256), Err(Error::Unusable { name: "signing-key", .. })), "too short");
    made_by_openssl(dir.path(), "signing-key", "rand -hex 64");
    assert!(open(Algorithm::Hs256).is_ok());
    assert!(open(Algorithm::EdDsa).unwrap_err().to_string().contains("no private key in PEM"));
    std::fs::write(dir.path().join("mac-key"), "short").unwrap();
    assert!(open(Algorithm::Hs256).unwrap_err().to_string().contains("shorter than 32"));
}

#[test]
fn a_key_that_was_brought_along_is_replaced_like_one_of_its_own() {
    let (dir, store, clock) = (tempfile::tempdir().unwrap(), Arc::new(Memory::new()), Clock::adjustable());
    made_by_openssl(dir.path(), "key", "genpkey -algorithm ed25519");
    store.set("signing-key", Secret::new(std::fs::read_to_string(dir.path().join("key")).unwrap())).unwrap();
    let rings = open(&store, Settings::default(), &clock);
    let old = token(&rings.signer());
    clock.advance(Duration::from_secs(365 * 86_400));
    assert!(!rings.refresh().unwrap() || rings.keys().verify(&old).is_ok(), "nobody knows how old it is");
    rotate(store.as_ref(), Name::Signing, &soon(600), clock.now()).unwrap();
    clock.advance(Duration::from_secs(601));
    rings.refresh().unwrap();
    assert!(rings.keys().verify(&old).is_ok() && rings.keys().verify(&token(&rings.signer())).is_ok());
    clock.advance(Settings::default().access_life);
    rings.refresh().unwrap();
    assert!(rings.keys().verify(&old).is_err());
}

#[test]
fn a_store_that_is_away_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secrets.age");
    let provider = || Arc::new(File::new(&path, KeyFile::Made(dir.path().join("secrets.key"))));
    let rings = Rings::open(provider(), Settings::default(), Clock::real()).unwrap();
    let signer = id(&rings.signer());
    let kept = std::fs::read(&path).unwrap();
    std::fs::write(&path, "not age").unwrap();
    assert!(matches!(rings.refresh(), Err(Error::Store(palisade_vault::Error::Damaged { .. }))));
    assert_eq!(id(&rings.signer()), signer);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not age", "nothing is made over what cannot be read");
    std::fs::write(&path, kept).unwrap();
    assert!(!rings.refresh().unwrap());
    provider().set("signing-key", Secret::new("no key".into())).unwrap();
    assert!(rings.refresh().unwrap_err().to_string().contains("`signing-key`"));
    assert_eq!(id(&rings.signer()), signer);
}
