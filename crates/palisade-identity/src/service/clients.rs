//! Clients of OAuth: registered, recognised, revoked.
//!
//! Sources: RFC 6749 section 2, RFC 7523 (`private_key_jwt`), RFC 8252 (native applications), RFC 9700.

use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use palisade_base::{Secret, Timestamp};
use palisade_store::{Error as StoreError, clients, families};

use super::error::Trouble;
use super::keys::is_scope;
use super::{Identity, joined, split};
use crate::opaque::{ClientSecret, Stored, hash, random};
use crate::refresh::End;
use crate::token::{Keys, Rules};

/// Characters of a client's name, redirects and scopes of one client.
const MAX_NAME: usize = 100;
const MAX_LIST: usize = 50;
/// The longest redirect URI, in bytes.
const MAX_REDIRECT: usize = 2000;
/// How long a client's assertion may live.
const ASSERTION_MS: i64 = 3_600_000;

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Not at all: an application in a browser or on a phone.
    Public,
    /// Its secret in the header `Authorization`.
    Basic,
    /// Its secret in the form.
    Post,
    /// A token that it signs itself.
    PrivateKey,
}

impl Method {
    /// As RFC 8414 names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "none",
            Self::Basic => "client_secret_basic",
            Self::Post => "client_secret_post",
            Self::PrivateKey => "private_key_jwt",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Public, Self::Basic, Self::Post, Self::PrivateKey].into_iter().find(|method| method.name() == name)
    }
}

/// A grant that a client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantKind {
    /// A code that a browser brings back. With PKCE, always.
    AuthorizationCode,
    /// For itself, without a user.
    ClientCredentials,
    /// The next token for the one before.
    RefreshToken,
    /// The password of a user, typed into the client: only for the operator's own.
    Password,
}

impl GrantKind {
    /// As RFC 6749 names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::ClientCredentials => "client_credentials",
            Self::RefreshToken => "refresh_token",
            Self::Password => "password",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::AuthorizationCode, Self::ClientCredentials, Self::RefreshToken, Self::Password];
        all.into_iter().find(|grant| grant.name() == name)
    }
}

/// A client that is to be registered.
#[derive(Debug, Clone)]
pub struct NewClient {
    /// What people call it, as the consent page shows it.
    pub name: String,
    /// How it proves who it is.
    pub method: Method,
    /// Its public keys, as a JWK set, for [`Method::PrivateKey`].
    pub jwks: Option<String>,
    /// Where it may be sent back to.
    pub redirects: Vec<String>,
    /// The grants that it may use.
    pub grants: Vec<GrantKind>,
    /// What it may ask for.
    pub scopes: Vec<String>,
    /// Whom its tokens may be for; empty: the API.
    pub audience: Vec<String>,
    /// Whether it is the operator's own: its users are not asked for consent.
    pub trusted: bool,
}

/// A client as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// How it proves who it is.
    pub method: Method,
    /// Where it may be sent back to.
    pub redirects: Vec<String>,
    /// The grants that it may use.
    pub grants: Vec<GrantKind>,
    /// What it may ask for.
    pub scopes: Vec<String>,
    /// Whom its tokens may be for; empty: the API.
    pub audience: Vec<String>,
    /// Whether its users are not asked for consent.
    pub trusted: bool,
    /// When it was made.
    pub created_at: Timestamp,
    secret: Option<[u8; 32]>,
    jwks: Option<String>,
}

