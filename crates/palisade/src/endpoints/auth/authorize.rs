//! `authorize`: a user allows a client to act for them.
//!
//! Sources: RFC 6749 section 4.1, RFC 7636, RFC 9207 (`iss`), RFC 9700; threats 21 and 31. Nothing leaves to a URI that is
//! not registered, errors neither. A page that grants something wants a fresh login and stands in nobody's frame.

use http::StatusCode;
use palisade_base::Timestamp;
use palisade_identity::service::{AskToAuthorize, Authorization, NotAuthorized};

use super::At;
use super::answer::{self, Answer};
use super::call::{Call, Form, encode};
use super::page;
use super::pages::{Login, show_login};
use super::token::failed;
use super::who::{FRESH, trouble};
use crate::controls::auth::{By, Caller, codes};
use crate::refusal::Refusal;

/// The parameters of a request, as they came.
fn ask(form: &Form) -> AskToAuthorize<'_> {
    AskToAuthorize {
        client: form.get("client_id"),
        redirect: form.get("redirect_uri"),
        response: form.get("response_type"),
        scope: form.get("scope"),
        resources: form.all("resource").collect(),
        challenge: form.get("code_challenge"),
        challenge_method: form.get("code_challenge_method"),
        nonce: form.get("nonce"),
    }
}

/// Back to the client.
fn back(at: &At<'_>, redirect: &str, form: &Form, parameters: &[(&str, &str)]) -> Answer {
    let mut to = redirect.to_owned();
    let mut separator = if redirect.contains('?') { '&' } else { '?' };
    let state = form.get("state").map(|state| ("state", state));
    let issuer = ("iss", at.ready.issuer());
    for (name, value) in parameters.iter().copied().chain(state).chain([issuer]) {
        to.push(separator);
        to.push_str(name);
        to.push('=');
        to.push_str(&encode(value));
        separator = '&';
    }
    answer::see_other(&to)
}

/// What a Content Security Policy calls the place that a redirect leads to.
fn target(redirect: &str) -> String {
    match redirect.split_once("://") {
        Some((scheme @ ("https" | "http"), rest)) => {
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            format!("{scheme}://{authority}")
        }
        _ => format!("{}:", redirect.split(':').next().unwrap_or_default()),
    }
}

/// Says on a page why a request goes no further, where it is not certain whom to tell.
fn doubtful(at: &At<'_>, text: &str) -> Answer {
    let html = page::render(&page::Message {
        frame: at.frame(),
        title: "This request cannot be answered",
        text: &format!("An application sent you here with a request that is not in order: {text}."),
        link: None,
    });
    answer::page(StatusCode::BAD_REQUEST, html, None)
}

async fn judge(at: &At<'_>, form: &Form) -> Result<Result<Authorization, Answer>, Refusal> {
    match at.ready.identity.check_authorize(&ask(form)).await {
        Ok(what) => Ok(Ok(what)),
        Err(NotAuthorized::Page(text)) => {
            at.log_refused(&codes::OAUTH_REQUEST.refuse(text));
            Ok(Err(doubtful(at, text)))
        }
        Err(NotAuthorized::Redirect { redirect, error, description }) => {
            at.log_refused(&codes::OAUTH_REQUEST.refuse(description));
            Ok(Err(back(at, &redirect, form, &[("error", error), ("error_description", description)])))
        }
        Err(NotAuthorized::Trouble(why)) => Err(trouble(why)),
    }
}

/// The user, in a browser's session.
fn user<'a>(at: &'a At<'_>) -> Result<Option<(&'a Caller, Timestamp)>, Refusal> {
    let caller = at.anybody()?.filter(|caller| caller.by() == By::Session && caller.account().is_some());
    Ok(caller.and_then(|caller| Some((caller, caller.logged_in()?))))
}

