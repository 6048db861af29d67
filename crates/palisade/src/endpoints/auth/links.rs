//! Links that work once: a new password for whoever forgot theirs, and proving an e-mail address.
//!
//! Asking for one always answers the same. What leads to an account is in the mail, and the mail's links begin with the
//! issuer, whatever the request called this host (threats 20).

use std::sync::Arc;

use http::StatusCode;
use palisade_identity::opaque::{ResetLink, VerifyLink};
use palisade_identity::service::LinkError;
use serde::Deserialize;

use super::At;
use super::account::user_error;
use super::answer::{self, Answer};
use super::call::Call;
use super::mail::{self, Subject};
use super::who::{trouble, weak};
use super::{page, pages};
use crate::controls::auth::codes;
use crate::refusal::Refusal;

fn refused(error: LinkError) -> Refusal {
    match error {
        LinkError::NotValid => codes::LINK.refuse("unknown, used, over, or of another address by now"),
        LinkError::Weak(why) => weak(&why),
        LinkError::EmailTaken => codes::TAKEN.refuse("the address became somebody else's"),
        LinkError::Email => codes::INVALID.refuse("the address is none").field("email", "an e-mail address"),
        LinkError::User(why) => user_error(why),
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
    if let Some(letter) = at.ready.identity.ask_reset(&email).await.map_err(trouble)? {
        let link = format!("{}/password/reset/confirm?token={}", at.base_url(), letter.link.reveal().expose());
        let ctx = Arc::clone(at.ctx);
        // Beside the answer, which takes as long for nobody.
        tokio::spawn(async move { mail::post(&ctx, &letter.email, &letter.account, Subject::Reset, &link) });
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
            if !page {
                return Ok(answer::empty(StatusCode::NO_CONTENT));
            }
            let notice = Some("The new password is set. Log in with it.");
            Ok(pages::show_login(at, StatusCode::OK, &pages::Login { notice, ..pages::Login::default() }))
        }
        Err(refusal) if page && pages::is_for_the_page(&refusal) => {
            at.log_refused(&refusal);
            let error = refusal.said().first().map_or(refusal.code().sentence, |(_, must)| *must);
            Ok(reset_page(at, refusal.code().status, Some(&body.token), Some(error)))
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
        text: "Confirm that you made an account with this address.",
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
    let link = VerifyLink::parse(&token).ok_or_else(|| codes::LINK.refuse("not the spelling of a link"))?;
    let keep = at.ctx.identity().caller().and_then(|caller| caller.session_id());
    let account = at.ready.identity.verify_email(&link, keep).await.map_err(refused)?;
    at.note("address proved", &account);
    if page {
        let notice = Some("The address is confirmed. Log in.");
        return Ok(pages::show_login(at, StatusCode::OK, &pages::Login { notice, ..pages::Login::default() }));
    }
    Ok(answer::empty(StatusCode::NO_CONTENT))
}
