//! Accounts, by their users: registration, login and logout, who one is, one's password.

use http::StatusCode;
use http::header::SET_COOKIE;
use palisade_identity::opaque::Session;
use palisade_identity::service::{
    Account, Edit, NewUser, PasswordChecked, Registered, StartSession, Started, UserError,
};
use palisade_mail::Kind;
use serde::Deserialize;
use serde_json::{Value, json};

use super::At;
use super::answer::{self, Answer};
use super::call::Call;
use super::links::{VERIFY, refused};
use super::who::{login, trouble, unrecognised, weak};
use crate::controls::auth::codes;
use crate::controls::auth::config::Registration;
use crate::controls::auth::credential::{COOKIE_PLAIN, COOKIE_SECURE, cookie, is_secure};
use crate::observe::event;
use crate::refusal::Refusal;

/// The body of `POST register`. These fields and no others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Register {
    username: String,
    email: String,
    password: String,
}

/// `POST register`.
pub(super) async fn register(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.not_foreign(call)?;
    if !call.is_json() {
        return super::pages::register(call, at).await;
    }
    let body: Register = call.json().await?;
    let Some(account) = make(call, at, &body.username, &body.email, &body.password).await? else {
        return Ok(answer::json(StatusCode::ACCEPTED, &json!({})));
    };
    let account = json!({ "id": account.id.to_string(), "username": account.name, "email": account.email });
    Ok(answer::json(StatusCode::CREATED, &account))
}

/// Makes an account. None: it depends on a mail what becomes of it, and the answer is the same whatever that is.
pub(super) async fn make(
    call: &Call,
    at: &At<'_>,
    name: &str,
    email: &str,
    password: &str,
) -> Result<Option<Account>, Refusal> {
    let new = NewUser { name, email: Some(email), password };
    let (identity, origin) = (&at.ready.identity, at.origin(call));
    match at.auth.config().registration {
        Registration::Closed => Err(codes::CLOSED.refuse("`registration` is closed")),
        Registration::Open => {
            let account = identity.register(new, &origin).await.map_err(user_error)?;
            at.note("registered", &account);
            if let Ok(desk) = at.desk() {
                match identity.ask_verification(account.id, &origin).await {
                    Ok(asked) => desk.asked(Kind::Verification, VERIFY, asked),
                    // The account is made all the same; the link can be asked for again on its page.
                    Err(why) => desk.not_made(Kind::Verification, &account.id.to_string(), &why.to_string()),
                }
            }
            Ok(Some(account))
        }
        Registration::Verified => {
            let desk = at.desk()?;
            match identity.register_by_mail(new, &origin).await.map_err(refused)? {
                Registered::New(letter) => {
                    at.note("registered", &letter.account);
                    desk.letter(Kind::Verification, VERIFY, &letter);
                }
                Registered::Taken(holder) => {
                    at.log_refused(&codes::TAKEN.refuse("the name or address is taken"));
                    if let Some(account) = &holder {
                        desk.already_registered(account);
                    }
                }
                Registered::Enough => desk.enough(Kind::Verification, None),
            }
            Ok(None)
        }
    }
}

/// The body of `POST login`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    username: String,
    password: String,
    #[serde(default)]
    remember: bool,
}

/// `POST login`.
pub(super) async fn log_in(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.not_foreign(call)?;
    if !call.is_json() {
        return super::pages::log_in(call, at).await;
    }
    let body: Login = call.json().await?;
    let started = start(call, at, &body.username, &body.password, body.remember).await?;
    let mut answer = answer::json(StatusCode::OK, &json!({ "user": user(&started.account) }));
    set_cookies(&mut answer, at, &started);
    Ok(answer)
}

/// Checks a password and starts a session, always a new one.
pub(super) async fn start(
    call: &Call,
    at: &At<'_>,
    name: &str,
    password: &str,
    remember: bool,
) -> Result<Started, Refusal> {
    let (origin, identity) = (at.origin(call), &at.ready.identity);
    let failed = |error| login(at.failed(error), &codes::FAILED);
    let checked = identity.check_password(name, password, &origin).await.map_err(failed)?;
    let how = StartSession { remember, replaces: presented(call, at) };
    let started = identity.start_session(&checked, how, &origin).await.map_err(unrecognised)?;
    event::LOGGED_IN
        .line(&at.ctx.policy.env().log)
        .str("owasp", "authn_login_success")
        .str("user", &started.account.id.to_string())
        .str("by", "password")
        .str("client", at.ctx.client_text())
        .str("request_id", at.ctx.request_id().as_str());
    if started.is_new_device {
        at.notice(Kind::NewDevice, started.account.id, &origin.agent);
    }
    Ok(started)
}

/// The session that the request came with, good or not.
fn presented(call: &Call, at: &At<'_>) -> Option<Session> {
    let name = if is_secure(at.ctx) { COOKIE_SECURE } else { COOKIE_PLAIN };
    cookie(&call.headers, name).ok().flatten().and_then(Session::parse)
}

/// The cookies of a session that was started.
pub(super) fn set_cookies(answer: &mut Answer, at: &At<'_>, started: &Started) {
    let lasting = started.max_age.map(|age| age.as_secs());
    answer::set_session(answer, at.ctx, &started.secret.reveal(), lasting);
    if let Some(device) = &started.device {
        answer::set_device(answer, at.ctx, device.reveal().expose());
    }
}

