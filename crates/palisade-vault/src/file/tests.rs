use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::*;

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self) -> File {
        File::new(self.path("state/secrets.age"), KeyFile::Made(self.path("state/secrets.key")))
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_stored_is_found_by_every_process() {
    let place = Place::new();
    let (one, two) = (place.file(), place.file());
    assert!(matches!(one.get("token"), Err(Error::Missing { .. })));
    assert!(!place.path("state").exists(), "nothing is made before there is a secret");
    one.set("token", secret("first\n")).unwrap();
    assert!(two.get("token").unwrap().matches(b"first"), "without its line end");
    one.set("token", secret("second")).unwrap();
    two.set("other", secret("third")).unwrap();
    assert!(two.get("token").unwrap().matches(b"second") && one.get("other").unwrap().matches(b"third"));
    let names: Vec<_> = one.list().unwrap().into_iter().map(|listed| listed.name).collect();
    assert_eq!(names, ["other", "token"]);
    assert!(one.remove("other").unwrap() && !two.remove("other").unwrap());
    assert!(matches!(one.get("other"), Err(Error::Missing { .. })));
    for name in ["state/secrets.age", "state/secrets.key"] {
        assert_eq!(mode(&place.path(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&place.path("state")), 0o700);
    let sealed = fs::read_to_string(place.path("state/secrets.age")).unwrap();
    assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") && !sealed.contains("second"));
    assert!(!format!("{one:?}").contains("second"));
}

#[test]
fn values_that_would_not_come_back_are_refused() {
    let place = Place::new();
    let file = place.file();
    for value in ["", "\n", &"a".repeat(crate::MAX_BYTES + 1)] {
        assert!(matches!(file.set("token", secret(value)), Err(Error::Unreadable { .. })), "{} bytes", value.len());
    }
    assert!(matches!(file.set("../token", secret("a")), Err(Error::BadName(_))));
    assert!(file.list().unwrap().is_empty());
}

#[test]
fn a_change_sees_the_value_of_now_and_may_say_no() {
    let file = Place::new();
    let file = file.file();
    file.set("count", secret("0")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    file.update("count", &mut |old| {
                        let old: u32 = old.unwrap().expose().parse().unwrap();
                        Ok(Change::Set(secret(&(old + 1).to_string())))
                    })
                    .unwrap();
                }
            });
        }
    });
    assert!(file.get("count").unwrap().matches(b"40"), "no increment is lost");
    let refused = file.update("count", &mut |_| Err(Error::Refused("no".into())));
    assert!(matches!(refused, Err(Error::Refused(_))) && file.get("count").unwrap().matches(b"40"));
}

