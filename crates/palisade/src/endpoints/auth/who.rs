//! Whom an endpoint is for, and what it says when somebody else asks.

use std::time::Duration;

use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use palisade_identity::opaque::Device;
use palisade_identity::password::Weakness;
use palisade_identity::service::{Account, LoginError, Origin, Trouble, Unrecognised, Why};
use palisade_store::Error as StoreError;

use super::At;
use super::call::Call;
use crate::controls::auth::credential::{DEVICE_PLAIN, DEVICE_SECURE, cookie, is_secure};
use crate::controls::auth::{self, By, Caller, Identity, codes};
use crate::controls::csrf::{self, Site};
use crate::refusal::Refusal;

/// How long ago a user has to have logged in to manage keys, passwords, sessions and accounts.
pub(crate) const FRESH: Duration = Duration::from_secs(10 * 60);
/// The role of those who manage accounts.
pub(crate) const ADMINISTRATOR: &str = "admin";

impl At<'_> {
    /// Whoever asks.
    pub(crate) fn caller(&self) -> Result<&Caller, Refusal> {
        match self.ctx.identity() {
            Identity::Caller(caller) => Ok(caller),
            Identity::Rejected(refusal) => Err(refusal.clone()),
            Identity::Nobody => {
                let refusal = codes::REQUIRED.refuse("nobody is logged in");
                Err(refusal.header(WWW_AUTHENTICATE, self.auth.challenge(None)))
            }
        }
    }

    /// Whoever asks, and nobody where that can be said: not while the database is away.
    pub(crate) fn anybody(&self) -> Result<Option<&Caller>, Refusal> {
        match self.ctx.identity() {
            Identity::Rejected(refusal) if *refusal.code() == codes::AWAY => Err(refusal.clone()),
            identity => Ok(identity.caller()),
        }
    }

    /// A user who acts with all they may do. Threats 4: no endpoint names a scope, so no narrower credential passes.
    pub(crate) fn user(&self) -> Result<(&Caller, &Account), Refusal> {
        let caller = self.caller()?;
        if caller.scopes().is_some() {
            return Err(codes::FORBIDDEN.refuse("a credential that carries only scopes"));
        }
        let account = caller.account().ok_or_else(|| codes::FORBIDDEN.refuse("a client that acts for itself"))?;
        Ok((caller, account))
    }

    /// A user in a browser's session who logged in a short while ago. Threats 4: a token or key, stolen or not, makes no
    /// credential and changes none.
    pub(crate) fn fresh(&self) -> Result<(&Caller, &Account), Refusal> {
        let caller = self.caller()?;
        let step_up = |why| codes::STEP_UP.refuse(why);
        if caller.by() != By::Session {
            return Err(step_up("not a session"));
        }
        let account = caller.account().ok_or_else(|| step_up("not a user"))?;
        if caller.proved().fresh(self.now(), FRESH).is_none() {
            return Err(step_up("the login is some time ago"));
        }
        Ok((caller, account))
    }

    /// An administrator in a fresh session, whose role nobody can have taken away meanwhile (threats 17).
    pub(crate) fn administrator(&self) -> Result<&Account, Refusal> {
        let (_, account) = self.fresh()?;
        if !account.has_role(ADMINISTRATOR) {
            return Err(codes::FORBIDDEN.refuse("not an administrator"));
        }
        if self.auth.is_unsure() {
            return Err(codes::AWAY.refuse("the role may have been taken away meanwhile").retry_after(1));
        }
        Ok(account)
    }

    /// Refuses what a page of another site has caused, where nobody has to be logged in: such a page could otherwise log
    /// its visitor in as somebody else, and see what they do then.
    ///
    /// # Errors
    /// [`codes::CROSS_SITE`].
    pub(crate) fn not_foreign(&self, call: &Call) -> Result<(), Refusal> {
        match csrf::site(self.ctx, &call.headers) {
            Site::Own | Site::Unknown => Ok(()),
            Site::Foreign(why) => Err(codes::CROSS_SITE.refuse(why)),
            Site::Opaque => Err(codes::CROSS_SITE.refuse("`Origin` is `null`")),
        }
    }

    /// Refuses what a page of another site has caused. `token`: that of the form, where there is one.
    ///
    /// # Errors
    /// [`codes::CROSS_SITE`].
    pub(crate) fn own_page(&self, call: &Call, token: Option<&str>) -> Result<(), Refusal> {
        let foreign = |why| Err(codes::CROSS_SITE.refuse(why));
        let opaque = match csrf::site(self.ctx, &call.headers) {
            Site::Own => return Ok(()),
            Site::Foreign(why) => return foreign(why),
            Site::Opaque => true,
            Site::Unknown => false,
        };
        if !self.ctx.identity().caller().is_some_and(|caller| caller.by().is_ambient()) {
            // Nothing that a browser attaches by itself was used. A page that hides where it is shows that a browser was.
            return if opaque { foreign("`Origin` is `null`") } else { Ok(()) };
        }
        let header = call.headers.get(csrf::X_CSRF_TOKEN).and_then(|value| value.to_str().ok());
        if header.or(token).is_some_and(|token| csrf::is_session_token(self.ctx, token)) {
            return Ok(());
        }
        foreign("neither `Sec-Fetch-Site` nor `Origin`, and no token of this session")
    }

    /// A token against forged requests, for the session of whoever asks.
    pub(crate) fn form_token(&self) -> String {
        csrf::session_token(self.ctx).unwrap_or_default()
    }

    /// Where an attempt comes from.
    pub(crate) fn origin(&self, call: &Call) -> Origin {
        let name = if is_secure(self.ctx) { DEVICE_SECURE } else { DEVICE_PLAIN };
        let device = cookie(&call.headers, name).ok().flatten().and_then(Device::parse);
        Origin { device, ..auth::origin(self.ctx, &call.headers) }
    }
}

