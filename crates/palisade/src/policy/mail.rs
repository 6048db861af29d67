//! `[mail]`: how Palisade sends mail.

use std::path::{Path, PathBuf};

use palisade_base::{BadValue, SecretRef, TextValue, text_value};
use palisade_mail::{Address, BadTransport, Dropped, Links, Mailer, Outcome, Patience, Smtp, Templates, Transport};
use palisade_policy::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Env, state_dir};
use crate::observe::event;

/// `[mail]`: how Palisade sends mail: links that confirm an address or set a new password, and notices. Guide section 1.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Mail {
    /// The mail server: `smtps://mail.example.com` (TLS), `smtp://mail.example.com` (STARTTLS, and nothing without it), or
    /// `smtp://localhost:25` (without TLS, on this machine only). Absent: in development mail is written to files, in
    /// production none is sent.
    pub server: Option<Server>,
    /// The user that logs in to it.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<SecretRef>,
    /// The authority (PEM) that the server's certificate must be of. Default: those that browsers know.
    pub ca: Option<PathBuf>,
    /// The sender's address. Needed with `server`.
    pub from: Option<Sender>,
    /// What mail calls the service. Default: the host of `auth.issuer`.
    pub name: Option<String>,
    /// A directory in which `reset.txt`, `reset.html` and the like replace the texts.
    pub templates: Option<PathBuf>,
    /// In development: the directory into which mail is written, one file `.eml` each. Default: `mail` under
    /// `server.state`.
    pub directory: Option<PathBuf>,
}

/// The address of a mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server(String);

impl TextValue for Server {
    const FORMAT: &'static str = "mail-server";
    const NOUN: &'static str = "a mail server";
    const EXAMPLES: &'static [&'static str] = &["smtps://mail.example.com", "smtp://mail.example.com:587"];
}

impl std::str::FromStr for Server {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        Smtp::at(text).map(|_| Self(text.to_owned()))
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(Server);

/// An address of mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender(String);

impl TextValue for Sender {
    const FORMAT: &'static str = "mail-address";
    const NOUN: &'static str = "an address of mail";
    const EXAMPLES: &'static [&'static str] = &["no-reply@example.com"];
}

impl std::str::FromStr for Sender {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        text.parse::<Address>().map(|_| Self(text.to_owned())).map_err(|error| BadValue::new(error.to_string()))
    }
}

impl std::fmt::Display for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(Sender);

/// Everything that a [`Mailer`] is started with, or goes on with after a reload.
#[derive(Debug)]
pub struct Setup {
    name: String,
    from: Address,
    transport: Transport,
    templates: Templates,
}

impl Setup {
    /// What the policy says, `None` where nothing sends mail. `issuer` gives the service its name where the policy gives
    /// none.
    pub fn compile(config: &Mail, issuer: Option<&Links>, env: &Env, problems: &mut Problems) -> Option<Self> {
        let transport = transport(config, env, problems)?;
        let name = config.name.clone().or_else(|| issuer.map(|issuer| issuer.host().to_owned()));
        let name = name.unwrap_or_else(|| "Palisade".to_owned());
        if name.chars().any(char::is_control) {
            problems.error("mail.name", "a name of one line", "take the line break out");
        }
        let from = match (&config.from, &transport) {
            (Some(from), _) => from.0.parse().ok(),
            (None, Transport::Directory(_)) => "palisade@localhost.invalid".parse().ok(),
            (None, Transport::Smtp(_)) => {
                let fix = "name the sender, such as `from = \"no-reply@example.com\"`";
                problems.error("mail.server", "mail needs a sender", fix);
                None
            }
        };
        let templates = Templates::read(&name, config.templates.as_deref())
            .map_err(|error| problems.error("mail.templates", error.to_string(), "mend the file, or take it out"))
            .ok();
        Some(Self { name, from: from?, transport, templates: templates? })
    }

    /// Starts the queue. What becomes of each mail is logged.
    ///
    /// # Errors
    /// When the transport cannot be set up.
    pub fn start(self, env: &Env) -> Result<Mailer, BadTransport> {
        let log = std::sync::Arc::clone(&env.log);
        let tell = move |outcome| tell(&log, outcome);
        Mailer::start(&self.name, &self.from, &self.transport, self.templates, Patience::default(), tell)
    }

