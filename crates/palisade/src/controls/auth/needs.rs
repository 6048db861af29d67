//! What a route asks of its callers, and whether one meets it.
//!
//! Threats 1, 4 and 10. Deny by default: with `[auth]`, a route that says nothing needs a login. A credential that is
//! narrower than its user carries only its scopes: it passes where a route names a scope that it has, and roles are asked
//! on top of that, never instead.

use std::time::Duration;

use palisade_base::Timestamp;
use palisade_identity::password::Breached;
use palisade_policy::Problems;

use super::caller::{By, Caller};
use super::codes;
use super::config::AccessBy;
use crate::controls::Config as Policy;
use crate::controls::headers::Docs;
use crate::policy::config::Route;
use crate::refusal::Refusal;

/// What a route asks of its callers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Nothing: everybody may.
    pub public: bool,
    /// A person's account, not a client that acts for itself.
    pub user: bool,
    /// One of these roles.
    pub roles: Vec<Box<str>>,
    /// All of these permissions.
    pub permissions: Vec<Box<str>>,
    /// All of these scopes, of a credential that has scopes.
    pub scopes: Vec<Box<str>>,
    /// An API key.
    pub key: bool,
    /// A login that is no older.
    pub max_age: Option<Duration>,
}

impl Needs {
    /// What a `[[route]]` says.
    pub(crate) fn of(route: &Route) -> Self {
        let names = |grants: &[super::config::Grant]| grants.iter().map(|grant| grant.as_str().into()).collect();
        Self {
            public: route.public == Some(true),
            user: route.user == Some(true),
            roles: names(&route.roles),
            permissions: names(&route.permissions),
            scopes: names(&route.scopes),
            key: route.key == Some(true),
            max_age: route.max_age.map(|age| age.duration()),
        }
    }

    /// Whether the route says nothing of its callers.
    pub fn is_silent(&self) -> bool {
        *self == Self::default()
    }

    /// Judges a caller.
    ///
    /// # Errors
    /// [`codes::FORBIDDEN`], or [`codes::STEP_UP`] where a fresh login is all that is missing.
    pub fn judge(&self, caller: &Caller, now: Timestamp) -> Result<(), Refusal> {
        if self.public {
            return Ok(());
        }
        let account = caller.account();
        self.judge_facts(
            &Facts {
                by: caller.by(),
                is_user: account.is_some(),
                roles: account.map_or(&[], |account| &account.roles),
                permissions: account.map_or(&[], |account| &account.permissions),
                scopes: caller.scopes(),
                logged_in: caller.logged_in(),
            },
            now,
        )
    }

    fn judge_facts(&self, caller: &Facts<'_>, now: Timestamp) -> Result<(), Refusal> {
        let forbid = |why| Err(codes::FORBIDDEN.refuse(why));
        let has = |list: &[String], wanted: &str| list.iter().any(|name| name == wanted);
        if self.key && caller.by != By::Key {
            return forbid("the route is for API keys");
        }
        if self.user && !caller.is_user {
            return forbid("a client that acts for itself, and the route is for users");
        }
        if let Some(scopes) = caller.scopes {
            let missing = self.scopes.iter().find(|scope| !has(scopes, scope));
            // A route for keys that asks nothing of their user is open to every key.
            let opened_to_keys =
                self.key && self.scopes.is_empty() && self.roles.is_empty() && self.permissions.is_empty();
            match missing {
                Some(scope) => {
                    return Err(codes::FORBIDDEN
                        .refuse("the credential lacks a scope that the route names")
                        .with("scope", scope.to_string())
                        .header(http::header::WWW_AUTHENTICATE, insufficient_scope(&self.scopes)));
                }
                None if self.scopes.is_empty() && !opened_to_keys => {
                    return forbid("a credential that carries only scopes, and the route names none");
                }
                None => {}
            }
        }
        if !self.roles.is_empty() && !self.roles.iter().any(|role| has(caller.roles, role)) {
            return forbid("none of the roles that the route names");
        }
        if let Some(missing) = self.permissions.iter().find(|permission| !has(caller.permissions, permission)) {
            return Err(codes::FORBIDDEN
                .refuse("a permission that the route names is missing")
                .with("permission", missing.to_string()));
        }
        if let Some(age) = self.max_age
            && caller.logged_in.is_none_or(|at| at.plus(age) < now)
        {
            return Err(codes::STEP_UP.refuse("the login is older than the route's `max_age`"));
        }
        Ok(())
    }