/// What the database, the pool of hashes or the machine cannot do just now.
pub(crate) fn trouble(trouble: Trouble) -> Refusal {
    match trouble {
        Trouble::Busy { retry_after } => {
            codes::BUSY.refuse("the pool of password hashes is full").retry_after(seconds(retry_after))
        }
        Trouble::Store(StoreError::Away(why)) => {
            codes::AWAY.refuse("the database does not answer").with("reason", why).retry_after(1)
        }
        other => codes::AWAY.refuse("identity is in trouble").with("reason", other.to_string()).retry_after(5),
    }
}

/// Seconds for `Retry-After`, never zero.
pub(crate) fn seconds(duration: Duration) -> u64 {
    duration.as_secs().max(1)
}

/// A credential that could not be made or found.
pub(crate) fn unrecognised(error: Unrecognised) -> Refusal {
    match error {
        Unrecognised::NotValid(_) => codes::FAILED.refuse("the account was disabled or changed meanwhile"),
        Unrecognised::Trouble(why) => trouble(why),
    }
}

/// A login that failed. One answer for every reason; which it was stands in the log.
pub(crate) fn login(error: LoginError, refused: &'static crate::refusal::Code) -> Refusal {
    match error {
        LoginError::Refused { why, user } => {
            let refusal = refused.refuse(match why {
                Why::Unknown => "nobody of that name",
                Why::Wrong => "another password",
                Why::Locked { just: true } => "too many attempts: locked from now on",
                Why::Locked { just: false } => "locked",
                Why::Disabled => "disabled",
                Why::Unproved => "nobody has proved the address yet",
                _ => "no password",
            });
            match user {
                Some(user) => refusal.with("user", user.to_string()),
                None => refusal,
            }
        }
        LoginError::Wait { retry_after } => codes::ATTEMPTS
            .refuse("too many attempts from this address")
            .header(RETRY_AFTER, HeaderValue::from(seconds(retry_after))),
        LoginError::Trouble(why) => trouble(why),
    }
}

/// A password that may not be set: all that is wrong with it.
pub(crate) fn weak(weaknesses: &[Weakness]) -> Refusal {
    let code = match weaknesses.first() {
        None => &codes::PASSWORD_LONG,
        Some(Weakness::Short) => &codes::PASSWORD_SHORT,
        Some(Weakness::Common) => &codes::PASSWORD_COMMON,
        Some(Weakness::Breached) => &codes::PASSWORD_BREACHED,
        Some(Weakness::Context) => &codes::PASSWORD_CONTEXT,
        Some(Weakness::Control) => &codes::PASSWORD_CONTROL,
        Some(_) => &codes::PASSWORD_WEAK,
    };
    let mut refusal = code.refuse("a password that may not be set").field("password", code.sentence);
    for weakness in weaknesses.iter().skip(1) {
        refusal = refusal.field(
            "password",
            match weakness {
                Weakness::Short => codes::PASSWORD_SHORT.sentence,
                Weakness::Common => codes::PASSWORD_COMMON.sentence,
                Weakness::Breached => codes::PASSWORD_BREACHED.sentence,
                Weakness::Context => codes::PASSWORD_CONTEXT.sentence,
                Weakness::Control => codes::PASSWORD_CONTROL.sentence,
                _ => codes::PASSWORD_WEAK.sentence,
            },
        );
    }
    refusal
}
