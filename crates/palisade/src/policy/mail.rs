//! `[mail]`: how Palisade sends mail.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use palisade_base::{BadValue, SecretRef, TextValue, text_value};
use palisade_mail::{Address, BadTransport, Kind, Links, Mailer, Outcome, Patience, Smtp, Templates, Transport};
use palisade_policy::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::HostPattern;
use super::{Env, state_dir};
use crate::controls::Config;
use crate::controls::auth::config::Registration;

/// `[mail]`: how Palisade sends mail: links that confirm an address or set a new password, and notices. Guide section 1.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Mail {
    /// The mail server: `smtps://mail.example.com` (TLS), `smtp://mail.example.com` (STARTTLS, and nothing without it), or
    /// `smtp://localhost:25` (without TLS, on this machine only; `smtp+starttls://` insists on it there too). Absent: in development mail is written to files, in
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
    /// What the policy says of mail; `None` where nothing sends any. What needs mail and has none is a problem.
    pub(crate) fn compile(config: &Config, env: &Env, problems: &mut Problems) -> Option<Arc<Self>> {
        let setup = read(config, env, problems);
        if config.auth.config.present && config.mail.server.is_none() && !env.is_development() {
            missing(config, problems);
        }
        setup.filter(|_| config.auth.config.present).map(Arc::new)
    }

    /// Starts the queue.
    ///
    /// # Errors
    /// When the transport cannot be set up.
    pub(crate) fn start(&self, tell: impl Fn(Outcome) + Send + Sync + 'static) -> Result<Mailer, BadTransport> {
        Mailer::start(&self.name, &self.from, &self.transport, self.templates.clone(), Patience::default(), tell)
    }

    /// Has a queue go on under this policy.
    ///
    /// # Errors
    /// When the transport cannot be set up; the queue goes on as before.
    pub(crate) fn adopt(&self, mailer: &Mailer) -> Result<(), BadTransport> {
        mailer.adopt(&self.name, &self.from, &self.transport, self.templates.clone(), Patience::default())
    }

    /// Where mail goes: a server, or a directory.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }
}

/// What of `[auth]` needs mail, where production has none.
fn missing(config: &Config, problems: &mut Problems) {
    let fix = "add `[mail]` with a `server` and the sender, such as `server = \"smtps://mail.example.com\"`";
    if config.auth.config.registration == Registration::Verified {
        let message = "an address is verified by mail, and nothing sends any: nobody could make an account";
        problems.error("auth.registration", message, fix);
    } else {
        let message = "nothing sends mail: nobody who forgot a password can set a new one, and nobody hears of a login \
                       from a new device or of a lock-out";
        problems.warn("auth", message, fix);
    }
}

fn read(config: &Config, env: &Env, problems: &mut Problems) -> Option<Setup> {
    let mail = &config.mail;
    let transport = transport(mail, env, problems);
    let name = mail.name.clone().unwrap_or_else(|| service(config));
    if name.chars().any(char::is_control) {
        problems.error("mail.name", "a name of one line", "take the line break out");
    }
    let templates = Templates::read(&name, mail.templates.as_deref())
        .map_err(|error| problems.error("mail.templates", error.to_string(), "mend the file, or take it out"))
        .ok();
    let transport = transport?;
    let from = match (&mail.from, &transport) {
        (Some(from), _) => from.0.parse().ok(),
        (None, Transport::Directory(_)) => "palisade@localhost.invalid".parse().ok(),
        (None, Transport::Smtp(_)) => {
            let fix = "name the sender, such as `from = \"no-reply@example.com\"`";
            problems.error("mail.server", "mail needs a sender", fix);
            None
        }
    };
    Some(Setup { name, from: from?, transport, templates: templates? })
}

/// What mail calls the service, where the policy does not say: the host of its issuer, or its own.
fn service(config: &Config) -> String {
    let issuer = config.auth.config.issuer.as_ref().and_then(|issuer| Links::new(issuer.as_str()).ok());
    let host = config.server.hosts.iter().find_map(|host| match host {
        HostPattern::Exact(host) => Some(host.to_string()),
        _ => None,
    });
    issuer.map(|issuer| issuer.host().to_owned()).or(host).unwrap_or_else(|| "Palisade".to_owned())
}

