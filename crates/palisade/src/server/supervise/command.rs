//! The command that starts the application, and what it gets of ours: nearly nothing.
//!
//! Whoever can run code in the application reads its environment and its descriptors; keys, tokens and the policy's
//! overrides must not be there. The standard library opens every descriptor close-on-exec; those that Palisade itself inherited
//! (systemd's sockets, a careless parent's pipes) become so here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// What the application keeps of our environment, besides `PYTHON…`.
const KEPT: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "VIRTUAL_ENV"];

/// Only Palisade can reach the application, so its forwarding headers are the truth; connections are kept longer than
/// Palisade keeps them, so that no request meets a closing one.
const GIVEN: [(&str, &str); 2] = [("FORWARDED_ALLOW_IPS", "*"), ("UVICORN_TIMEOUT_KEEP_ALIVE", "75")];

/// Another user for the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    home: PathBuf,
}

/// The user of `upstream.user`; `None` when we are that user already.
pub(super) fn user(name: &str) -> Result<Option<User>> {
    let found = nix::unistd::User::from_name(name).map_err(|error| Error::App(format!("user `{name}`: {error}")))?;
    let Some(found) = found else {
        return Err(Error::App(format!(
            "there is no user `{name}` (`upstream.user`): create it with `useradd --system {name}`, or name another"
        )));
    };
    let own = nix::unistd::geteuid();
    match (found.uid == own, own.is_root()) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(User { uid: found.uid.as_raw(), gid: found.gid.as_raw(), home: found.dir })),
        (false, false) => Err(Error::App(format!(
            "only root can start the application as `{name}` (`upstream.user`): start Palisade as root, or remove `user`"
        ))),
    }
}

/// The command, not yet started.
pub(super) fn build(
    words: &[String],
    env: &BTreeMap<String, String>,
    told: &[(&'static str, String)],
    user: Option<&User>,
) -> Command {
    let (program, arguments) = words.split_first().map_or(("", [].as_slice()), |(first, rest)| (first, rest));
    close_fds::CloseFdsBuilder::new().cloexecfrom(3);
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment(std::env::vars_os(), env, told, user))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(user) = user {
        // With a user and no list of groups the standard library drops all supplementary groups first.
        command.gid(user.gid).uid(user.uid);
    }
    command
}

fn environment(
    ours: impl Iterator<Item = (OsString, OsString)>,
    policy: &BTreeMap<String, String>,
    told: &[(&'static str, String)],
    user: Option<&User>,
) -> BTreeMap<OsString, OsString> {
    let kept = |name: &OsString| name.to_str().is_some_and(|name| KEPT.contains(&name) || name.starts_with("PYTHON"));
    let mut all: BTreeMap<OsString, OsString> = ours.filter(|(name, _)| kept(name)).collect();
    if let Some(user) = user {
        all.insert("HOME".into(), user.home.clone().into());
    }
    all.extend(GIVEN.map(|(name, value)| (name.into(), value.into())));
    // What it cannot know by itself: the prefix it is reached under, and whose assertions it may believe.
    all.extend(told.iter().map(|(name, value)| ((*name).into(), value.into())));
    // Last: what the policy says of the application's environment is so.
    all.extend(policy.iter().map(|(name, value)| (name.into(), value.into())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(user: Option<&User>) -> Vec<(String, String)> {
        let ours = [
            ("PATH", "/bin"),
            ("HOME", "/root"),
            ("PYTHONPATH", "src"),
            ("PALISADE_SECRET_KEY", "k"),
            ("PALISADE__SERVER__HTTPS", "\"off\""),
            ("VAULT_TOKEN", "t"),
            ("AWS_SECRET_ACCESS_KEY", "a"),
            ("LISTEN_FDS", "1"),
            ("LISTEN_PID", "1"),
            ("NOTIFY_SOCKET", "/run/n"),
            ("LD_PRELOAD", "x.so"),
            ("PATHEXT", "no"),
        ];
        let ours = ours.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let policy =
            BTreeMap::from([("MODE".into(), "test".into()), ("UVICORN_TIMEOUT_KEEP_ALIVE".into(), "9".into())]);
        let told = [("UVICORN_ROOT_PATH", "/v2".to_owned()), ("MODE", "told".to_owned())];
        let text = |text: OsString| text.into_string().unwrap();
        environment(ours, &policy, &told, user).into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn nothing_of_ours_is_in_its_environment() {
        let expected = [
            ("FORWARDED_ALLOW_IPS", "*"),
            ("HOME", "/root"),
            ("MODE", "test"),
            ("PATH", "/bin"),
            ("PYTHONPATH", "src"),
            ("UVICORN_ROOT_PATH", "/v2"),
            ("UVICORN_TIMEOUT_KEEP_ALIVE", "9"),
        ];
        assert_eq!(names(None), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let user = User { uid: 7, gid: 7, home: "/home/app".into() };
        assert!(names(Some(&user)).contains(&("HOME".into(), "/home/app".into())));
    }

    #[test]
    fn users_that_cannot_be_had_say_why() {
        let missing = user("no-such-user-here").unwrap_err().to_string();
        assert!(missing.contains("useradd --system no-such-user-here"), "{missing}");
        let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
        assert_eq!(user(&own.name).unwrap(), None);
    }
}