/// `GET authorize`.
pub(super) async fn ask_user(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let Ok(form) = call.query() else { return Ok(doubtful(at, "a parameter comes twice, or is malformed")) };
    let what = match judge(at, &form).await? {
        Ok(what) => what,
        Err(answer) => return Ok(answer),
    };
    let prompt = form.get("prompt").unwrap_or_default();
    let silent = prompt.split(' ').any(|word| word == "none");
    let log_in = |notice| {
        if silent {
            return back(at, &what.redirect, &form, &[("error", "login_required")]);
        }
        // Said once: whoever comes back has logged in.
        let query: Vec<&str> = call.query.split('&').filter(|pair| !pair.starts_with("prompt=")).collect();
        let here = format!("{}/authorize?{}", at.base(), query.join("&"));
        let login = Login {
            client: Some(&what.client.name),
            notice,
            return_to: &here,
            target: Some(&target(&what.redirect)),
            ..Login::default()
        };
        show_login(at, StatusCode::OK, &login)
    };
    let Some((caller, logged_in)) = user(at)? else { return Ok(log_in(None)) };
    let again = Some("Log in again to go on.");
    if prompt.split(' ').any(|word| word == "login") {
        return Ok(log_in(again));
    }
    let age = at.now().0.saturating_sub(logged_in.0) / 1000;
    if form.get("max_age").is_some_and(|most| most.parse::<i64>().is_ok_and(|most| age > most)) {
        return Ok(log_in(again));
    }
    let Some(account) = caller.account() else { return Ok(log_in(None)) };
    let needed = at.ready.identity.needs_consent(account.id, &what).await.map_err(trouble)?;
    if !needed && !prompt.split(' ').any(|word| word == "consent") {
        return allow(at, &form, &what, caller, logged_in).await;
    }
    if silent {
        return Ok(back(at, &what.redirect, &form, &[("error", "consent_required")]));
    }
    // Threats 21: what grants something wants a fresh login.
    if caller.proved().fresh(at.now(), FRESH).is_none() {
        return Ok(log_in(again));
    }
    let destination = target(&what.redirect);
    let html = page::render(&page::Consent {
        frame: at.frame(),
        client: &what.client.name,
        user: &account.name,
        scopes: &what.scopes,
        destination: destination.split_once("://").map_or(&*destination, |(_, host)| host),
        csrf_token: &at.form_token(),
        request: &call.query,
    });
    Ok(answer::page(StatusCode::OK, html, Some(&destination)))
}

/// `POST authorize`: what the user decided.
pub(super) async fn decide(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let (caller, _) = at.fresh()?;
    let decided = call.form().await?;
    at.own_page(call, decided.get("csrf_token"))?;
    let Ok(form) = Form::parse(decided.get("request").unwrap_or_default().as_bytes()) else {
        return Ok(doubtful(at, "a parameter comes twice, or is malformed"));
    };
    let what = match judge(at, &form).await? {
        Ok(what) => what,
        Err(answer) => return Ok(answer),
    };
    let logged_in = caller.logged_in().unwrap_or(Timestamp(0));
    match decided.get("decision") {
        Some("allow") => allow(at, &form, &what, caller, logged_in).await,
        _ => Ok(back(at, &what.redirect, &form, &[("error", "access_denied")])),
    }
}

async fn allow(
    at: &At<'_>,
    form: &Form,
    what: &Authorization,
    caller: &Caller,
    logged_in: Timestamp,
) -> Result<Answer, Refusal> {
    let account = caller.account().ok_or_else(|| codes::FORBIDDEN.refuse("a client that acts for itself"))?;
    let code = at.ready.identity.allow(account.id, logged_in, what).await.map_err(|error| failed(at, error))?;
    at.note("client allowed", account);
    Ok(back(at, &what.redirect, form, &[("code", code.reveal().expose())]))
}

/// The place that a login page leads to, where it goes on to the authorization of a client: browsers hold the redirects
/// behind a form to the policy of its page.
pub(super) async fn target_of(at: &At<'_>, return_to: &str) -> Option<String> {
    let query = return_to.strip_prefix(at.base())?.strip_prefix("/authorize?")?;
    let form = Form::parse(query.as_bytes()).ok()?;
    let what = at.ready.identity.check_authorize(&ask(&form)).await.ok()?;
    Some(target(&what.redirect))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_form_may_lead() {
        for (redirect, place) in [
            ("https://app.example.com/cb?x=1", "https://app.example.com"),
            ("http://127.0.0.1:3000/cb", "http://127.0.0.1:3000"),
            ("com.example.app:/cb", "com.example.app:"),
        ] {
            assert_eq!(target(redirect), place);
        }
    }
}
