//! What an operation of the application's document asks of its callers, in the terms of routes.

use palisade_base::Timestamp;
use palisade_openapi::{Alternative, KeyPlace, Scheme, Security};
use serde::{Deserialize, Serialize};

use super::super::caller::Caller;
use super::super::codes;
use super::super::config::Grant;
use super::super::credential::API_KEY;
use super::super::needs::Needs;
use crate::refusal::Refusal;

/// Whom an operation is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Requirement {
    /// Everybody.
    Open,
    /// Whoever meets one of these. None: nobody, for the document names only what nobody here can show.
    AnyOf(Vec<One>),
}

/// One alternative.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct One {
    /// An API key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) key: bool,
    /// All of these scopes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) scopes: Vec<Box<str>>,
}

impl Requirement {
    /// What holds for an operation of which nothing else is known: a login.
    pub(crate) fn login() -> Self {
        Self::AnyOf(vec![One::default()])
    }

    /// Of an operation's `security`.
    pub(crate) fn of(security: &Security) -> Self {
        if security.is_open() {
            return Self::Open;
        }
        Self::AnyOf(security.alternatives().iter().filter_map(One::of).collect())
    }

    /// Whether it lets somebody pass whom another one does not.
    pub(crate) fn is_laxer_than(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Open) => false,
            (Self::Open, Self::AnyOf(_)) => true,
            (Self::AnyOf(mine), Self::AnyOf(theirs)) => {
                mine.iter().any(|one| !theirs.iter().any(|known| one.asks_as_much_as(known)))
            }
        }
    }

    /// The same as routes ask it; none where everybody may.
    pub(crate) fn needs(&self) -> Option<Vec<Needs>> {
        let Self::AnyOf(all) = self else { return None };
        let needs = |one: &One| Needs { key: one.key, scopes: one.scopes.clone(), ..Needs::default() };
        Some(all.iter().map(needs).collect())
    }

    /// For people and for `--json`.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Open => "everybody".into(),
            Self::AnyOf(all) if all.is_empty() => "nobody".into(),
            Self::AnyOf(all) => all.iter().map(One::shown).collect::<Vec<_>>().join(", or "),
        }
    }
}

impl One {
    /// None where it demands what no credential of Palisade's is: such an alternative lets nobody pass.
    fn of(alternative: &Alternative) -> Option<Self> {
        let mut one = Self::default();
        for demand in alternative.demands() {
            match &demand.scheme {
                Scheme::ApiKey { place: KeyPlace::Header, name } if name.eq_ignore_ascii_case(API_KEY) => {
                    one.key = true
                }
                // A value of the application's own, which it goes on checking: behind a login here.
                Scheme::ApiKey { .. } | Scheme::Http(_) | Scheme::OAuth2 | Scheme::OpenIdConnect => {}
                Scheme::MutualTls | Scheme::Unknown => return None,
            }
            for scope in &demand.scopes {
                // One that no credential can carry.
                scope.parse::<Grant>().ok()?;
                if !one.scopes.contains(scope) {
                    one.scopes.push(scope.clone());
                }
            }
        }
        one.scopes.sort_unstable();
        Some(one)
    }

    fn asks_as_much_as(&self, other: &Self) -> bool {
        (self.key || !other.key) && other.scopes.iter().all(|scope| self.scopes.contains(scope))
    }

    fn shown(&self) -> String {
        let who = if self.key { "an API key" } else { "a login" };
        match &*self.scopes {
            [] => who.into(),
            scopes => format!("{who} with {}", scopes.join(" ")),
        }
    }
}

/// Judges a caller by one of several.
///
/// # Errors
/// What the first of them says; [`codes::FORBIDDEN`] where there is none.
pub(crate) fn judge(any_of: &[Needs], caller: &Caller, now: Timestamp) -> Result<(), Refusal> {
    let mut first = None;
    for needs in any_of {
        match needs.judge(caller, now) {
            Ok(()) => return Ok(()),
            Err(refusal) => drop(first.get_or_insert(refusal)),
        }
    }
    Err(first.unwrap_or_else(|| codes::FORBIDDEN.refuse("the document asks for what nobody can show here")))
}

#[cfg(test)]
mod tests {
    use palisade_openapi::{Document, Method};

    use super::*;

    fn of(security: &str) -> Requirement {
        let text = format!(
            r#"{{"openapi":"3.1.0","paths":{{"/a":{{"get":{{"security":{security}}}}}}},"components":{{"securitySchemes":{{
            "o":{{"type":"oauth2"}},"b":{{"type":"http","scheme":"bearer"}},"k":{{"type":"apiKey","in":"header","name":"x-api-key"}},
            "q":{{"type":"apiKey","in":"query","name":"key"}},"m":{{"type":"mutualTLS"}}}}}}}}"#
        );
        let document = Document::parse(text.as_bytes()).unwrap();
        Requirement::of(&document.operation(document.find("/a", Method::Get)[0]).security)
    }

    #[test]
    fn what_documents_ask_for() {
        for (security, shown) in [
            ("[]", "everybody"),
            (r#"[{},{"o":["a"]}]"#, "everybody"),
            (r#"[{"o":[]}]"#, "a login"),
            (r#"[{"b":[]}]"#, "a login"),
            (r#"[{"q":[]}]"#, "a login"),
            (r#"[{"o":["b","a"]}]"#, "a login with a b"),
            (r#"[{"k":[]}]"#, "an API key"),
            (r#"[{"o":["a"]},{"k":[]}]"#, "a login with a, or an API key"),
            (r#"[{"o":["a"],"k":[]}]"#, "an API key with a"),
            (r#"[{"m":[]}]"#, "nobody"),
            (r#"[{"unknown":[]}]"#, "nobody"),
            (r#"[{"o":["a\" b"]}]"#, "nobody"),
        ] {
            assert_eq!(of(security).shown(), shown, "{security}");
        }
    }

    #[test]
    fn what_opens() {
        let order = [r#"[{"m":[]}]"#, r#"[{"o":["a","b"]}]"#, r#"[{"o":["a"]}]"#, r#"[{"o":[]}]"#, "[]"];
        for (place, strict) in order.iter().enumerate() {
            assert!(!of(strict).is_laxer_than(&of(strict)), "{strict}");
            for lax in &order[place + 1..] {
                assert!(of(lax).is_laxer_than(&of(strict)), "{lax} than {strict}");
                assert!(!of(strict).is_laxer_than(&of(lax)), "{strict} than {lax}");
            }
        }
        let (a, a_or_b) = (of(r#"[{"o":["a"]}]"#), of(r#"[{"o":["a"]},{"o":["b"]}]"#));
        assert!(a_or_b.is_laxer_than(&a) && !a.is_laxer_than(&a_or_b));
        let (key, login) = (of(r#"[{"k":[]}]"#), of(r#"[{"b":[]}]"#));
        assert!(login.is_laxer_than(&key) && !key.is_laxer_than(&login));
    }
}
