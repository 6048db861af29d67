//! The forms of the account page: each does what an endpoint for programs does, and leads back to the page.

use http::StatusCode;

use super::answer::{self, Answer};
use super::call::{Call, Form};
use super::pages::{Said, is_for_the_page, show_account, to_login};
use super::who::trouble;
use super::{At, account, sessions};
use crate::controls::auth::codes;
use crate::refusal::Refusal;

/// What a form sends, where it is one of a page of ours.
async fn sent(call: &mut Call, at: &At<'_>) -> Result<Form, Refusal> {
    at.user()?;
    let form = call.form().await?;
    at.own_page(call, form.get("csrf_token"))?;
    Ok(form)
}

fn field<'f>(form: &'f Form, name: &str) -> &'f str {
    form.get(name).unwrap_or_default()
}

/// Back to the page.
fn page(at: &At<'_>) -> Answer {
    answer::see_other(&format!("{}/account", at.base()))
}

/// The answer; or the page once more, with what was wrong, where a person can mend that there.
async fn shown(at: &At<'_>, done: Result<Answer, Refusal>) -> Result<Answer, Refusal> {
    match done {
        Err(refusal) if *refusal.code() == codes::STEP_UP => Ok(to_login(at, &format!("{}/account", at.base()))),
        Err(refusal) if is_for_the_page(&refusal) => {
            at.log_refused(&refusal);
            let error = refusal.sentence();
            show_account(at, refusal.code().status, &Said { error: Some(error), ..Said::default() }).await
        }
        done => done,
    }
}

/// `POST account/end-session`.
pub(super) async fn end_session(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let form = sent(call, at).await?;
    let done = sessions::end_one(at, field(&form, "id")).await;
    shown(at, done.map(|()| page(at))).await
}

/// `POST account/revoke-key`.
pub(super) async fn revoke_key(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let form = sent(call, at).await?;
    let done = sessions::revoke_one(at, field(&form, "id")).await;
    shown(at, done.map(|()| page(at))).await
}

/// `POST account/revoke-consent`.
pub(super) async fn revoke_consent(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let form = sent(call, at).await?;
    let done = take_back(at, field(&form, "id")).await;
    shown(at, done.map(|()| page(at))).await
}

async fn take_back(at: &At<'_>, client: &str) -> Result<(), Refusal> {
    let (_, account) = at.fresh()?;
    if !at.ready.identity.revoke_consent(account.id, client).await.map_err(trouble)? {
        return Err(codes::NOT_FOUND.refuse("no such consent"));
    }
    at.note("consent taken back", account);
    Ok(())
}

/// `POST account/password`.
pub(super) async fn password(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let form = sent(call, at).await?;
    let secret = |name: &str| form.secret(name).map_or("", |secret| secret.expose());
    let mut answer = page(at);
    let (current, new) = (secret("current_password"), secret("new_password"));
    let done = account::set_password(call, at, current, new, &mut answer).await;
    shown(at, done.map(|()| answer)).await
}

/// `POST account/email`.
pub(super) async fn email(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let form = sent(call, at).await?;
    let notice =
        "If nobody has this address yet, a mail with a link is on its way to it. Until you open it nothing changes.";
    match account::move_to(call, at, field(&form, "email")).await {
        Ok(()) => told(at, notice).await,
        Err(refusal) => shown(at, Err(refusal)).await,
    }
}

/// `POST account/verify`.
pub(super) async fn verify(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    sent(call, at).await?;
    match account::prove_again(call, at).await {
        Ok(()) => told(at, "A mail with a link is on its way to your address. It works for a day.").await,
        Err(refusal) => shown(at, Err(refusal)).await,
    }
}

async fn told(at: &At<'_>, notice: &str) -> Result<Answer, Refusal> {
    show_account(at, StatusCode::ACCEPTED, &Said { notice: Some(notice), ..Said::default() }).await
}

/// `POST account/create-key`.
pub(super) async fn create_key(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let form = sent(call, at).await?;
    let scopes = field(&form, "scopes").split_whitespace().map(Into::into).collect();
    match sessions::make_one(at, field(&form, "name").to_owned(), scopes, None).await {
        Ok((key, _)) => {
            let text = key.reveal();
            let said = Said { new_key: Some(text.expose()), ..Said::default() };
            show_account(at, StatusCode::CREATED, &said).await
        }
        Err(refusal) => shown(at, Err(refusal)).await,
    }
}