/// Why a client was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Too long, empty, or with control characters.
    #[error("a client has a name of 1 to {MAX_NAME} characters, without controls")]
    Name,
    /// Not one that a browser may be sent to.
    #[error(
        "`{0}` cannot be a redirect URI: it is `https:`, `http:` to this machine, or an application's own scheme with a dot, without fragment, user or `..`"
    )]
    Redirect(String),
    /// Nowhere to be sent to.
    #[error("the grant `authorization_code` needs at least one redirect URI")]
    NoRedirect,
    /// Not what RFC 6749 section 3.3 allows, or too many.
    #[error("scopes are at most {MAX_LIST} words of visible ASCII, without quotes and backslashes")]
    Scopes,
    /// A list that is too long or holds something odd.
    #[error("a client has at most {MAX_LIST} redirect URIs, and an audience of URIs without spaces")]
    List,
    /// `client_credentials` of a client that cannot prove who it is.
    #[error("the grant `client_credentials` needs a client that proves who it is")]
    PublicForItself,
    /// `private_key_jwt` without keys, or keys that cannot be read.
    #[error("`private_key_jwt` needs a JWK set of public keys: {0}")]
    Keys(String),
    /// The database, or the machine.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl From<StoreError> for ClientError {
    fn from(error: StoreError) -> Self {
        Self::Trouble(error.into())
    }
}

