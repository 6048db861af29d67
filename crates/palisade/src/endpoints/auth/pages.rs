//! Pages for people: login, registration, one's account. Every form works without a script.

use http::StatusCode;
use palisade_identity::service::rfc3339;

use super::answer::{self, Answer};
use super::call::{Call, encode};
use super::sessions;
use super::who::trouble;
use super::{At, account, page};
use crate::controls::auth::codes;
use crate::controls::auth::config::Registration;
use crate::refusal::Refusal;

/// A path of ours to go on to: it begins with one slash, and no reader takes it for another host. Threats 31.
pub(super) fn return_to(text: Option<&str>) -> Option<&str> {
    text.filter(|to| {
        to.starts_with('/')
            && !to.starts_with("//")
            && to.len() <= 4096
            && !to.contains('\\')
            && to.bytes().all(|byte| (0x21..0x7f).contains(&byte))
    })
}

/// The refusals that a person can mend on the page; everything else is answered as anywhere.
pub(super) fn is_for_the_page(refusal: &Refusal) -> bool {
    let code = refusal.code();
    [
        &codes::FAILED,
        &codes::ATTEMPTS,
        &codes::BUSY,
        &codes::INVALID,
        &codes::TAKEN,
        &codes::FULL,
        &codes::LINK,
        &codes::NO_MAIL,
    ]
    .iter()
    .any(|known| **known == *code)
        || codes::PASSWORDS.contains(&code)
}

/// `GET login`.
pub(super) async fn login(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let query = call.query()?;
    let to = return_to(query.get("return_to")).unwrap_or_default();
    if at.anybody()?.is_some_and(|caller| caller.session_id().is_some()) && query.get("again").is_none() {
        return Ok(answer::see_other(if to.is_empty() { at.base() } else { to }));
    }
    Ok(show_login(at, StatusCode::OK, &Login { return_to: to, ..Login::default() }))
}

/// What the login page says.
#[derive(Debug, Default)]
pub(super) struct Login<'a> {
    pub(super) client: Option<&'a str>,
    pub(super) error: Option<&'a str>,
    pub(super) notice: Option<&'a str>,
    pub(super) return_to: &'a str,
    pub(super) username: &'a str,
    /// The origin that the login leads to in the end.
    pub(super) target: Option<&'a str>,
}

/// The login page.
pub(super) fn show_login(at: &At<'_>, status: StatusCode, login: &Login<'_>) -> Answer {
    let html = page::render(&page::Login {
        frame: at.frame(),
        client: login.client,
        error: login.error,
        notice: login.notice,
        return_to: login.return_to,
        username: login.username,
        registration: at.auth.config().registration != Registration::Closed,
        sends_mail: at.sends_mail(),
    });
    answer::page(status, html, login.target)
}

/// `POST login` of the page.
pub(super) async fn log_in(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let form = call.form().await?;
    let to = return_to(form.get("return_to")).unwrap_or_default().to_owned();
    let name = form.get("username").unwrap_or_default();
    let password = form.secret("password").map_or("", |secret| secret.expose());
    match account::start(call, at, name, password, form.get("remember").is_some()).await {
        Ok(started) => {
            let mut answer = answer::see_other(if to.is_empty() { at.base() } else { &to });
            account::set_cookies(&mut answer, at, &started);
            Ok(answer)
        }
        Err(refusal) if is_for_the_page(&refusal) => {
            at.log_refused(&refusal);
            let error = Some(refusal.code().sentence);
            let target = super::authorize::target_of(at, &to).await;
            let login = Login { error, return_to: &to, username: name, target: target.as_deref(), ..Login::default() };
            Ok(show_login(at, refusal.code().status, &login))
        }
        Err(refusal) => Err(refusal),
    }
}

/// A page that says one thing.
pub(super) fn message(at: &At<'_>, status: StatusCode, title: &str, text: &str) -> Answer {
    answer::page(status, page::render(&page::Message { frame: at.frame(), title, text, link: None }), None)
}

fn min_length(at: &At<'_>) -> u16 {
    at.ctx.policy.config().password.min_length
}

/// `GET register`.
pub(super) async fn show_register(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    if at.auth.config().registration == Registration::Closed {
        return Err(codes::CLOSED.refuse("`registration` is closed"));
    }
    let page = page::Register { frame: at.frame(), error: None, username: "", email: "", min_length: min_length(at) };
    Ok(answer::page(StatusCode::OK, page::render(&page), None))
}