/// Gives the session of a browser another secret, since its user may do more from now on, or has proved more: whoever
/// knew the one before is out. It lasts as long as it was to last.
pub(super) async fn rotate(
    call: &Call,
    at: &At<'_>,
    checked: Option<&PasswordChecked>,
    answer: &mut Answer,
) -> Result<(), Refusal> {
    let Some(session) = presented(call, at) else { return Ok(()) };
    let next = at.ready.identity.rotate_session(&session, checked).await.map_err(unrecognised)?;
    if let Some(line) = answer::session_cookie(at.ctx, &next) {
        answer.headers_mut().append(SET_COOKIE, line);
    }
    Ok(())
}

/// `POST logout`.
pub(super) async fn log_out(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let form = if call.is_json() || call.headers.get(http::header::CONTENT_TYPE).is_none() {
        call.no_body().await?;
        None
    } else {
        Some(call.form().await?)
    };
    at.own_page(call, form.as_ref().and_then(|form| form.get("csrf_token")))?;
    if let Some(session) = presented(call, at) {
        at.ready.identity.end_session(&session).await.map_err(trouble)?;
    }
    let mut answer = match form {
        Some(_) => answer::see_other(&format!("{}/login", at.base())),
        None => answer::empty(StatusCode::NO_CONTENT),
    };
    answer::clear_session(&mut answer, at.ctx);
    answer::clear_site_data(&mut answer);
    Ok(answer)
}

/// A user as they see themselves.
pub(super) fn user(account: &Account) -> Value {
    json!({
        "id": account.id.to_string(),
        "username": account.name,
        "email": account.email,
        "roles": account.roles,
        "permissions": account.permissions,
    })
}

/// `GET me`.
pub(super) async fn me(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let (_, account) = at.user()?;
    Ok(answer::json(StatusCode::OK, &user(account)))
}

/// The body of `PATCH me`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    username: Option<String>,
    email: Option<String>,
}

/// `PATCH me`.
pub(super) async fn change(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let (_, account) = at.fresh()?;
    at.own_page(call, None)?;
    let body: Change = call.json().await?;
    // First, for it may be refused, and then nothing has changed.
    if let Some(email) = &body.email {
        move_to(call, at, email).await?;
    }
    if body.username.is_none() {
        return Ok(answer::json(StatusCode::OK, &user(account)));
    }
    let edit = Edit { name: body.username.as_deref(), ..Edit::default() };
    let changed = at.ready.identity.edit_user(account.id, edit).await.map_err(user_error)?;
    at.note("changed", &changed);
    Ok(answer::json(StatusCode::OK, &user(&changed)))
}

/// Sends a link to another address that the account is to have. Until it is opened nothing changes, and whether somebody
/// has that address is not said.
pub(super) async fn move_to(call: &Call, at: &At<'_>, email: &str) -> Result<(), Refusal> {
    let (_, account) = at.fresh()?;
    let desk = at.desk()?;
    let asked = at.ready.identity.ask_email_change(account.id, email, &at.origin(call)).await.map_err(refused)?;
    at.note("address asked for", account);
    desk.asked(Kind::Verification, VERIFY, asked);
    Ok(())
}

/// Sends the link once more that proves the account's address.
pub(super) async fn prove_again(call: &Call, at: &At<'_>) -> Result<(), Refusal> {
    let (_, account) = at.fresh()?;
    let desk = at.desk()?;
    let asked = at.ready.identity.ask_verification(account.id, &at.origin(call)).await.map_err(refused)?;
    desk.asked(Kind::Verification, VERIFY, asked);
    Ok(())
}

/// Why an account was not made or changed.
pub(super) fn user_error(error: UserError) -> Refusal {
    match error {
        UserError::NoUser => codes::NOT_FOUND.refuse("no such user"),
        UserError::NoRole(_) => codes::INVALID.refuse("no such role").field("roles", "names of roles that exist"),
        UserError::Name(_) => {
            let must = "1 to 128 letters, digits and signs of one script, without spaces";
            codes::INVALID.refuse("the name is none").field("username", must)
        }
        UserError::Email(_) => codes::INVALID.refuse("the address is none").field("email", "an e-mail address"),
        UserError::Weak(why) => weak(&why),
        UserError::NameTaken => codes::TAKEN.refuse("the name is taken").field("username", "a name of its own"),
        UserError::EmailTaken => codes::TAKEN.refuse("the address is taken").field("email", "an address of its own"),
        UserError::Trouble(why) => trouble(why),
        _ => codes::INVALID.refuse("the account cannot be changed so"),
    }
}

/// `GET csrf`.
pub(super) async fn csrf(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.user()?;
    Ok(answer::json(StatusCode::OK, &json!({ "csrf_token": at.form_token() })))
}

/// The body of `POST password`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    current_password: String,
    new_password: String,
}

/// `POST password`.
pub(super) async fn password(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.fresh()?;
    at.own_page(call, None)?;
    let body: NewPassword = call.json().await?;
    let mut answer = answer::empty(StatusCode::NO_CONTENT);
    set_password(call, at, &body.current_password, &body.new_password, &mut answer).await?;
    Ok(answer)
}

/// Sets another password. The session goes on under another secret; everything else that the account was logged in by
/// has ended.
pub(super) async fn set_password(
    call: &Call,
    at: &At<'_>,
    current: &str,
    new: &str,
    answer: &mut Answer,
) -> Result<(), Refusal> {
    let (caller, account) = at.fresh()?;
    let (identity, origin) = (&at.ready.identity, at.origin(call));
    let failed = |error| login(at.failed(error), &codes::FAILED);
    let checked = identity.check_password_again(account, current, &origin).await.map_err(failed)?;
    identity.change_password(&checked, new, caller.session_id(), &origin).await.map_err(user_error)?;
    at.note("password", account);
    if let (Ok(desk), Some(email)) = (at.desk(), account.verified_email()) {
        desk.tell(Kind::PasswordChanged, email, account, "");
    }
    rotate(call, at, Some(&checked), answer).await
}
