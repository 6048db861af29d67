//! The pages: templates of the folder `templates/auth`, which escape everything that is put in.

use askama::Template;

/// What every page has.
pub(crate) struct Frame<'a> {
    /// What the service is called.
    pub(crate) service: &'a str,
    /// The path of the endpoints.
    pub(crate) base: &'a str,
}

/// Renders a page. Templates without loops over fallible things cannot fail.
pub(crate) fn render(page: &impl Template) -> String {
    page.render().unwrap_or_default()
}

#[derive(Template)]
#[template(path = "auth/login.html")]
pub(crate) struct Login<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) client: Option<&'a str>,
    pub(crate) error: Option<&'a str>,
    pub(crate) notice: Option<&'a str>,
    pub(crate) return_to: &'a str,
    pub(crate) username: &'a str,
    pub(crate) registration: bool,
    pub(crate) sends_mail: bool,
}

#[derive(Template)]
#[template(path = "auth/register.html")]
pub(crate) struct Register<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) error: Option<&'a str>,
    pub(crate) username: &'a str,
    pub(crate) email: &'a str,
    pub(crate) min_length: u16,
}

#[derive(Template)]
#[template(path = "auth/setup.html")]
pub(crate) struct Setup<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) link: &'a str,
    pub(crate) error: Option<&'a str>,
    pub(crate) username: &'a str,
    pub(crate) email: &'a str,
    pub(crate) min_length: u16,
}

#[derive(Template)]
#[template(path = "auth/consent.html")]
pub(crate) struct Consent<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) client: &'a str,
    pub(crate) user: &'a str,
    pub(crate) scopes: &'a [String],
    pub(crate) destination: &'a str,
    pub(crate) csrf_token: &'a str,
    pub(crate) request: &'a str,
}

#[derive(Template)]
#[template(path = "auth/message.html")]
pub(crate) struct Message<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) title: &'a str,
    pub(crate) text: &'a str,
    pub(crate) link: Option<(&'a str, &'a str)>,
}

#[derive(Template)]
#[template(path = "auth/confirm.html")]
pub(crate) struct Confirm<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) title: &'a str,
    pub(crate) text: &'a str,
    pub(crate) action: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) csrf_token: Option<&'a str>,
    pub(crate) button: &'a str,
}

#[derive(Template)]
#[template(path = "auth/reset.html")]
pub(crate) struct Reset<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) error: Option<&'a str>,
    pub(crate) token: Option<&'a str>,
    pub(crate) min_length: u16,
}

/// The user as the account page shows them.
pub(crate) struct AccountUser {
    pub(crate) name: String,
    pub(crate) email: Option<String>,
    pub(crate) email_verified: bool,
    pub(crate) roles: String,
}

/// A session as the account page shows it.
pub(crate) struct AccountSession {
    pub(crate) id: String,
    pub(crate) device: String,
    pub(crate) address: String,
    pub(crate) last_seen: String,
    pub(crate) current: bool,
}

/// A key as the account page shows it.
pub(crate) struct AccountKey {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) scopes: String,
    pub(crate) expires_at: String,
}

/// What a user allowed an application, as the account page shows it.
pub(crate) struct AccountConsent {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) scopes: String,
    pub(crate) since: String,
}

#[derive(Template)]
#[template(path = "auth/account.html")]
pub(crate) struct Account<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) notice: Option<&'a str>,
    pub(crate) error: Option<&'a str>,
    pub(crate) new_key: Option<&'a str>,
    pub(crate) sends_mail: bool,
    pub(crate) user: AccountUser,
    pub(crate) sessions: Vec<AccountSession>,
    pub(crate) keys: Vec<AccountKey>,
    pub(crate) consents: Vec<AccountConsent>,
    pub(crate) csrf_token: &'a str,
}

/// Calls of one subject.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) calls: Vec<Described>,
}

/// A call as the page of the documentation shows it.
pub(crate) struct Described {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) summary: String,
    pub(crate) description: String,
    pub(crate) fields: Vec<String>,
    pub(crate) answers: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "auth/docs.html")]
pub(crate) struct Docs<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) groups: Vec<Group>,
}
