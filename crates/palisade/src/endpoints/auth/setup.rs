//! The setup link: the first administrator is made in a browser. Threats 3.
//!
//! `palisade user setup-link` prints it. It is the admin listener's alone, works once and for [`SETUP_LIFE`], and ends as
//! soon as there is an administrator. Whoever has no good link sees that nothing is here.
//!
//! [`SETUP_LIFE`]: palisade_identity::service::SETUP_LIFE

use http::StatusCode;
use palisade_identity::opaque::SetupLink;
use palisade_identity::service::{LinkError, NewUser, Origin};

use super::call::Form;
use super::{links, metadata, page, pages};
use crate::observe::event;
use crate::policy::Policy;
use crate::refusal::Code;
use crate::server::request_id::RequestId;

/// Where the admin listener has the page.
pub(crate) const PATH: &str = "/setup";
/// The style sheet of the page.
pub(crate) const STYLE_PATH: &str = "/setup/style.css";
/// What the page loads.
pub(crate) const STYLE: &str = metadata::STYLE;

/// A page to answer with.
pub(crate) struct Shown {
    pub(crate) status: StatusCode,
    pub(crate) html: String,
}

/// Why there is none: nothing is here, or what is wrong.
pub(crate) type Not = Option<&'static Code>;

/// The form, for whoever has a good link in the query.
pub(crate) async fn show(policy: &Policy, query: &[u8]) -> Result<Shown, Not> {
    let form = Form::parse(query).map_err(|_| None)?;
    let (link, text) = good(&form)?;
    let identity = identity(policy).await?;
    if !identity.is_setup_link(&link).await.map_err(|error| Some(links::refused(error.into()).code()))? {
        return Err(None);
    }
    Ok(filled(policy, StatusCode::OK, text, None, &form))
}

/// What the form sends: makes the administrator.
pub(crate) async fn make(policy: &Policy, body: &[u8], origin: &Origin) -> Result<Shown, Not> {
    let form = Form::parse(body).map_err(|refusal| Some(refusal.code()))?;
    let (link, text) = good(&form)?;
    let identity = identity(policy).await?;
    let new = NewUser {
        name: form.get("username").unwrap_or_default(),
        email: form.get("email"),
        password: form.secret("password").map_or("", |secret| secret.expose()),
    };
    let error = match identity.set_up(&link, new, origin).await {
        Ok(account) => {
            event::ACCOUNT
                .line(&policy.env().log)
                .str("what", "made by the setup link, with the role `admin`")
                .str("user", &account.id.to_string())
                .str("by", "")
                .show("client", origin.address)
                .str("request_id", RequestId::new(policy.clock().now()).as_str());
            let text = format!("{} is an administrator now and can log in. The link is used up.", account.name);
            let page = page::Message { frame: frame(), title: "The administrator is made", text: &text, link: None };
            return Ok(Shown { status: StatusCode::CREATED, html: page::render(&page) });
        }
        Err(LinkError::NotValid) => return Err(None),
        Err(error) => links::refused(error),
    };
    if !pages::is_for_the_page(&error) {
        return Err(Some(error.code()));
    }
    Ok(filled(policy, error.code().status, text, Some(error.sentence()), &form))
}

/// Whoever opens the link may be the first who asks: the command that printed it opened the database for itself.
async fn identity(policy: &Policy) -> Result<&palisade_identity::Identity, Not> {
    let auth = policy.controls().auth.control.as_ref().ok_or(None)?;
    let ready = auth.open(policy).await.map_err(|refusal| Some(refusal.code()))?;
    Ok(&ready.identity)
}

fn good(form: &Form) -> Result<(SetupLink, &str), Not> {
    let text = form.get("link").ok_or(None)?;
    Ok((SetupLink::parse(text).ok_or(None)?, text))
}

fn frame() -> page::Frame<'static> {
    page::Frame { service: "Palisade", base: PATH }
}

fn filled(policy: &Policy, status: StatusCode, link: &str, error: Option<&str>, form: &Form) -> Shown {
    let page = page::Setup {
        frame: frame(),
        link,
        error,
        username: form.get("username").unwrap_or_default(),
        email: form.get("email").unwrap_or_default(),
        min_length: policy.config().password.min_length,
    };
    Shown { status, html: page::render(&page) }
}