/// The files that the policy names: part of it, though not of its text.
pub(crate) fn files(config: &Mail) -> impl Iterator<Item = PathBuf> {
    let texts = config.templates.iter().flat_map(|folder| {
        let of = |kind: Kind| ["txt", "html"].map(|end| folder.join(format!("{}.{end}", kind.name())));
        Kind::ALL.into_iter().flat_map(of)
    });
    config.ca.clone().into_iter().chain(texts)
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
    if let Err(error) = smtp.check() {
        problems.error("mail.ca", error.to_string(), "name a file with the authority's certificate in PEM");
        return None;
    }
    Some(Transport::Smtp(smtp))
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

    /// What is said of a policy, without the files and keys that only a real one has.
    fn said(mode: &str, more: &str) -> String {
        let text = format!("[server]\nmode = \"{mode}\"\nhosts = [\"api.example.com\"]\n{more}");
        let (Ok((_, problems)) | Err(problems)) =
            crate::live::check(&palisade_policy::Sources::new().builtin("test", &text));
        problems.render(false)
    }

    #[test]
    fn production_says_what_needs_mail() {
        let auth = "[auth]\nissuer = \"https://api.example.com\"\n";
        let verified = said("production", &format!("{auth}registration = \"verified\""));
        assert!(verified.contains("error: an address is verified by mail, and nothing sends any"), "{verified}");
        let closed = said("production", auth);
        assert!(closed.contains("warning: nothing sends mail: nobody who forgot a password"), "{closed}");
        let mail = "[mail]\nserver = \"smtps://mail.example.com\"\nfrom = \"no-reply@example.com\"\n";
        for registration in ["open", "verified"] {
            let with = said("production", &format!("{auth}registration = \"{registration}\"\n{mail}"));
            assert!(!with.contains("nothing sends") && !with.contains("[mail]"), "{with}");
        }
        assert!(!said("production", "").contains("mail"), "without logins nothing sends mail");
        assert!(!said("development", &format!("{auth}registration = \"verified\"")).contains("mail"), "files");
    }

    #[test]
    fn what_cannot_be_meant() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("reset.txt"), "Subject: x\n\n{{ lnik }}").unwrap();
        let templates = format!("templates = {:?}", folder.path());
        let gone = "ca = \"/nowhere/ca.pem\"";
        let none = folder.path().join("none.pem");
        std::fs::write(&none, "none").unwrap();
        let none = format!("ca = {none:?}");
        let server = "server = \"smtps://mail.example.com\"\n";
        let from = "from = \"no-reply@example.com\"\n";
        for (mode, text, what) in [
            ("production", "directory = \"mail\"".to_owned(), "in production mail is not written to files"),
            ("development", "user = \"u\"".into(), "there is no mail server that it could be for"),
            ("development", server.into(), "mail needs a sender"),
            ("development", format!("{server}{from}user = \"u\""), "a user without a password"),
            ("development", format!("{server}{from}password = {{ secret = \"x\" }}"), "a password without a user"),
            ("development", format!("{server}{from}user = \"u\"\npassword = {{ secret = \"no-such\" }}"), "no-such"),
            ("development", format!("{server}{from}{gone}"), "No such file"),
            ("development", format!("{server}{from}{none}"), "the certificate of the mail server's authority"),
            ("development", templates, "reset.txt:3: there is no field `lnik` here"),
            ("development", "templates = \"/nowhere\"".into(), "No such file"),
            ("development", "name = \"a\\nb\"".into(), "a name of one line"),
            ("development", "server = \"smtp://u:p@mail.example.com\"".into(), "`user` and `password` are keys"),
        ] {
            let said = said(mode, &format!("[auth]\nissuer = \"https://api.example.com\"\n[mail]\n{text}"));
            assert!(said.contains(what), "{text}: {said}");
        }
    }
}
