//! Links that work once: a new password for whoever forgot theirs, and proving an e-mail address.
//!
//! Asking for one always answers the same. What leads to an account is in the mail, and the mail's links begin with the
//! issuer, whatever the request called this host (threats 20).

use http::StatusCode;
use palisade_identity::opaque::{EmailLink, ResetLink, VerifyLink};
use palisade_identity::service::{Account, LinkError, Moved};
use palisade_mail::Kind;
use serde::Deserialize;

use super::At;
use super::account::user_error;
use super::answer::{self, Answer};
use super::call::Call;
use super::who::{seconds, trouble, weak};
use super::{account, page, pages};
use crate::controls::auth::codes;
use crate::refusal::Refusal;

/// Where the link of a mail leads that proves an address.
pub(super) const VERIFY: &str = "email/verify";
/// Where the link of a mail leads that sets a password.
const RESET: &str = "password/reset/confirm";

pub(super) fn refused(error: LinkError) -> Refusal {
    match error {
        LinkError::NotValid => codes::LINK.refuse("unknown, used, over, or of another address by now"),
        LinkError::Weak(why) => weak(&why),
        LinkError::EmailTaken => codes::TAKEN.refuse("the address became somebody else's"),
        LinkError::Email => codes::INVALID.refuse("the address is none").field("email", "an e-mail address"),
        LinkError::User(why) => user_error(why),
        LinkError::Wait { retry_after } => {
            codes::ATTEMPTS.refuse("too many mails asked for from this address").retry_after(seconds(retry_after))
        }
        LinkError::Trouble(why) => trouble(why),
        _ => codes::LINK.refuse("the link did nothing"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    email: String,
}

/// `POST password/reset`.
pub(super) async fn ask_reset(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.not_foreign(call)?;
    let (email, page) = if call.is_json() {
        (call.json::<Ask>().await?.email, false)
    } else {
        (call.form().await?.get("email").unwrap_or_default().to_owned(), true)
    };
    let asked = match at.desk() {
        Ok(desk) => at.ready.identity.ask_reset(&email, &at.origin(call)).await.map_err(refused).map(|it| (desk, it)),
        Err(refusal) => Err(refusal),
    };
    match asked {
        Ok((desk, asked)) => desk.asked(Kind::Reset, RESET, asked),
        Err(refusal) if page && pages::is_for_the_page(&refusal) => {
            at.log_refused(&refusal);
            return Ok(reset_page(at, refusal.code().status, None, Some(refusal.code().sentence)));
        }
        Err(refusal) => return Err(refusal),
    }
    if page {
        let text = "If there is an account with this address, a mail with a link is on its way. It works for an hour.";
        return Ok(pages::message(at, StatusCode::ACCEPTED, "Look into your mail", text));
    }
    Ok(answer::json(StatusCode::ACCEPTED, &serde_json::json!({})))
}

/// `GET password/reset`.
pub(super) async fn show_reset(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    Ok(reset_page(at, StatusCode::OK, None, None))
}

/// `GET password/reset/confirm`: where the mail's link leads.
pub(super) async fn show_confirm(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let query = call.query()?;
    Ok(reset_page(at, StatusCode::OK, Some(query.get("token").unwrap_or_default()), None))
}

fn reset_page(at: &At<'_>, status: StatusCode, token: Option<&str>, error: Option<&str>) -> Answer {
    let min_length = at.ctx.policy.config().password.min_length;
    answer::page(status, page::render(&page::Reset { frame: at.frame(), error, token, min_length }), None)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    token: String,
    new_password: String,
}

/// `POST password/reset/confirm`.
pub(super) async fn confirm(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.not_foreign(call)?;
    let page = !call.is_json();
    let body = if page {
        let form = call.form().await?;
        let new_password = form.secret("new_password").map(|secret| secret.expose().clone()).unwrap_or_default();
        Confirm { token: form.get("token").unwrap_or_default().to_owned(), new_password }
    } else {
        call.json().await?
    };
    let link = ResetLink::parse(&body.token).ok_or_else(|| codes::LINK.refuse("not the spelling of a link"));
    let set = match link {
        Ok(link) => {
            let set = at.ready.identity.reset_password(&link, &body.new_password, &at.origin(call)).await;
            set.map_err(refused)
        }
        Err(refusal) => Err(refusal),
    };
    match set {
        Ok(account) => {
            at.note("password reset", &account);
            if let (Ok(desk), Some(email)) = (at.desk(), account.verified_email()) {
                desk.tell(Kind::PasswordChanged, email, &account, "");
            }
            if !page {
                return Ok(answer::empty(StatusCode::NO_CONTENT));
            }
            let notice = Some("The new password is set. Log in with it.");
            Ok(pages::show_login(at, StatusCode::OK, &pages::Login { notice, ..pages::Login::default() }))
        }
        Err(refusal) if page && pages::is_for_the_page(&refusal) => {
            at.log_refused(&refusal);
            let error = refusal.sentence();
            // A link that is no longer good sets nothing: what helps is another one.
            let token = Some(body.token.as_str()).filter(|_| *refusal.code() != codes::LINK);
            Ok(reset_page(at, refusal.code().status, token, Some(error)))
        }
        Err(refusal) => Err(refusal),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verify {
    token: String,
}

/// `GET email/verify`: where the mail's link leads. Nothing happens yet: scanners of mail follow links.
pub(super) async fn show_verify(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let query = call.query()?;
    let action = format!("{}/email/verify", at.base());
    let html = page::render(&page::Confirm {
        frame: at.frame(),
        title: "Is this your e-mail address?",
        text: "Confirm that you gave this address to us.",
        action: &action,
        token: Some(query.get("token").unwrap_or_default()),
        csrf_token: None,
        button: "It is mine",
    });
    Ok(answer::page(StatusCode::OK, html, None))
}

/// `POST email/verify`.
pub(super) async fn verify(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.not_foreign(call)?;
    let page = !call.is_json();
    let token = if page {
        call.form().await?.get("token").unwrap_or_default().to_owned()
    } else {
        call.json::<Verify>().await?.token
    };
    match prove(at, &token).await {
        Ok(account) if !page || at.user().is_ok_and(|(_, user)| user.id == account.id) => {
            let mut answer = match page {
                true => answer::see_other(&format!("{}/account", at.base())),
                false => answer::empty(StatusCode::NO_CONTENT),
            };
            if at.user().is_ok_and(|(caller, user)| user.id == account.id && caller.session_id().is_some()) {
                account::rotate(call, at, None, &mut answer).await?;
            }
            Ok(answer)
        }
        Ok(_) => {
            let notice = Some("The address is confirmed. Log in.");
            Ok(pages::show_login(at, StatusCode::OK, &pages::Login { notice, ..pages::Login::default() }))
        }
        Err(refusal) if page && pages::is_for_the_page(&refusal) => {
            at.log_refused(&refusal);
            let text =
                "Links work once, for a day, and the latest one only. Ask for another one on the page of your account.";
            Ok(pages::message(at, refusal.code().status, "This link does not work", text))
        }
        Err(refusal) => Err(refusal),
    }
}

/// Proves the address that a link was sent to: that of the account, or the one that it moves to.
async fn prove(at: &At<'_>, token: &str) -> Result<Account, Refusal> {
    let keep = at.ctx.identity().caller().and_then(|caller| caller.session_id());
    let identity = &at.ready.identity;
    if let Some(link) = EmailLink::parse(token) {
        let Moved { account, from } = identity.change_email(&link, keep).await.map_err(refused)?;
        at.note("address changed", &account);
        if let (Ok(desk), Some(before)) = (at.desk(), from) {
            desk.tell(Kind::EmailChanged, &before, &account, "");
        }
        return Ok(account);
    }
    let link = VerifyLink::parse(token).ok_or_else(|| codes::LINK.refuse("not the spelling of a link"))?;
    let account = identity.verify_email(&link, keep).await.map_err(refused)?;
    at.note("address proved", &account);
    Ok(account)
}
