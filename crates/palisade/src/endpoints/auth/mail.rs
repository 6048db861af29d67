//! The one seam between accounts and mail: what is sent to whom.
//!
//! Nothing of a mail is heard in an answer: it goes into a queue, in microseconds and whether or not there is somebody to
//! get it, and whatever has to be asked of the database for a notice is asked beside the answer. Links begin with the
//! issuer, whatever the request called this host (threats 20). Notices go to addresses that were proved; before that the
//! owner of an address may be a stranger, who is told nothing that whoever registered it could choose.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use palisade_base::Timestamp;
use palisade_identity::opaque::Purpose;
use palisade_identity::service::{Account, Asked, Identity, Letter, LoginError, UserId, Why};
use palisade_mail::{Kind, Links, Mail, Mailer};

use super::At;
use crate::context::Context;
use crate::controls::auth::codes;
use crate::mail::{Beside, post};
use crate::observe::event;
use crate::refusal::Refusal;

/// How long a link sets a password. What `palisade-identity` keeps to.
const RESET_LIFE: Duration = Duration::from_secs(3600);
/// How long a link proves an address.
const PROOF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Notices of one kind that an account gets within an hour: a stranger who guesses causes no more.
const LOCK_OUTS: i32 = 1;
const NEW_DEVICES: i32 = 5;

/// The way out for mail, and what it says of the request that caused it.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    mailer: Mailer,
    links: Links,
    ctx: Arc<Context>,
    now: Timestamp,
    client: IpAddr,
}

impl At<'_> {
    /// The way out.
    ///
    /// # Errors
    /// [`codes::NO_MAIL`]: nothing is configured that sends mail. That is so for every account and every address.
    pub(super) fn desk(&self) -> Result<Desk, Refusal> {
        self.try_desk().ok_or_else(|| codes::NO_MAIL.refuse("nothing sends mail: `[mail]` names no server"))
    }

    /// Whether there is a way out.
    pub(super) fn sends_mail(&self) -> bool {
        self.ctx.policy.mail().is_some()
    }

    fn try_desk(&self) -> Option<Desk> {
        let env = self.ctx.policy.env();
        self.ctx.policy.mail()?;
        let mailer = post(env).mailer(env)?;
        // The issuer is a URL, so links can begin with it.
        let links = Links::new(&self.base_url()).ok()?;
        Some(Desk { mailer, links, ctx: Arc::clone(self.ctx), now: self.now(), client: self.ctx.client_ip() })
    }

    /// Tells an account's owner of something that has happened to it. Beside the answer: the database is asked whether
    /// they are to hear of it.
    pub(super) fn notice(&self, kind: Kind, user: UserId, device: &str) {
        let Some(desk) = self.try_desk() else { return };
        let (identity, device) = (self.ready.identity.clone(), device.to_owned());
        let beside = post(self.ctx.policy.env()).beside();
        tokio::spawn(async move { desk.notice(&identity, kind, user, &device, beside).await });
    }

    /// Notes why a login failed: whoever is locked out by it is told, at the address that they proved to have.
    pub(super) fn failed(&self, error: LoginError) -> LoginError {
        if let LoginError::Refused { why: Why::Locked { just: true }, user: Some(user) } = &error {
            self.notice(Kind::LockOut, UserId(*user), "");
        }
        error
    }
}

impl Desk {
    /// Sends what came of asking for a link, if anything did.
    pub(super) fn asked<P: Purpose>(&self, kind: Kind, path: &str, asked: Asked<P>) {
        match asked {
            Asked::Letter(letter) => self.letter(kind, path, &letter),
            Asked::Nobody => {}
            Asked::Enough(user) => self.enough(kind, user),
        }
    }

    /// Sends a link.
    pub(super) fn letter<P: Purpose>(&self, kind: Kind, path: &str, letter: &Letter<P>) {
        let link = self.links.to(path, &letter.link.reveal());
        let life = if kind == Kind::Reset { RESET_LIFE } else { PROOF_LIFE };
        self.send(kind, &letter.email, &letter.account, |mail| {
            // A stranger may have registered this address under a name that reads like an advertisement.
            let name = if letter.account.email_verified { &letter.account.name } else { &letter.email };
            mail.name(name).link(link, life)
        });
    }

    /// Tells the owner of an address that somebody tried to register it again.
    pub(super) fn already_registered(&self, account: &Account) {
        if let Some(email) = account.email.as_deref().filter(|_| account.is_enabled()) {
            self.send(Kind::AlreadyRegistered, email, account, |mail| mail);
        }
    }

    /// Tells of something at an address that was proved.
    pub(super) fn tell(&self, kind: Kind, email: &str, account: &Account, device: &str) {
        self.send(kind, email, account, |mail| mail.name(&account.name).device(device));
    }

    /// Says in the log that a mail was not made since its recipient has got enough.
    pub(super) fn enough(&self, kind: Kind, user: Option<UserId>) {
        let about = user.map(|user| user.to_string()).unwrap_or_default();
        self.not_made(kind, &about, "this address has got as many mails as it may within an hour");
    }

    async fn notice(self, identity: &Identity, kind: Kind, user: UserId, device: &str, beside: Beside) {
        let most = if kind == Kind::LockOut { LOCK_OUTS } else { NEW_DEVICES };
        match identity.notice(user, kind.name(), most).await {
            Ok(Some(account)) => {
                if let Some(email) = account.verified_email() {
                    self.tell(kind, email, &account, device);
                }
            }
            Ok(None) => {}
            Err(why) => self.not_made(kind, &user.to_string(), &why.to_string()),
        }
        drop(beside);
    }

    fn send(&self, kind: Kind, to: &str, account: &Account, fill: impl FnOnce(Mail) -> Mail) {
        let about = account.id.to_string();
        match to.parse() {
            Ok(to) => self.mailer.send(fill(Mail::new(kind, to, about).time(self.now).address(self.client))),
            Err(why) => self.not_made(kind, &about, &format!("{why}")),
        }
    }

    /// Says in the log that a mail was not made: nothing is lost silently.
    pub(super) fn not_made(&self, kind: Kind, about: &str, reason: &str) {
        event::MAIL_NOT_MADE
            .line(&self.ctx.policy.env().log)
            .str("kind", kind.name())
            .str("about", about)
            .str("reason", reason)
            .str("request_id", self.ctx.request_id().as_str());
    }
}
