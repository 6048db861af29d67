//! What follows from a login without a browser's session: an access token and a family of refresh tokens.

use palisade_base::Timestamp;
use palisade_store::{Tx, Uuid, changes, families};

use super::accounts::{Account, UserId, load};
use super::caller::NotValid;
use super::error::Trouble;
use super::login::{Origin, PasswordChecked};
use super::sessions::MAX_FAMILIES;
use super::tokens::{AccessToken, NewToken};
use super::{Identity, joined, split};
use crate::refresh::{self, Binding, CannotRefresh, End, Family, Outcome, Place, RefreshToken, Replay};

/// How often a refresh is tried anew because somebody was faster. Each time somebody got on.
const TRIES: usize = 200;

/// What a grant is for.
#[derive(Debug, Clone, Default)]
pub struct NewGrant {
    /// The client that gets it; `None`: a password login.
    pub client: Option<String>,
    /// Whether that client proves who it is.
    pub confidential: bool,
    /// What it is limited to.
    pub scopes: Vec<String>,
    /// Whom its tokens are for; empty: the API.
    pub audience: Vec<String>,
}

/// What a request for tokens asks for, within what was granted.
#[derive(Debug, Clone, Default)]
pub struct TokenRequest {
    /// `scope`; empty: all that was granted.
    pub scopes: Vec<String>,
    /// `resource` (RFC 8707), each; empty: all whom it was granted for.
    pub resources: Vec<String>,
}

/// The answer of the token endpoint.
#[derive(Debug)]
pub struct Tokens {
    /// The access token.
    pub access: AccessToken,
    /// The refresh token.
    pub refresh: RefreshToken,
    /// What they are limited to.
    pub scopes: Vec<String>,
    /// Whose they are.
    pub user: UserId,
    /// The family, which can be ended like a session.
    pub grant: Uuid,
}

/// Why there are no tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// `invalid_grant`: unknown, over, or of an account that is not enabled.
    #[error("the grant is not valid: {0}")]
    NotValid(#[from] NotValid),
    /// `invalid_grant`, and a security event: a token came that should not have, and its family has ended.
    #[error("a spent refresh token was presented: {how:?}")]
    Replayed {
        /// How it came.
        how: Replay,
        /// Whose.
        user: UserId,
        /// The family.
        grant: Uuid,
    },
    /// `invalid_scope`: one that was not granted (RFC 6749 section 6).
    #[error("a scope that was not granted")]
    Scope,
    /// `invalid_target`: a resource that it was not granted for (RFC 8707 section 2.2).
    #[error("a resource that was not granted")]
    Target,
    /// It could not be decided.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl From<palisade_store::Error> for GrantError {
    fn from(error: palisade_store::Error) -> Self {
        Self::Trouble(error.into())
    }
}

impl From<CannotRefresh> for GrantError {
    fn from(error: CannotRefresh) -> Self {
        Self::Trouble(error.into())
    }
}

impl Origin {
    /// What a request has to have in common with the one before to be taken for the same client's.
    pub(super) fn place(&self) -> Place {
        Place::new(self.address, &self.agent)
    }
}

impl Identity {
    /// The tokens of a password login.
    ///
    /// # Errors
    /// [`GrantError`].
    pub async fn grant(&self, checked: &PasswordChecked, new: NewGrant, origin: &Origin) -> Result<Tokens, GrantError> {
        let tx = self.store().begin().await?;
        let account = load(&tx, checked.account.id.0).await?.filter(Account::is_enabled).ok_or(NotValid::Disabled)?;
        if account.password_at != checked.account.password_at {
            return Err(NotValid::Revoked.into());
        }
        let tokens = self.grant_in(&tx, &account, new, self.now(), origin).await?;
        self.apply(tx.commit().await?);
        Ok(tokens)
    }

    pub(super) async fn grant_in(
        &self,
        tx: &Tx,
        account: &Account,
        new: NewGrant,
        authenticated_at: Timestamp,
        origin: &Origin,
    ) -> Result<Tokens, GrantError> {
        let now = self.now();
        let lives = self.settings().lifetimes;
        let NewGrant { client, confidential, scopes, audience } = new;
        let binding = Binding { client: client.clone().unwrap_or_default(), confidential, dpop: None };
        let lifetimes = refresh::Lifetimes { idle: lives.refresh_idle, absolute: lives.refresh_absolute };
        let (family, token) = Family::start(binding, lifetimes, now)?;
        let id = Uuid::from_bytes(family.id());
        let row = families::Model {
            id,
            user: account.id.0,
            client: client.clone().unwrap_or_default(),
            scope: joined(&scopes),
            audience: joined(&audience),
            version: version(&family),
            record: family.to_bytes(),
            authenticated_at: authenticated_at.0,
            created_at: now.0,
            seen_at: now.0,
            ends_at: family.forget_at().0,
            ended_at: None,
            address: origin.address.to_canonical().to_string(),
            device: origin.shown_agent(),
        };
        for old in families::of_user_from(tx, account.id.0, MAX_FAMILIES - 1, 50).await? {
            self.end_family_in(tx, old, None, End::Logout, now).await?;
        }
        families::insert(tx, row).await?;
        let access = self.issue_token(&NewToken {
            account: Some(account),
            client: client.as_deref(),
            grant: Some(id),
            scopes: &scopes,
            audience: &audience,
            authenticated_at: Some(authenticated_at),
        })?;
        Ok(Tokens { access, refresh: token, scopes, user: account.id, grant: id })
    }

    /// Whom a token is for, of those whom it may be for (none: the API) and those that are asked for.
    pub fn target(&self, granted: &[String], asked: &[String]) -> Option<Vec<String>> {
        if asked.is_empty() {
            return Some(granted.to_vec());
        }
        let granted = if granted.is_empty() { &self.settings().audience } else { granted };
        asked.iter().all(|one| granted.contains(one)).then(|| asked.to_vec())
    }