    /// Whether another rule asks for something that this one does not.
    pub(crate) fn is_laxer_than(&self, other: &Self) -> bool {
        let lacks = |mine: &[Box<str>], theirs: &[Box<str>]| theirs.iter().any(|name| !mine.contains(name));
        if self.public || other.public {
            return self.public && !other.public;
        }
        let roles = match (self.roles.is_empty(), other.roles.is_empty()) {
            (_, true) => false,
            (true, false) => true,
            (false, false) => self.roles.iter().any(|role| !other.roles.contains(role)),
        };
        roles
            || lacks(&self.permissions, &other.permissions)
            || lacks(&self.scopes, &other.scopes)
            || (other.user && !self.user)
            || (other.key && !self.key)
            || other.max_age.is_some_and(|theirs| self.max_age.is_none_or(|mine| mine > theirs))
    }
}

/// What a verdict depends on.
#[derive(Debug, Clone, Copy)]
struct Facts<'a> {
    by: By,
    is_user: bool,
    roles: &'a [String],
    permissions: &'a [String],
    scopes: Option<&'a [String]>,
    logged_in: Option<Timestamp>,
}

/// RFC 6750 section 3.1.
fn insufficient_scope(scopes: &[Box<str>]) -> http::HeaderValue {
    let text = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", scopes.join(" "));
    // The grammar of scopes has no quotes.
    http::HeaderValue::try_from(text).unwrap_or(http::HeaderValue::from_static("Bearer"))
}

