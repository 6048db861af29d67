//! The authorization code grant: what a client asks for, what its user allows, the code, and what the code gives.
//!
//! Sources: RFC 6749 section 4.1, RFC 7636 (PKCE, S256 only and of every client), RFC 8707 (resources), RFC 9700.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use data_encoding::BASE64URL_NOPAD;
use palisade_base::Timestamp;
use palisade_store::{codes, consents, families};

use super::accounts::{Account, UserId, load};
use super::caller::NotValid;
use super::clients::{Client, GrantKind};
use super::error::Trouble;
use super::grants::{GrantError, NewGrant, Tokens};
use super::login::Origin;
use super::tokens::{AccessToken, NewToken};
use super::{Identity, joined, split};
use crate::opaque::Code;
use crate::refresh::{End, Replay};

/// How long a code lives.
const CODE_LIFE: Duration = Duration::from_secs(60);
/// How long a used code is known again.
const CODE_KEPT_MS: i64 = 24 * 3_600_000;
/// Characters of a nonce.
const MAX_NONCE: usize = 500;

/// The parameters of a request to `authorize`, each at most once, as they came.
#[derive(Debug, Clone, Default)]
pub struct AskToAuthorize<'a> {
    /// `client_id`.
    pub client: Option<&'a str>,
    /// `redirect_uri`.
    pub redirect: Option<&'a str>,
    /// `response_type`.
    pub response: Option<&'a str>,
    /// `scope`.
    pub scope: Option<&'a str>,
    /// `resource`, which may come several times.
    pub resources: Vec<&'a str>,
    /// `code_challenge`.
    pub challenge: Option<&'a str>,
    /// `code_challenge_method`.
    pub challenge_method: Option<&'a str>,
    /// `nonce`.
    pub nonce: Option<&'a str>,
}

/// A request that may be shown to a user.
#[derive(Debug, Clone)]
pub struct Authorization {
    /// Who asks.
    pub client: Arc<Client>,
    /// Where the answer goes.
    pub redirect: String,
    /// What it asks for.
    pub scopes: Vec<String>,
    audience: Vec<String>,
    challenge: [u8; 32],
    nonce: Option<String>,
}

/// Why a request to `authorize` goes no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthorized {
    /// Shown to the user, who is not sent anywhere: it is not certain who asks or where the answer would go.
    #[error("{0}")]
    Page(&'static str),
    /// Sent back to the client.
    #[error("{error}: {description}")]
    Redirect {
        /// Where to, which is registered.
        redirect: String,
        /// `error` of RFC 6749 section 4.1.2.1.
        error: &'static str,
        /// `error_description`.
        description: &'static str,
    },
    /// It could not be decided.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

/// What a user allowed a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// The client's id.
    pub client: String,
    /// What was allowed.
    pub scopes: Vec<String>,
    /// When.
    pub at: Timestamp,
}

impl Identity {
    /// Judges a request to `authorize`, before anybody logs in.
    ///
    /// # Errors
    /// [`NotAuthorized`].
    pub async fn check_authorize(&self, ask: &AskToAuthorize<'_>) -> Result<Authorization, NotAuthorized> {
        use NotAuthorized::Page;
        let id = ask.client.ok_or(Page("the request names no client"))?;
        let client = self.client(id).await?.ok_or(Page("the client is not registered"))?;
        let redirect = match (ask.redirect, client.redirects.as_slice()) {
            (Some(uri), _) if client.may_return_to(uri) => uri.to_owned(),
            (Some(_), _) => return Err(Page("the redirect URI is not registered for this client")),
            (None, [only]) => only.clone(),
            (None, _) => return Err(Page("the request names no redirect URI")),
        };
        let back = |error, description| Err(NotAuthorized::Redirect { redirect: redirect.clone(), error, description });
        if !client.may(GrantKind::AuthorizationCode) {
            return back("unauthorized_client", "the client may not use authorization codes");
        }
        if ask.response != Some("code") {
            return back("unsupported_response_type", "the one response type is `code`");
        }
        // Without a method, `plain` would be meant.
        if ask.challenge_method != Some("S256") {
            return back("invalid_request", "`code_challenge_method` has to be `S256`");
        }
        let Some(challenge) = ask.challenge.and_then(challenge) else {
            return back("invalid_request", "`code_challenge` has to be 43 characters of base64url");
        };
        let odd = |nonce: &str| nonce.is_empty() || nonce.len() > MAX_NONCE || nonce.chars().any(char::is_control);
        if ask.nonce.is_some_and(odd) {
            return back("invalid_request", "`nonce` has 1 to 500 characters, without controls");
        }
        let asked: Vec<String> = ask.scope.map(split).unwrap_or_default();
        let Some(scopes) = client.grantable(&asked) else {
            return back("invalid_scope", "the client may not ask for one of these scopes");
        };
        let resources: Vec<String> = ask.resources.iter().map(|resource| (*resource).to_owned()).collect();
        let Some(audience) = self.target(&client.audience, &resources) else {
            return back("invalid_target", "the client may not ask for tokens for one of these resources");
        };
        Ok(Authorization { client, redirect, scopes, audience, challenge, nonce: ask.nonce.map(Into::into) })
    }