/// `POST register` of the page.
pub(super) async fn register(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let form = call.form().await?;
    let (name, email) = (form.get("username").unwrap_or_default(), form.get("email").unwrap_or_default());
    let password = form.secret("password").map_or("", |secret| secret.expose());
    match account::make(call, at, name, email, password).await {
        Ok(None) => {
            let text = "If nobody has this name and address yet, a mail with a link is on its way.";
            Ok(message(at, StatusCode::ACCEPTED, "Look into your mail", text))
        }
        Ok(Some(_)) => {
            let notice = Some("The account is made. Log in with it.");
            Ok(show_login(at, StatusCode::CREATED, &Login { notice, username: name, ..Login::default() }))
        }
        Err(refusal) if is_for_the_page(&refusal) => {
            at.log_refused(&refusal);
            let error = refusal.sentence();
            let page = page::Register {
                frame: at.frame(),
                error: Some(error),
                username: name,
                email,
                min_length: min_length(at),
            };
            Ok(answer::page(refusal.code().status, page::render(&page), None))
        }
        Err(refusal) => Err(refusal),
    }
}

/// What the account page says besides.
#[derive(Default)]
pub(super) struct Said<'a> {
    pub(super) notice: Option<&'a str>,
    pub(super) error: Option<&'a str>,
    pub(super) new_key: Option<&'a str>,
}

/// `GET account`, and `/auth` itself.
pub(super) async fn account(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    match at.user() {
        Ok(_) => show_account(at, StatusCode::OK, &Said::default()).await,
        Err(refusal) if *refusal.code() == codes::REQUIRED => Ok(to_login(at, &format!("{}/account", at.base()))),
        Err(refusal) => Err(refusal),
    }
}

/// To the login page, and back.
pub(super) fn to_login(at: &At<'_>, back: &str) -> Answer {
    answer::see_other(&format!("{}/login?again=1&return_to={}", at.base(), encode(back)))
}

/// The account page.
pub(super) async fn show_account(at: &At<'_>, status: StatusCode, said: &Said<'_>) -> Result<Answer, Refusal> {
    let (caller, user) = at.user()?;
    let current = caller.session_id();
    let sessions = sessions::of(at).await?;
    let keys = sessions::keys_of(at).await?;
    let mut consents = Vec::new();
    for consent in at.ready.identity.consents_of(user.id).await.map_err(trouble)? {
        // One that was revoked since has no name any more.
        let client = at.ready.identity.client(&consent.client).await.map_err(trouble)?;
        consents.push(page::AccountConsent {
            name: client.map_or_else(|| consent.client.clone(), |client| client.name.clone()),
            id: consent.client,
            scopes: consent.scopes.join(" "),
            since: rfc3339(consent.at),
        });
    }
    let csrf_token = at.form_token();
    let html = page::render(&page::Account {
        frame: at.frame(),
        notice: said.notice,
        error: said.error,
        new_key: said.new_key,
        sends_mail: at.sends_mail(),
        user: page::AccountUser {
            name: user.name.clone(),
            email: user.email.clone(),
            email_verified: user.email_verified,
            roles: user.roles.join(", "),
        },
        sessions: sessions
            .into_iter()
            .map(|session| page::AccountSession {
                current: Some(session.id) == current,
                id: session.id.to_string(),
                device: if session.device.is_empty() { "unknown".into() } else { session.device },
                address: session.address,
                last_seen: rfc3339(session.seen_at),
            })
            .collect(),
        keys: keys
            .into_iter()
            .map(|key| page::AccountKey {
                id: key.id,
                name: key.name,
                scopes: key.scopes.join(" "),
                expires_at: key.expires_at.map_or_else(|| "never".into(), rfc3339),
            })
            .collect(),
        consents,
        csrf_token: &csrf_token,
    });
    Ok(answer::page(status, html, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threats 31.
    #[test]
    fn nobody_is_sent_elsewhere() {
        for good in ["/", "/notes?a=1", "/auth/authorize?x=%2F%2F"] {
            assert_eq!(return_to(Some(good)), Some(good));
        }
        for bad in [
            "",
            "//evil",
            "/\\evil",
            "https://evil",
            "evil",
            "\\/evil",
            "/a\nb",
            "/\t/evil",
            " /a",
            "/a b",
            "javascript:x",
            "/é",
        ] {
            assert_eq!(return_to(Some(bad)), None, "{bad:?}");
        }
    }
}
