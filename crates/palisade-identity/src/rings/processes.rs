//! Two processes that share a store check each other's tokens without pause, while keys come and go.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use palisade_base::Clock;
use palisade_vault::{File, KeyFile, Provider};

use super::tests::token;
use super::{Name, Rings, Rotation, Settings, rotate};

/// So short that old keys go while the test runs.
const LIFE: Duration = Duration::from_secs(2);
/// Twice what a process needs to see that the store has changed, and more.
const LEAD: Duration = Duration::from_secs(3);

fn store(folder: &Path) -> Arc<File> {
    Arc::new(File::new(folder.join("secrets.age"), KeyFile::Made(folder.join("secrets.key"))))
}

/// Writes what it has signed, and checks what the other one has.
#[test]
#[ignore = "run by `a_rotation_under_load_fails_no_request`"]
fn child() {
    let Some(folder) = std::env::var_os("PALISADE_TEST_RINGS").map(PathBuf::from) else { return };
    let settings = Settings { access_life: LIFE, ..Settings::default() };
    let rings = Rings::open(store(&folder) as Arc<dyn Provider>, settings, Clock::real()).unwrap();
    rings.keep_fresh(|event| eprintln!("{event:?}")).unwrap();
    let (own, stop) = (rings.clone(), folder.join("stop"));
    let writer = std::thread::spawn(move || {
        let mut out = std::io::stdout().lock();
        while !stop.exists() {
            let signed = token(&own.signer());
            let tag = data_encoding::HEXLOWER.encode(&own.mac(signed.as_bytes()));
            writeln!(out, "token {signed} {tag} {}", Clock::real().now().0).unwrap();
        }
        writeln!(out, "end").unwrap();
        out.flush().unwrap();
    });
    let mut checked = 0;
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        if line == "end" {
            break;
        }
        let Some(rest) = line.strip_prefix("token ") else { continue };
        let [signed, tag, at] = rest.split(' ').collect::<Vec<_>>()[..] else { continue };
        // On a busy machine a token can wait in the pipe for longer than tokens live.
        if Clock::real().now().0 - at.parse::<i64>().unwrap() > 1_000 {
            continue;
        }
        let refused = rings.keys().verify(signed).err();
        assert!(refused.is_none(), "after {checked}: {refused:?}");
        let tag = data_encoding::HEXLOWER.decode(tag.as_bytes()).unwrap();
        assert!(rings.checks(signed.as_bytes(), &tag), "after {checked}");
        checked += 1;
    }
    writer.join().unwrap();
    std::fs::write(folder.join(format!("checked.{}", std::process::id())), checked.to_string()).unwrap();
    // The harness would still print into a pipe that the other one has left by now.
    std::process::exit(0);
}

fn spawn(folder: &Path, stdin: Stdio) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "rings::processes::child", "--include-ignored", "--nocapture"])
        .env("PALISADE_TEST_RINGS", folder)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_rotation_under_load_fails_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = spawn(dir.path(), Stdio::piped());
    let mut two = spawn(dir.path(), one.stdout.take().unwrap().into());
    let (mut from_two, mut to_one) = (two.stdout.take().unwrap(), one.stdin.take().unwrap());
    let back = std::thread::spawn(move || std::io::copy(&mut from_two, &mut to_one));

    let store = store(dir.path());
    let known = || store.get("mac-key").is_ok();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !known() {
        assert!(Instant::now() < deadline, "no child has made the keys");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut ids = Vec::new();
    for _ in 0..3 {
        for name in [Name::Signing, Name::Mac] {
            let rotation = Rotation { lead: LEAD, ..Rotation::default() };
            let done = rotate(store.as_ref(), name, &rotation, Clock::real().now()).unwrap();
            ids.push(done.id);
        }
        // Not for a condition: it is the time in which the new key takes over and the old one ends.
        std::thread::sleep(LEAD + LIFE);
    }
    std::fs::write(dir.path().join("stop"), "").unwrap();
    let ended = [one.wait().unwrap(), two.wait().unwrap()];
    assert!(ended.iter().all(std::process::ExitStatus::success), "{ended:?}");
    // A process that has read `end` and left does not take what the harness of the other one still prints.
    match back.join().unwrap() {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        copied => drop(copied.unwrap()),
    }
    let checked: Vec<u64> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("checked."))
        .map(|path| std::fs::read_to_string(path).unwrap().parse().unwrap())
        .collect();
    assert!(checked.len() == 2 && checked.iter().all(|count| *count > 1000), "{checked:?}");
    let now = Rings::open(store as Arc<dyn Provider>, Settings::default(), Clock::real()).unwrap();
    assert_eq!(now.signer().verifying_key().id(), ids.get(4).map(String::as_str), "the last one signs");
}
