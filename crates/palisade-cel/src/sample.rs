//! A request for the tests: the names of a policy's `when`, each of which may be missing or of another kind.

use std::collections::BTreeMap;

use palisade_base::Timestamp;

use crate::{Activation, Environment, Found, Members, Type, Value};

const NAMES: [(&str, Type); 14] = [
    ("path.user_id", Type::Text),
    ("path.team", Type::Text),
    ("query", Type::Members),
    ("method", Type::Text),
    ("host", Type::Text),
    ("address", Type::Text),
    ("now", Type::Time),
    ("user.id", Type::Text),
    ("user.app_id", Type::Text),
    ("user.email", Type::Text),
    ("user.roles", Type::Texts),
    ("user.permissions", Type::Texts),
    ("user.claims", Type::Claims),
    ("token.scopes", Type::Texts),
];

pub(crate) fn environment() -> Environment {
    NAMES.iter().zip(0..).fold(Environment::new(), |all, ((name, kind), key)| all.with(*name, *kind, key))
}

#[derive(Debug, Clone)]
pub(crate) enum Claim {
    Text(String),
    Texts(Vec<String>),
    Object(BTreeMap<&'static str, Claim>),
    /// `null`, a number, a boolean.
    Other,
    Twice,
}

impl Members for BTreeMap<&'static str, Claim> {
    fn member(&self, name: &str) -> Found<'_> {
        match self.get(name) {
            None => Found::Missing,
            Some(Claim::Text(text)) => Found::Value(Value::text(text)),
            Some(Claim::Texts(texts)) => Found::Value(Value::texts(texts)),
            Some(Claim::Object(members)) => Found::Value(Value::Members(members)),
            Some(Claim::Other) => Found::Value(Value::Other),
            Some(Claim::Twice) => Found::Repeated,
        }
    }
}

/// A request of a user with everything, from which tests take away.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) values: BTreeMap<&'static str, Claim>,
    pub(crate) query: BTreeMap<&'static str, Claim>,
    pub(crate) claims: Option<BTreeMap<&'static str, Claim>>,
    pub(crate) now: Timestamp,
}

pub(crate) fn text(text: &str) -> Claim {
    Claim::Text(text.to_owned())
}

pub(crate) fn texts(texts: &[&str]) -> Claim {
    Claim::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
}

impl Request {
    pub(crate) fn full() -> Self {
        Self {
            values: BTreeMap::from([
                ("path.user_id", text("7")),
                ("path.team", text("red")),
                ("method", text("GET")),
                ("host", text("api.example.com")),
                ("address", text("10.1.2.3")),
                ("user.id", text("0190-id")),
                ("user.app_id", text("7")),
                ("user.email", text("Bob@example.com")),
                ("user.roles", texts(&["user", "team-red"])),
                ("user.permissions", texts(&["notes:read", "notes:write"])),
                ("token.scopes", texts(&["notes:read"])),
            ]),
            query: BTreeMap::from([("tenant", text("acme")), ("page", text("3")), ("q", text(""))]),
            claims: Some(BTreeMap::from([
                ("tenant", text("acme")),
                ("groups", texts(&["staff", "dev"])),
                ("level", text("3")),
                ("until", text("2030-01-01T00:00:00Z")),
                ("realm_access", Claim::Object(BTreeMap::from([("roles", texts(&["ops"]))]))),
            ])),
            now: Timestamp(1_796_083_200_000), // 2026-12-01T00:00:00Z, a Tuesday
        }
    }

    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.values.remove(name);
        self
    }

    pub(crate) fn value(mut self, name: &'static str, value: Claim) -> Self {
        self.values.insert(name, value);
        self
    }

    pub(crate) fn query(mut self, name: &'static str, value: Claim) -> Self {
        self.query.insert(name, value);
        self
    }

    /// With another claim in place of every one; none where it is absent.
    pub(crate) fn every_claim(mut self, value: Option<&Claim>) -> Self {
        let claims = self.claims.take().unwrap_or_default();
        self.claims = Some(claims.into_keys().filter_map(|name| value.map(|value| (name, value.clone()))).collect());
        self
    }

    pub(crate) fn anonymous(mut self) -> Self {
        self.values.retain(|name, _| !name.starts_with("user.") && !name.starts_with("token."));
        self.claims = None;
        self
    }
}

impl Activation for Request {
    fn value(&self, key: u16) -> Found<'_> {
        match NAMES[usize::from(key)].0 {
            "query" => Found::Value(Value::Members(&self.query)),
            "user.claims" => self.claims.as_ref().map(|claims| Value::Members(claims)).into(),
            "now" => Found::Value(Value::Time(self.now)),
            name => self.values.member(name),
        }
    }
}