    /// The next tokens for a refresh token. The access token may be asked for less than was granted; the refresh token
    /// stays good for all of it. `client` is the one that asks, once it proved who it is if it can
    /// (`confidential`); `None`: none, as after a password login.
    ///
    /// Of any number of simultaneous calls with one token one rotates, and the others get the same successor.
    ///
    /// Cancel safety: whatever happened is stored; a lost answer is what the time of grace is for.
    ///
    /// # Errors
    /// [`GrantError`].
    pub async fn refresh(
        &self,
        token: &RefreshToken,
        client: Option<&str>,
        confidential: bool,
        request: &TokenRequest,
        origin: &Origin,
    ) -> Result<Tokens, GrantError> {
        let id = Uuid::from_bytes(token.family());
        let binding = Binding { client: client.unwrap_or_default().to_owned(), confidential, dpop: None };
        for _ in 0..TRIES {
            let now = self.now();
            let tx = self.store().begin().await?;
            let row = families::lock(&tx, id).await?.ok_or(NotValid::Unknown)?;
            let family = Family::from_bytes(&row.record).ok_or(Trouble::Damaged("refresh family"))?;
            let user = UserId(row.user);
            match family.present(token, &binding, origin.place(), now)? {
                Outcome::Unknown => return Err(NotValid::Unknown.into()),
                Outcome::Expired => return Err(NotValid::Expired.into()),
                Outcome::Replayed { family: None, how } => return Err(GrantError::Replayed { how, user, grant: id }),
                Outcome::Replayed { family: Some(ended), how } => {
                    if !self.store_family(&tx, &row, &ended, now).await? {
                        continue;
                    }
                    tx.announce(self.ended(id, now));
                    self.apply(tx.commit().await?);
                    return Err(GrantError::Replayed { how, user, grant: id });
                }
                Outcome::Refreshed { family: next, token, again: _ } => {
                    let account = load(&tx, row.user).await?.filter(Account::is_enabled).ok_or(NotValid::Disabled)?;
                    let scopes = narrower(split(&row.scope), &request.scopes, client).ok_or(GrantError::Scope)?;
                    let audience = self.target(&split(&row.audience), &request.resources).ok_or(GrantError::Target)?;
                    if !self.store_family(&tx, &row, &next, now).await? {
                        continue;
                    }
                    self.apply(tx.commit().await?);
                    let access = self.issue_token(&NewToken {
                        account: Some(&account),
                        client,
                        grant: Some(id),
                        scopes: &scopes,
                        audience: &audience,
                        authenticated_at: Some(Timestamp(row.authenticated_at)),
                    })?;
                    return Ok(Tokens { access, refresh: token, scopes, user, grant: id });
                }
            }
        }
        Err(Trouble::Store(palisade_store::Error::Away("others were faster, again and again".into())).into())
    }

    async fn store_family(
        &self,
        tx: &Tx,
        row: &families::Model,
        next: &Family,
        now: Timestamp,
    ) -> Result<bool, Trouble> {
        let ended_at = next.ended().map(|_| row.ended_at.unwrap_or(now.0));
        Ok(families::swap(tx, row.id, row.version, version(next), next.to_bytes(), now.0, ended_at).await?)
    }

    /// Revokes the family of a refresh token (RFC 7009), with its access tokens. The token has to be genuine: one that
    /// this family issued. `client` as in [`refresh`](Self::refresh): a token that a client obtained is revoked by that
    /// client; one that no client obtained, by whoever holds it. `false`: nothing was revoked.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn revoke_refresh(&self, token: &RefreshToken, client: Option<&str>) -> Result<bool, Trouble> {
        let id = Uuid::from_bytes(token.family());
        let now = self.now();
        let tx = self.store().begin().await?;
        let Some(row) = families::lock(&tx, id).await? else { return Ok(false) };
        let family = Family::from_bytes(&row.record).ok_or(Trouble::Damaged("refresh family"))?;
        if !family.issued(token) || (!row.client.is_empty() && client != Some(row.client.as_str())) {
            return Ok(false);
        }
        let ended = self.end_family_in(&tx, id, None, End::Logout, now).await?;
        self.apply(tx.commit().await?);
        Ok(ended)
    }

    /// Ends a family. `user`: only if it is this account's.
    pub(super) async fn end_family_in(
        &self,
        tx: &Tx,
        id: Uuid,
        user: Option<UserId>,
        why: End,
        now: Timestamp,
    ) -> Result<bool, Trouble> {
        let Some(row) = families::lock(tx, id).await? else { return Ok(false) };
        if row.ended_at.is_some() || user.is_some_and(|user| user.0 != row.user) {
            return Ok(false);
        }
        let mut family = Family::from_bytes(&row.record).ok_or(Trouble::Damaged("refresh family"))?;
        family.end(why);
        // The row is locked, so its version is the one that was read.
        let ended =
            families::swap(tx, id, row.version, version(&family), family.to_bytes(), row.seen_at, Some(now.0)).await?;
        if ended {
            tx.announce(changes::New { ..self.ended(id, now) });
        }
        Ok(ended)
    }
}

/// The scopes of those that are asked for. A login without a client and without scopes was granted all that its user may.
fn narrower(granted: Vec<String>, asked: &[String], client: Option<&str>) -> Option<Vec<String>> {
    match asked {
        [] => Some(granted),
        asked if granted.is_empty() && client.is_none() => Some(asked.to_vec()),
        asked => asked.iter().all(|scope| granted.contains(scope)).then(|| asked.to_vec()),
    }
}

fn version(family: &Family) -> i64 {
    i64::try_from(family.version()).unwrap_or(i64::MAX)
}