/// What a client shows.
#[derive(Debug, Clone, Copy)]
pub enum Proof<'a> {
    /// Its id only.
    None,
    /// A secret in the header `Authorization`.
    Basic(&'a str),
    /// A secret in the form.
    Post(&'a str),
    /// A token that it signed (`client_assertion`).
    Assertion(&'a str),
}

/// Why a client was not recognised: `invalid_client`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotClient {
    /// Nobody of that id, or revoked.
    #[error("unknown client")]
    Unknown,
    /// It proves who it is in another way.
    #[error("the client proves who it is in another way")]
    Method,
    /// A wrong secret or signature, an assertion that is over or came before.
    #[error("the client's proof is wrong")]
    Proof,
    /// It could not be checked.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl From<StoreError> for NotClient {
    fn from(error: StoreError) -> Self {
        Self::Trouble(error.into())
    }
}

impl Client {
    /// Whether it proves who it is.
    pub fn is_confidential(&self) -> bool {
        self.method != Method::Public
    }

    /// Whether it may use a grant.
    pub fn may(&self, grant: GrantKind) -> bool {
        self.grants.contains(&grant)
    }

    /// Whether it may be sent back there. Compared as bytes (RFC 9700 section 2.1); of a loopback address with any port
    /// (RFC 8252 section 7.3), for an application on a desktop cannot know which one will be free.
    pub fn may_return_to(&self, uri: &str) -> bool {
        self.redirects
            .iter()
            .any(|known| known == uri || without_port(known).is_some_and(|known| Some(known) == without_port(uri)))
    }

    /// The scopes it gets of those it asks for: all that it may where it asks for none. `None`: it asks for more.
    pub fn grantable(&self, asked: &[String]) -> Option<Vec<String>> {
        if asked.is_empty() {
            return Some(self.scopes.clone());
        }
        asked.iter().all(|scope| self.scopes.contains(scope)).then(|| asked.to_vec())
    }

    fn of(row: clients::Model) -> Result<Self, Trouble> {
        let damaged = || Trouble::Damaged("client");
        let secret = row.secret.map(|bytes| <[u8; 32]>::try_from(bytes.as_slice())).transpose();
        Ok(Self {
            id: row.id,
            name: row.name,
            method: Method::named(&row.method).ok_or_else(damaged)?,
            redirects: row.redirects.lines().map(Into::into).collect(),
            grants: row.grants.split_whitespace().filter_map(GrantKind::named).collect(),
            scopes: split(&row.scopes),
            audience: split(&row.audience),
            trusted: row.trusted,
            created_at: Timestamp(row.created_at),
            secret: secret.map_err(|_| damaged())?,
            jwks: row.jwks,
        })
    }
}

impl NewClient {
    fn check(&self) -> Result<(), ClientError> {
        let length = self.name.chars().count();
        if !(1..=MAX_NAME).contains(&length) || self.name.chars().any(char::is_control) || self.name.trim().is_empty() {
            return Err(ClientError::Name);
        }
        if self.redirects.len() > MAX_LIST || self.audience.len() > MAX_LIST {
            return Err(ClientError::List);
        }
        let plain = |uri: &String| (1..=MAX_REDIRECT).contains(&uri.len()) && uri.bytes().all(|b| b.is_ascii_graphic());
        if !self.audience.iter().all(plain) {
            return Err(ClientError::List);
        }
        if let Some(bad) = self.redirects.iter().find(|uri| !is_redirect(uri)) {
            return Err(ClientError::Redirect(bad.clone()));
        }
        if self.grants.contains(&GrantKind::AuthorizationCode) && self.redirects.is_empty() {
            return Err(ClientError::NoRedirect);
        }
        if self.scopes.len() > MAX_LIST || !self.scopes.iter().all(|scope| is_scope(scope)) {
            return Err(ClientError::Scopes);
        }
        if self.grants.contains(&GrantKind::ClientCredentials) && self.method == Method::Public {
            return Err(ClientError::PublicForItself);
        }
        match (&self.jwks, self.method) {
            (Some(set), Method::PrivateKey) => {
                let (keys, left_out) =
                    Keys::from_jwk_set(set.as_bytes(), None).map_err(|why| ClientError::Keys(why.to_string()))?;
                match (keys.iter().next(), left_out.first()) {
                    (Some(key), _) if key.algorithm().is_symmetric() => {
                        Err(ClientError::Keys("a shared secret".into()))
                    }
                    (Some(_), _) => Ok(()),
                    (None, Some((_, why))) => Err(ClientError::Keys(why.to_string())),
                    (None, None) => Err(ClientError::Keys("there is no key in it".into())),
                }
            }
            (None, Method::PrivateKey) => Err(ClientError::Keys("there is none".into())),
            _ => Ok(()),
        }
    }
}

/// What a browser may be sent to: nothing that another reading could take elsewhere, and nothing that runs as script.
fn is_redirect(uri: &str) -> bool {
    let plain = uri.len() <= MAX_REDIRECT && uri.bytes().all(|b| b.is_ascii_graphic() && !b"\\#\"<>^`{|}".contains(&b));
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let is_name = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    // Keycloak's CVE-2026-3872: `..;/` is one path for the one and another for the next.
    let path = rest.split('?').next().unwrap_or_default().to_ascii_lowercase();
    let walks = path.split('/').any(|part| {
        matches!(part.split(';').next(), Some("." | ".."))
            || part.contains("%2e")
            || part.contains("%2f")
            || part.contains("%5c")
    });
    if !plain || !is_name || walks {
        return false;
    }
    match scheme {
        "http" | "https" => {
            let Some(rest) = rest.strip_prefix("//") else { return false };
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            !authority.is_empty() && !authority.contains('@') && (scheme == "https" || is_loopback(authority))
        }
        // RFC 8252 section 7.1: the name of a domain, reversed; `javascript:` and `data:` have no dot.
        _ => scheme.contains('.'),
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host == "127.0.0.1" || host == "::1"
}

/// A redirect to the machine's own loopback address, with the port cut out; `None` for any other.
fn without_port(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("http://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = match authority.strip_prefix("[::1]") {
        Some(port) => ("[::1]", port),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let digits = port
        .strip_prefix(':')
        .is_some_and(|port| (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit()));
    (matches!(host, "127.0.0.1" | "[::1]" | "localhost") && (port.is_empty() || digits)).then_some((host, path))
}

impl Identity {
    /// Registers a client. Its secret, where it has one, is shown once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn add_client(&self, new: NewClient) -> Result<(Arc<Client>, Option<Secret<String>>), ClientError> {
        new.check()?;
        // Never a UUID, so that no client's id is the id of a user.
        let id = format!("plc_{}", BASE32_NOPAD.encode(&random::<10>().map_err(Trouble::from)?).to_ascii_lowercase());
        let secret = match new.method {
            Method::Basic | Method::Post => Some(ClientSecret::generate().map_err(Trouble::from)?),
            Method::Public | Method::PrivateKey => None,
        };
        let grants: Vec<String> = new.grants.iter().map(|grant| grant.name().to_owned()).collect();
        let row = clients::Model {
            id,
            name: new.name,
            method: new.method.name().into(),
            secret: secret.as_ref().map(|secret| secret.stored().as_bytes().to_vec()),
            jwks: new.jwks.filter(|_| new.method == Method::PrivateKey),
            redirects: new.redirects.join("\n"),
            grants: joined(&grants),
            scopes: joined(&new.scopes),
            audience: joined(&new.audience),
            trusted: new.trusted,
            created_at: self.now().0,
            revoked_at: None,
        };
        let tx = self.store().begin().await?;
        clients::insert(&tx, row.clone()).await?;
        self.apply(tx.commit().await?);
        Ok((Arc::new(Client::of(row)?), secret.map(|secret| secret.reveal())))
    }

    /// A client that goes on, from memory. `None`: ask [`client`](Self::client).
    pub fn client_cached(&self, id: &str) -> Option<Arc<Client>> {
        self.shared.clients.get(id)
    }

    /// A client that goes on.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn client(&self, id: &str) -> Result<Option<Arc<Client>>, Trouble> {
        if let Some(client) = self.client_cached(id) {
            return Ok(Some(client));
        }
        let mark = self.shared.clients.mark();
        let row = clients::by_id(self.store(), id).await?.filter(|row| row.revoked_at.is_none());
        let Some(row) = row else { return Ok(None) };
        let client = Arc::new(Client::of(row)?);
        self.shared.clients.fill(mark, client.id.clone(), client.clone());
        Ok(Some(client))
    }

    /// The clients that go on.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn list_clients(&self) -> Result<Vec<Client>, Trouble> {
        let rows = clients::list(self.store(), 10_000).await?;
        rows.into_iter().filter(|row| row.revoked_at.is_none()).map(Client::of).collect()
    }

    /// Revokes a client: it is not recognised any more, its tokens are refused, its refresh tokens end. `false`: there is
    /// none of that id.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn revoke_client(&self, id: &str) -> Result<bool, Trouble> {
        use palisade_store::changes::{Kind, New};
        let now = self.now();
        let tx = self.store().begin().await?;
        if !clients::revoke(&tx, id, now.0).await? {
            return Ok(false);
        }
        self.end_families_in(&tx, families::Of::Client(id), None, End::Disabled, now).await?;
        tx.announce(New { kind: Kind::Client, subject: id.to_owned(), at: now.0, until: self.tokens_end(now) });
        self.apply(tx.commit().await?);
        Ok(true)
    }

    /// Recognises a client by what it shows. `endpoint`: the URL at which it asks, which an assertion may name as its
    /// audience.
    ///
    /// # Errors
    /// [`NotClient`].
    pub async fn authenticate_client(
        &self,
        id: &str,
        proof: Proof<'_>,
        endpoint: &str,
    ) -> Result<Arc<Client>, NotClient> {
        let client = self.client(id).await?.ok_or(NotClient::Unknown)?;
        let right = match (client.method, proof) {
            (Method::Public, Proof::None) => true,
            (Method::Basic, Proof::Basic(secret)) | (Method::Post, Proof::Post(secret)) => {
                let stored = client.secret.map(Stored::from_bytes).ok_or(Trouble::Damaged("client"))?;
                ClientSecret::parse(secret).is_some_and(|secret| stored.matches(&secret))
            }
            (Method::PrivateKey, Proof::Assertion(token)) => {
                return self.check_assertion(client, token, endpoint).await;
            }
            _ => return Err(NotClient::Method),
        };
        if right { Ok(client) } else { Err(NotClient::Proof) }
    }

    /// RFC 7523 section 3, with each assertion good once.
    async fn check_assertion(
        &self,
        client: Arc<Client>,
        token: &str,
        endpoint: &str,
    ) -> Result<Arc<Client>, NotClient> {
        let set = client.jwks.as_deref().ok_or(Trouble::Damaged("client"))?;
        let (keys, _) = Keys::from_jwk_set(set.as_bytes(), None).map_err(|_| Trouble::Damaged("client"))?;
        let signed = keys.verify(token).map_err(|_| NotClient::Proof)?;
        let audience = [self.settings().issuer.as_str(), endpoint];
        let kinds = ["JWT", "client-authentication+jwt"];
        let rules = Rules::external(&client.id, audience, kinds, true);
        let now = self.now();
        let claims = rules.check(&signed, now).map_err(|_| NotClient::Proof)?.claims();
        let (Some(id), Some(end)) = (claims.id.as_deref(), claims.expires_at) else { return Err(NotClient::Proof) };
        let until = end.saturating_mul(1000);
        if claims.subject.as_deref() != Some(client.id.as_str()) || until > now.0.saturating_add(ASSERTION_MS) {
            return Err(NotClient::Proof);
        }
        let once = hash("palisade client assertion v1", &[client.id.as_bytes(), id.as_bytes()]);
        let tx = self.store().begin().await?;
        // The leeway of the rules is in it.
        match clients::assert_once(&tx, &once, until.saturating_add(60_000)).await {
            Ok(()) => {}
            Err(StoreError::Conflict(_)) => return Err(NotClient::Proof),
            Err(other) => return Err(other.into()),
        }
        self.apply(tx.commit().await?);
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects() {
        for good in [
            "https://app.example.com/callback",
            "https://app.example.com",
            "https://app.example.com:8443/cb?x=1",
            "http://127.0.0.1/cb",
            "http://localhost:3000/cb",
            "http://[::1]:3000/cb",
            "com.example.app:/cb",
        ] {
            assert!(is_redirect(good), "{good}");
        }
        for bad in [
            "",
            "https://",
            "https:app",
            "http://app.example.com/cb",
            "https://app.example.com/cb#x",
            "javascript:alert(1)",
            "data:text/html,x",
            "https://u:p@app.example.com/",
            "https://app.example.com/a/../b",
            "https://app.example.com/..;/b",
            "https://app.example.com/%2e%2e/b",
            "https://app.example.com\\@evil",
            "//evil",
            "/cb",
            "HTTPS://x.y/",
            "https://a b/",
            "https://app.example.com/\n",
            "http://127.0.0.1.evil.example/",
            "http://localhost@evil.example/",
            "https://é.example/",
            "ftp://x.y/",
            "https://x.y/*{a}",
        ] {
            assert!(!is_redirect(bad), "{bad}");
        }
    }

    #[test]
    fn where_a_client_returns_to() {
        let client = |redirect: &str| Client {
            id: "plc_x".into(),
            name: "x".into(),
            method: Method::Public,
            redirects: vec![redirect.into()],
            grants: vec![],
            scopes: vec!["a".into(), "b".into()],
            audience: vec![],
            trusted: false,
            created_at: Timestamp(0),
            secret: None,
            jwks: None,
        };
        let web = client("https://app.example.com/cb");
        assert!(web.may_return_to("https://app.example.com/cb"));
        for other in [
            "https://app.example.com/cb/",
            "https://app.example.com/cb?x",
            "https://app.example.com:443/cb",
            "https://APP.example.com/cb",
            "https://app.example.com/cb/../x",
            "https://app.example.com.evil/cb",
            "http://app.example.com/cb",
            "",
        ] {
            assert!(!web.may_return_to(other), "{other}");
        }
        let desktop = client("http://127.0.0.1/cb");
        assert!(desktop.may_return_to("http://127.0.0.1:51234/cb") && desktop.may_return_to("http://127.0.0.1/cb"));
        for other in [
            "http://127.0.0.1:51234/other",
            "http://localhost:51234/cb",
            "http://127.0.0.1:x/cb",
            "http://127.0.0.1:1@evil.example/cb",
            "http://127.0.0.1:123456/cb",
            "https://127.0.0.1:51234/cb",
            "http://127.0.0.1.evil:1/cb",
        ] {
            assert!(!desktop.may_return_to(other), "{other}");
        }
        assert_eq!(web.grantable(&[]), Some(vec!["a".into(), "b".into()]));
        assert_eq!(web.grantable(&["b".into()]), Some(vec!["b".into()]));
        assert_eq!(web.grantable(&["b".into(), "c".into()]), None);
    }
}