    /// Has a queue go on under this policy.
    ///
    /// # Errors
    /// When the transport cannot be set up; the queue goes on as before.
    pub fn adopt(self, mailer: &Mailer) -> Result<(), BadTransport> {
        mailer.adopt(&self.name, &self.from, &self.transport, self.templates, Patience::default())
    }
}

fn transport(config: &Mail, env: &Env, problems: &mut Problems) -> Option<Transport> {
    let development = env.is_development();
    if !development && config.directory.is_some() {
        let fix = "name a `server`; files are for development";
        problems.error(
            "mail.directory",
            "in production mail is not written to files: they hold links that log in",
            fix,
        );
    }
    for (key, written) in [
        ("mail.user", config.user.is_some()),
        ("mail.password", config.password.is_some()),
        ("mail.ca", config.ca.is_some()),
    ] {
        if written && config.server.is_none() {
            problems.error(key, "there is no mail server that it could be for", "name `server`, or take this line out");
        }
    }
    let Some(server) = &config.server else {
        let folder = || config.directory.clone().unwrap_or_else(|| state_dir(&env.server).join("mail"));
        return development.then(|| Transport::Directory(folder()));
    };
    let mut smtp = Smtp::at(&server.0).ok()?;
    smtp.authority = match config.ca.as_deref().map(std::fs::read).transpose() {
        Ok(pem) => pem,
        Err(error) => {
            problems.error("mail.ca", error.to_string(), "name a file that can be read");
            return None;
        }
    };
    smtp.login = match (&config.user, &config.password) {
        (None, None) => None,
        (Some(user), Some(password)) => match env.secrets.get(&password.secret) {
            Ok(password) => Some((user.clone(), password)),
            Err(error) => {
                problems.error("mail.password", error.to_string(), "store the secret, or take the line out");
                return None;
            }
        },
        (Some(_), None) => {
            problems.error("mail.user", "a user without a password", "add `password = { secret = \"mail-password\" }`");
            return None;
        }
        (None, Some(_)) => {
            problems.error("mail.password", "a password without a user", "add `user`");
            return None;
        }
    };
    Some(Transport::Smtp(smtp))
}

fn tell(log: &crate::observe::Log, outcome: Outcome) {
    match outcome {
        Outcome::Sent { kind, about, attempts } => {
            let line = event::MAIL_SENT.line(log).str("kind", kind.name()).str("about", &about);
            line.u64("attempts", attempts.into());
        }
        Outcome::Delayed { kind, about, reason, next } => {
            let line =
                event::MAIL_DELAYED.line(log).str("kind", kind.name()).str("about", &about).str("reason", &reason);
            line.u64("next_s", next.as_secs());
        }
        Outcome::Dropped { kind, about, why } => {
            // A full queue would fill the log as well: each line costs the same, and the counter has the number.
            let line = event::MAIL_DROPPED.line(log).str("kind", kind.name()).str("about", &about);
            line.str("why", reason(&why)).show("reason", why);
        }
        _ => {}
    }
}

const fn reason(why: &Dropped) -> &'static str {
    match why {
        Dropped::Full => "full",
        Dropped::Refused(_) => "refused",
        Dropped::Late(_) => "late",
        _ => "closing",
    }
}

/// Relative paths start at the policy file.
pub(crate) fn resolve(config: &mut Mail, at: impl Fn(&str) -> PathBuf) {
    let resolve = |key: &str, path: &mut Option<PathBuf>| {
        if let Some(path) = path {
            *path = at(key).join(Path::new(&*path));
        }
    };
    resolve("mail.ca", &mut config.ca);
    resolve("mail.templates", &mut config.templates);
    resolve("mail.directory", &mut config.directory);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_say_what_is_wrong_with_them() {
        assert!("smtps://mail.example.com".parse::<Server>().is_ok());
        assert!("smtp://user:password@mail.example.com".parse::<Server>().is_err());
        assert!("no-reply@example.com".parse::<Sender>().is_ok());
        assert!("Example <no-reply@example.com>".parse::<Sender>().is_err());
    }
}