#[test]
fn keys_that_are_no_secret_any_more_or_do_not_fit() {
    let place = Place::new();
    place.file().set("token", secret("value")).unwrap();
    let sealed = place.path("state/secrets.age");
    let with = |key: &Path| File::new(&sealed, KeyFile::At(key.into())).get("token");

    let key = place.path("key");
    assert!(matches!(with(&key), Err(Error::BadKey { reason, .. }) if reason.contains("palisade secret init")));
    assert!(KeyFile::At(key.clone()).make().unwrap());
    assert!(!KeyFile::At(key.clone()).make().unwrap(), "one that is there stays");
    assert!(matches!(with(&key), Err(Error::WrongKey { .. })));

    let own = place.path("state/secrets.key");
    for exposed in [0o604, 0o640, 0o644, 0o660] {
        fs::set_permissions(&own, fs::Permissions::from_mode(exposed)).unwrap();
        let error = with(&own).unwrap_err();
        assert!(matches!(error, Error::ExposedKey { mode, .. } if mode == exposed), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    fs::set_permissions(&own, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(with(&own).unwrap().matches(b"value"));

    // Two keys: both open, and the first one seals.
    let text = [fs::read_to_string(&key).unwrap(), fs::read_to_string(&own).unwrap()].concat();
    fs::write(&key, text).unwrap();
    assert!(with(&key).unwrap().matches(b"value"));
    File::new(&sealed, KeyFile::At(key.clone())).set("token", secret("new")).unwrap();
    assert!(with(&key).unwrap().matches(b"new"));
    assert!(matches!(with(&own), Err(Error::WrongKey { .. })), "the second one is out");

    for (text, said) in [
        ("", "no age identity"),
        ("# only a comment\n", "no age identity"),
        ("\nAGE-SECRET-KEY-1QQQ\n", "line 2"),
        ("age-encryption.org/v1\n-> scrypt", "encrypted itself"),
        ("-----BEGIN AGE ENCRYPTED FILE-----\n", "encrypted itself"),
    ] {
        fs::write(&key, text).unwrap();
        let error = with(&key).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains("QQQ"), "{error}");
    }
    fs::write(&key, vec![b'#'; 65 * 1024]).unwrap();
    assert!(matches!(with(&key), Err(Error::BadKey { .. })));
    assert!(matches!(File::new(&sealed, KeyFile::Unnamed).get("token"), Err(Error::NoKey(_))));
}

#[test]
fn a_damaged_file_is_neither_read_nor_overwritten() {
    let place = Place::new();
    let file = place.file();
    file.set("token", secret("value")).unwrap();
    let path = place.path("state/secrets.age");
    let whole = fs::read(&path).unwrap();
    let recipient = fs::read_to_string(place.path("state/secrets.key")).unwrap();
    let recipient: age::x25519::Recipient =
        recipient.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().parse().unwrap();
    let sealed = |text: &str| age::encrypt_and_armor(&recipient, text.as_bytes()).unwrap().into_bytes();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [
        Vec::new(),
        b"{}".to_vec(),
        whole[..whole.len() / 2].to_vec(),
        flipped,
        vec![b'a'; MAX_STORE_BYTES + 1],
        sealed("{"),
        sealed(r#"{"version":2,"secrets":{}}"#),
        sealed(r#"{"version":1,"secrets":{"token":{"value":"hunter2","changed":"x"}}}"#),
    ] {
        fs::write(&path, &damaged).unwrap();
        let error = file.get("token").unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(!error.to_string().contains("hunter2"));
        assert!(file.set("token", secret("new")).is_err());
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
    fs::write(&path, whole).unwrap();
    assert!(file.get("token").unwrap().matches(b"value"));
}

#[test]
fn a_link_is_followed_and_stays_a_link() {
    let place = Place::new();
    fs::create_dir(place.path("real")).unwrap();
    let real = File::new(place.path("real/store"), KeyFile::Made(place.path("key")));
    real.set("token", secret("value")).unwrap();
    std::os::unix::fs::symlink("real/store", place.path("link")).unwrap();
    let linked = File::new(place.path("link"), KeyFile::Made(place.path("key")));
    linked.set("token", secret("new")).unwrap();
    assert!(place.path("link").is_symlink() && real.get("token").unwrap().matches(b"new"));
}

#[test]
fn the_file_is_bounded() {
    let place = Place::new();
    let file = place.file();
    let big = "x".repeat(crate::MAX_BYTES);
    let full = (0..100).find_map(|number| file.set(&format!("n{number}"), secret(&big)).err());
    assert!(matches!(full, Some(Error::Full(_))), "{full:?}");
    assert!(file.get("n0").unwrap().matches(big.as_bytes()));
}

/// The other side of the next test: changes two secrets until it is killed.
#[test]
#[ignore = "run by `killed_at_any_moment`"]
fn child() {
    let Some(path) = std::env::var_os("PALISADE_TEST_STORE") else { return };
    let path = PathBuf::from(path);
    let file = File::new(path.join("secrets.age"), KeyFile::Made(path.join("secrets.key")));
    for number in 0.. {
        file.set("number", secret(&format!("{number:0>1000}"))).unwrap();
        if number == 0 {
            fs::write(path.join("ready"), "").unwrap();
        }
    }
}

#[test]
fn killed_at_any_moment() {
    let place = Place::new();
    let path = place.dir.path();
    let file = File::new(path.join("secrets.age"), KeyFile::Made(path.join("secrets.key")));
    file.set("kept", secret("value")).unwrap();
    let mut seen = std::collections::HashSet::new();
    for round in 0..40_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "file::tests::child", "--include-ignored", "--nocapture"])
            .env("PALISADE_TEST_STORE", path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !path.join("ready").exists() {
            assert!(std::time::Instant::now() < deadline, "the child does not come");
            std::thread::yield_now();
        }
        // Another moment of its loop each time.
        std::thread::sleep(std::time::Duration::from_micros(round * 331));
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(path.join("ready")).unwrap();
        let number = file.get("number").unwrap();
        assert_eq!(number.expose().len(), 1000);
        assert!(file.get("kept").unwrap().matches(b"value"));
        seen.insert(number.expose().clone());
        file.set("kept", secret("value")).unwrap();
    }
    assert!(seen.len() > 2, "killed at different moments");
    let mut left: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".secrets.age.lock", "secrets.age", "secrets.key"], "nothing else is left");
}