/// What the routes of a policy say of access that cannot be meant.
pub(crate) fn check(policy: &Policy, problems: &mut Problems) {
    let on = policy.auth.config.present;
    if on && policy.auth.config.access == AccessBy::Openapi && policy.upstream.openapi == "off" {
        problems.error(
            "auth.access",
            "the application's document is to decide, and `upstream.openapi` says that it has none",
            "name the document in `upstream.openapi`: a path of the application, or a file",
        );
    }
    for (place, route) in policy.route.iter().enumerate() {
        let taken = policy.auth.config.paths.all().find(|(_, _, own)| own.as_str() == route.route.path.as_str());
        if let Some((key, _, own)) = taken.filter(|_| on) {
            problems.error(
                &format!("route[{place}].path"),
                format!("`{own}` is an endpoint of Palisade's, by `auth.paths.{key}`: no route says who may use it"),
                "take the route out, or the address",
            );
        }
    }
    if let Some(file) = &policy.password.breached
        && let Err(error) = Breached::open(file)
    {
        problems.error(
            "password.breached",
            format!("`{}`: {error}", file.display()),
            "name a sorted list of passwords, or of their SHA-1, that Palisade's user can read",
        );
    }
    if !on && policy.headers.config.docs == Some(Docs::Admin) {
        problems.error(
            "headers.docs",
            "`admin` needs a login, and without `[auth]` nobody logs in here",
            "add `[auth]`, or write `open` or `closed`",
        );
    }
    for (place, route) in policy.route.iter().enumerate() {
        let route = &route.route;
        let said = [
            ("user", route.user.is_some()),
            ("roles", !route.roles.is_empty()),
            ("permissions", !route.permissions.is_empty()),
            ("scopes", !route.scopes.is_empty()),
            ("key", route.key.is_some()),
            ("max_age", route.max_age.is_some()),
            ("when", route.when.is_some()),
        ];
        let said: Vec<&str> = said.iter().filter(|(_, said)| *said).map(|(key, _)| *key).collect();
        let at = |key: &str| format!("route[{place}].{key}");
        if !on && let Some(key) = said.first() {
            problems.error(
                &at(key),
                format!("`{key}` needs a login, and without `[auth]` nobody logs in here"),
                "add `[auth]`, or leave the line out; `public` and `address` do without",
            );
            continue;
        }
        if route.public == Some(true)
            && let Some(key) = said.first()
        {
            problems.error(
                &at("public"),
                format!("`public` opens the route to everybody, and `{key}` asks for a login"),
                "keep the one that is meant",
            );
            continue;
        }
        for (key, value) in [("user", route.user), ("key", route.key)] {
            if value == Some(false) {
                problems.error(
                    &at(key),
                    format!("`{key} = false` opens nothing"),
                    "leave the line out; `public = true` opens a route",
                );
            }
        }
        if route.key == Some(true)
            && route.scopes.is_empty()
            && (!route.roles.is_empty() || !route.permissions.is_empty())
        {
            problems.error(
                &at("key"),
                "an API key carries only its scopes: with `roles` or `permissions` alone no key ever passes",
                "name the scopes that a key must have, such as `scopes = [\"notes:read\"]`",
            );
        }
        if route.key == Some(true) && route.max_age.is_some() {
            problems.error(
                &at("max_age"),
                "`max_age` asks for a fresh login, and nobody logs in with a key",
                "leave one of the two out",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    struct Somebody {
        by: By,
        user: Option<(Vec<String>, Vec<String>)>,
        scopes: Option<Vec<String>>,
    }

    impl Somebody {
        fn facts(&self) -> Facts<'_> {
            Facts {
                by: self.by,
                is_user: self.user.is_some(),
                roles: self.user.as_ref().map_or(&[], |user| &user.0),
                permissions: self.user.as_ref().map_or(&[], |user| &user.1),
                scopes: self.scopes.as_deref(),
                logged_in: (self.by == By::Session).then_some(Timestamp(1_000_000)),
            }
        }
    }

    /// Routes × callers. Threats 4.
    #[test]
    fn verdicts() {
        let boxed = |list: &[&str]| list.iter().map(|name| Box::from(*name)).collect::<Vec<Box<str>>>();
        let nothing = Needs::default;
        let routes = [
            ("silent", nothing()),
            ("user", Needs { user: true, ..nothing() }),
            ("roles", Needs { roles: boxed(&["admin", "ops"]), ..nothing() }),
            ("permissions", Needs { permissions: boxed(&["a", "b"]), ..nothing() }),
            ("scopes", Needs { scopes: boxed(&["notes:read"]), ..nothing() }),
            ("both", Needs { scopes: boxed(&["notes:read"]), roles: boxed(&["admin"]), ..nothing() }),
            ("key", Needs { key: true, ..nothing() }),
            ("key+scope", Needs { key: true, scopes: boxed(&["notes:read"]), ..nothing() }),
            ("fresh", Needs { max_age: Some(Duration::from_secs(60)), ..nothing() }),
        ];
        let admin = || Some((names(&["user", "admin"]), names(&["a", "b", "c"])));
        let plain = || Some((names(&["user"]), names(&["a"])));
        let of = |by, user, scopes: Option<&[&str]>| Somebody { by, user, scopes: scopes.map(names) };
        let callers = [
            ("admin's session", of(By::Session, admin(), None)),
            ("user's session", of(By::Session, plain(), None)),
            ("admin's token", of(By::Token, admin(), None)),
            ("admin's narrow token", of(By::Token, admin(), Some(&["notes:read"]))),
            ("admin's key", of(By::Key, admin(), Some(&["notes:read", "x"]))),
            ("admin's empty key", of(By::Key, admin(), Some(&[]))),
            ("client", of(By::Token, None, Some(&["notes:read"]))),
        ];
        //   silent user roles perms scopes both key key+s fresh
        let expected = [
            "pass   pass pass  pass  pass   pass no   no    pass",
            "pass   pass no    no    pass   no   no   no    pass",
            "pass   pass pass  pass  pass   pass no   no    no",
            "no     no   no    no    pass   pass no   no    no",
            "no     no   no    no    pass   pass pass pass  no",
            "no     no   no    no    no     no   pass no    no",
            "no     no   no    no    pass   no   no   no    no",
        ];
        for ((who, caller), expected) in callers.iter().zip(expected) {
            for ((route, needs), expected) in routes.iter().zip(expected.split_whitespace()) {
                let got = needs.judge_facts(&caller.facts(), Timestamp(1_030_000));
                assert_eq!(if got.is_ok() { "pass" } else { "no" }, expected, "{who} on {route}");
            }
        }
    }

    #[test]
    fn a_login_that_is_too_old_is_told_apart() {
        let needs = Needs { max_age: Some(Duration::from_secs(60)), ..Needs::default() };
        let caller = Somebody { by: By::Session, user: Some((Vec::new(), Vec::new())), scopes: None };
        assert!(needs.judge_facts(&caller.facts(), Timestamp(1_060_000)).is_ok());
        let refused = needs.judge_facts(&caller.facts(), Timestamp(1_060_001)).unwrap_err();
        assert_eq!(refused.code(), &codes::STEP_UP);
    }
}