    /// Whether the user has to be asked first.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn needs_consent(&self, user: UserId, what: &Authorization) -> Result<bool, Trouble> {
        if what.client.trusted {
            return Ok(false);
        }
        let Some(known) = consents::find(self.store(), user.0, &what.client.id).await? else { return Ok(true) };
        let known = split(&known.scope);
        Ok(!what.scopes.iter().all(|scope| known.contains(scope)))
    }

    /// The user allows it: the code for the client. What was allowed before stays allowed.
    ///
    /// `authenticated_at`: when the user proved who they are, from the session.
    ///
    /// # Errors
    /// [`GrantError`].
    pub async fn allow(
        &self,
        user: UserId,
        authenticated_at: Timestamp,
        what: &Authorization,
    ) -> Result<Code, GrantError> {
        let now = self.now();
        let code = Code::generate().map_err(Trouble::from)?;
        let tx = self.store().begin().await?;
        load(&tx, user.0).await?.filter(Account::is_enabled).ok_or(NotValid::Disabled)?;
        if !what.client.trusted {
            let known = consents::find(&tx, user.0, &what.client.id).await?;
            let mut scopes = known.map(|known| split(&known.scope)).unwrap_or_default();
            scopes.extend(what.scopes.iter().cloned());
            scopes.sort_unstable();
            scopes.dedup();
            let client = what.client.id.clone();
            consents::set(&tx, consents::Model { user: user.0, client, scope: joined(&scopes), at: now.0 }).await?;
        }
        let row = codes::Model {
            hash: code.stored().as_bytes().to_vec(),
            client: what.client.id.clone(),
            user: user.0,
            redirect: what.redirect.clone(),
            scope: joined(&what.scopes),
            audience: joined(&what.audience),
            challenge: what.challenge.to_vec(),
            nonce: what.nonce.clone(),
            authenticated_at: authenticated_at.0,
            expires_at: now.plus(CODE_LIFE).0,
            used_at: None,
            family: None,
        };
        codes::insert(&tx, row).await?;
        self.apply(tx.commit().await?);
        Ok(code)
    }

    /// What a code gives, once: for these resources, where it was given for more (RFC 8707 section 2.2). The client is one
    /// that [was recognised](Self::authenticate_client). A second use ends what the first one gave.
    ///
    /// # Errors
    /// [`GrantError`].
    pub async fn redeem_code(
        &self,
        code: &Code,
        client: &Client,
        redirect: Option<&str>,
        verifier: &str,
        resources: &[String],
        origin: &Origin,
    ) -> Result<Tokens, GrantError> {
        let now = self.now();
        let hash = *code.stored().as_bytes();
        let tx = self.store().begin().await?;
        let row = codes::lock(&tx, &hash).await?.ok_or(NotValid::Unknown)?;
        if row.client != client.id {
            // Not used up: the client whose code it is may still come.
            return Err(NotValid::Unknown.into());
        }
        if row.used_at.is_some() {
            // RFC 6749 section 4.1.2: whoever comes second, one of the two is a thief.
            let user = UserId(row.user);
            if let Some(family) = row.family {
                self.end_family_in(&tx, family, None, End::Replay(Replay::Spent), now).await?;
                self.apply(tx.commit().await?);
                return Err(GrantError::Replayed { how: Replay::Spent, user, grant: family });
            }
            return Err(NotValid::Revoked.into());
        }
        // From here on the code is used up, whatever comes: a verifier is guessed once.
        let verdict = judge_code(&row, redirect, verifier, now);
        // Whoever changed the password meanwhile did not mean this login.
        let made_at = row.expires_at.saturating_sub(i64::try_from(CODE_LIFE.as_millis()).unwrap_or(i64::MAX));
        let goes_on = |account: &Account| account.is_enabled() && made_at > account.tokens_from;
        let account = load(&tx, row.user).await?.filter(goes_on);
        let account = match (verdict, account) {
            (Ok(()), Some(account)) => account,
            (verdict, account) => {
                codes::used(&tx, &hash, now.0, None).await?;
                self.apply(tx.commit().await?);
                return Err(verdict
                    .err()
                    .or(account.is_none().then_some(NotValid::Disabled))
                    .unwrap_or(NotValid::Unknown)
                    .into());
            }
        };
        // Nothing was tried on the code: it stays good.
        let audience = self.target(&split(&row.audience), resources).ok_or(GrantError::Target)?;
        let new = NewGrant {
            client: Some(client.id.clone()),
            confidential: client.is_confidential(),
            scopes: split(&row.scope),
            audience,
        };
        let tokens = self.grant_in(&tx, &account, new, Timestamp(row.authenticated_at), origin).await?;
        if !codes::used(&tx, &hash, now.0, Some(tokens.grant)).await? {
            return Err(NotValid::Revoked.into());
        }
        self.apply(tx.commit().await?);
        Ok(tokens)
    }

    /// A client's token for itself (`client_credentials`), without a refresh token.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn client_token(
        &self,
        client: &Client,
        scopes: &[String],
        audience: &[String],
    ) -> Result<AccessToken, Trouble> {
        self.issue_token(&NewToken {
            account: None,
            client: Some(&client.id),
            grant: None,
            scopes,
            audience,
            authenticated_at: None,
        })
    }

    /// What an account allowed to whom.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn consents_of(&self, user: UserId) -> Result<Vec<Consent>, Trouble> {
        let rows = consents::of_user(self.store(), user.0).await?;
        let consent =
            |row: consents::Model| Consent { client: row.client, scopes: split(&row.scope), at: Timestamp(row.at) };
        Ok(rows.into_iter().map(consent).collect())
    }

    /// Takes a consent back, and ends all that the client has of the account. `false`: there was none.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn revoke_consent(&self, user: UserId, client: &str) -> Result<bool, Trouble> {
        // Logins without a client have no name, and are nobody's consent.
        if client.is_empty() {
            return Ok(false);
        }
        let now = self.now();
        let tx = self.store().begin().await?;
        let gone = consents::delete(&tx, user.0, client).await?;
        codes::withdraw(&tx, user.0, Some(client)).await?;
        self.end_families_in(&tx, families::Of::Both(user.0, client), None, End::Logout, now).await?;
        self.apply(tx.commit().await?);
        Ok(gone)
    }

    pub(super) async fn sweep_codes(&self, tx: &palisade_store::Tx, now: i64) -> Result<(), Trouble> {
        codes::sweep(tx, now - CODE_KEPT_MS).await?;
        Ok(())
    }
}

fn challenge(text: &str) -> Option<[u8; 32]> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.as_slice().try_into().ok()
}

/// RFC 7636 section 4.1.
fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
}

fn judge_code(row: &codes::Model, redirect: Option<&str>, verifier: &str, now: Timestamp) -> Result<(), NotValid> {
    if now.0 >= row.expires_at {
        return Err(NotValid::Expired);
    }
    // OAuth 2.1 needs no redirect URI here, for PKCE binds the code; one that comes has to be the same.
    if redirect.is_some_and(|redirect| redirect != row.redirect) {
        return Err(NotValid::Malformed);
    }
    let computed = digest::digest(&digest::SHA256, verifier.as_bytes());
    let right = constant_time::verify_slices_are_equal(computed.as_ref(), &row.challenge).is_ok();
    if is_verifier(verifier) && right { Ok(()) } else { Err(NotValid::Malformed) }
}
