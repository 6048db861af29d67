//! `security` of an operation, and the schemes that it names. OpenAPI 3.1 sections 4.8.27 and 4.8.30.

use serde::Deserialize;

/// Who may call an operation: whoever meets one of the alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security(pub(crate) Vec<Alternative>);

impl Security {
    /// The alternatives. None: everybody may.
    pub fn alternatives(&self) -> &[Alternative] {
        &self.0
    }

    /// Whether the document lets everybody: it names nothing, or an alternative that demands nothing.
    pub fn is_open(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|alternative| alternative.0.is_empty())
    }
}

/// What has to be met together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alternative(pub(crate) Vec<Demand>);

impl Alternative {
    /// All of these.
    pub fn demands(&self) -> &[Demand] {
        &self.0
    }
}

/// One scheme, and the scopes that it has to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The scheme.
    pub scheme: Scheme,
    /// The scopes; of other schemes than OAuth the roles that the application means by them.
    pub scopes: Vec<Box<str>>,
}

/// A security scheme, as far as it says which credential is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheme {
    /// `apiKey`: a value at a place under a name.
    ApiKey {
        /// Where.
        place: KeyPlace,
        /// The name.
        name: Box<str>,
    },
    /// `http` with its scheme, in lower case: `bearer`, `basic`, `digest`.
    Http(Box<str>),
    /// `oauth2`.
    OAuth2,
    /// `openIdConnect`.
    OpenIdConnect,
    /// `mutualTLS`.
    MutualTls,
    /// A name that the document does not explain, or a type that is not known.
    Unknown,
}

/// Where an API key is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a header.
    Header,
    /// In a cookie.
    Cookie,
    /// In the query.
    Query,
}

/// A scheme as it is written.
#[derive(Debug, Deserialize)]
pub(crate) struct Written {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(rename = "in", default)]
    place: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    scheme: String,
}

impl Written {
    pub(crate) fn scheme(&self) -> Scheme {
        let place = match self.place.as_str() {
            "header" => Some(KeyPlace::Header),
            "cookie" => Some(KeyPlace::Cookie),
            "query" => Some(KeyPlace::Query),
            _ => None,
        };
        match (self.kind.as_str(), place) {
            ("apiKey", Some(place)) => Scheme::ApiKey { place, name: self.name.as_str().into() },
            ("http", _) => Scheme::Http(self.scheme.to_ascii_lowercase().into()),
            ("oauth2", _) => Scheme::OAuth2,
            ("openIdConnect", _) => Scheme::OpenIdConnect,
            ("mutualTLS", _) => Scheme::MutualTls,
            _ => Scheme::Unknown,
        }
    }
}
