//! The routes of a policy, compiled: which rule a request falls under.

use std::sync::Arc;

use http::Method;
use palisade_base::Cidr;
use palisade_policy::Problems;

use super::config::Route;
use super::values::{HostPattern, PathPattern};
use crate::controls::auth::needs::Needs;
use crate::controls::auth::when::When;
use crate::controls::headers::Cache;
use crate::controls::integrity::{MethodParameter, Slashes};

/// The methods that are answered without a route naming them.
pub(crate) const USUAL: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// One compiled route. Number 0 is the default: paths that no route names.
#[derive(Debug)]
pub struct Rule {
    /// Its number: 0 for the default, else the place in the file plus one. Controls store what they know by it.
    pub id: u16,
    /// The pattern as written, or `default`: the `route` of logs and metrics.
    pub label: Arc<str>,
    /// Where it stands: `palisade.toml:14`.
    pub line: Arc<str>,
    /// Not written as a `[[route]]`: a directory of files has it by itself.
    pub implied: bool,
    /// The networks whose clients it is for; all where empty.
    pub address: Vec<Cidr>,
    /// Encoded slashes are allowed.
    pub encoded_slash: Option<bool>,
    /// `;` parameters are allowed.
    pub path_parameters: Option<bool>,
    /// What happens to repeated slashes.
    pub slashes: Option<Slashes>,
    /// By which parameter its requests name another method.
    pub method_parameter: Option<MethodParameter>,
    /// gRPC passes.
    pub grpc: bool,
    /// What caches may keep of its personal answers, where it says so.
    pub cache: Option<Cache>,
    /// What it asks of its callers, where there is a login.
    pub needs: Needs,
    /// What must be true of the request and its caller.
    pub when: Option<Arc<When>>,
    /// An endpoint of Palisade's own: no route says who may use it, and nothing of it is the application's.
    pub own: bool,
    host: Option<HostPattern>,
    path: PathPattern,
    methods: Vec<Method>,
}

impl Rule {
    /// The paths it is for.
    pub fn path(&self) -> &PathPattern {
        &self.path
    }

    /// The host it is for; none: all of them.
    pub fn host(&self) -> Option<&HostPattern> {
        self.host.as_ref()
    }

    /// The methods that the route names; none: all of the usual ones.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn compile(route: &Route, line: Arc<str>) -> Self {
        Self {
            id: 0,
            label: route.path.as_str().into(),
            line,
            implied: false,
            address: route.address.clone(),
            encoded_slash: route.encoded_slash,
            path_parameters: route.path_parameters,
            slashes: route.slashes,
            method_parameter: route.method_parameter.clone(),
            grpc: route.grpc,
            cache: route.cache,
            needs: Needs::of(route),
            when: None,
            own: false,
            host: route.host.clone(),
            path: route.path.clone(),
            methods: route.methods.iter().map(|method| method.0.clone()).collect(),
        }
    }

    fn takes(&self, host: &str, path: &str) -> bool {
        self.path.matches(path) && self.host.as_ref().is_none_or(|pattern| pattern.matches(host))
    }

    /// Whether it is for every host that another one is for.
    fn covers_host(&self, other: &Self) -> bool {
        self.host.as_ref().is_none_or(|mine| other.host.as_ref().is_some_and(|theirs| mine.covers(theirs)))
    }

    fn allows(&self, method: &Method) -> bool {
        if self.methods.is_empty() {
            return USUAL.contains(method);
        }
        self.methods.contains(method) || (*method == Method::HEAD && self.methods.contains(&Method::GET))
    }
}

/// What the routes say of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// This rule.
    Rule(u16),
    /// A route claims the path, but none of the path names the method; these are named.
    OtherMethods(u16, String),
    /// An application may read the path as one of this rule's, with a number or UUID in another spelling.
    Respelled(u16),
}

impl Found {
    /// The rule that was found, whatever it says.
    pub fn id(&self) -> u16 {
        match self {
            Self::Rule(id) | Self::OtherMethods(id, _) | Self::Respelled(id) => *id,
        }
    }
}

/// All rules of a policy.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    named: Vec<Method>,
    /// Some rule has a number or UUID in its path, so that other spellings of it have to be looked for.
    spellings: bool,
    /// There are endpoints of our own, the last of the rules.
    has_own: bool,
}

impl Rules {
    /// Compiles the routes; `line` gives the place of a route in the policy.
    pub fn new<'r>(routes: impl Iterator<Item = &'r Route>, line: impl Fn(usize) -> Arc<str>) -> Self {
        let mut rules = vec![Rule {
            id: 0,
            label: "default".into(),
            line: "default".into(),
            implied: false,
            address: Vec::new(),
            encoded_slash: None,
            path_parameters: None,
            slashes: None,
            method_parameter: None,
            grpc: false,
            cache: None,
            needs: Needs::default(),
            when: None,
            own: false,
            host: None,
            path: PathPattern::default(),
            methods: Vec::new(),
        }];
        for (place, route) in routes.enumerate() {
            let id = u16::try_from(place + 1).unwrap_or(u16::MAX);
            rules.push(Rule { id, ..Rule::compile(route, line(place)) });
        }
        let mut named: Vec<Method> = rules.iter().flat_map(|rule| rule.methods.iter().cloned()).collect();
        named.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        named.dedup();
        let spellings = rules.iter().any(|rule| rule.path.has_spellings());
        Self { rules, named, spellings, has_own: false }
    }

    /// Compiles the conditions of the routes.
    pub(crate) fn conditions<'r>(&mut self, routes: impl Iterator<Item = &'r Route>, problems: &mut Problems) {
        for (place, (route, rule)) in routes.zip(self.rules.iter_mut().skip(1)).enumerate() {
            if let Some(text) = &route.when {
                rule.when = When::compile(text, &route.path, &format!("route[{place}].when"), problems).map(Arc::new);
            }
        }
    }

    /// Adds routes that nobody wrote, behind those that somebody did.
    pub fn imply<'r>(&mut self, routes: impl Iterator<Item = (Arc<str>, &'r Route)>) {
        for (line, route) in routes {
            let id = u16::try_from(self.rules.len()).unwrap_or(u16::MAX);
            self.rules.push(Rule { id, implied: true, ..Rule::compile(route, line) });
        }
    }

    /// Adds routes to Palisade's own endpoints. They are looked at first, whatever is written.
    pub(crate) fn own<'r>(&mut self, routes: impl Iterator<Item = &'r Route>) {
        for route in routes {
            let id = u16::try_from(self.rules.len()).unwrap_or(u16::MAX);
            let line = "`[auth]`".into();
            self.rules.push(Rule { id, implied: true, own: true, ..Rule::compile(route, line) });
            self.has_own = true;
        }
    }

    /// A rule by its number.
    pub fn get(&self, id: u16) -> &Rule {
        self.rules.get(usize::from(id)).unwrap_or(&self.rules[0])
    }

    /// All rules, the default first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter()
    }

    /// Whether a method is one that this policy answers at all.
    pub fn knows(&self, method: &Method) -> bool {
        USUAL.contains(method) || self.named.contains(method)
    }

    /// Whether some route is for certain methods only.
    pub fn names_methods(&self) -> bool {
        !self.named.is_empty()
    }

    /// The rule of a request. The first route whose path and host fit claims the path: a method that no route of that
    /// same path names never falls through to a wider one.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Found {
        if self.has_own
            && let Some(own) = self.rules.iter().rev().take_while(|rule| rule.own).find(|rule| rule.takes(host, path))
        {
            // It answers to methods itself.
            return if USUAL.contains(method) {
                Found::Rule(own.id)
            } else {
                Found::OtherMethods(own.id, allow(USUAL.iter()))
            };
        }
        let first = self.rules[1..].iter().find(|rule| rule.takes(host, path));
        if self.spellings
            && let Some(meant) = self.respelled(host, path, first)
        {
            return Found::Respelled(meant);
        }
        let Some(first) = first else {
            return if USUAL.contains(method) { Found::Rule(0) } else { Found::OtherMethods(0, allow(USUAL.iter())) };
        };
        let same = || {
            self.rules[usize::from(first.id)..].iter().filter(|rule| rule.path == first.path && rule.takes(host, path))
        };
        match same().find(|rule| rule.allows(method)) {
            Some(rule) => Found::Rule(rule.id),
            None => Found::OtherMethods(
                first.id,
                allow(same().flat_map(|rule| if rule.methods.is_empty() { USUAL.iter() } else { rule.methods.iter() })),
            ),
        }
    }

    /// The rule before `first` that the path would select in its canonical spelling.
    fn respelled(&self, host: &str, path: &str, first: Option<&Rule>) -> Option<u16> {
        let before = first.map_or(self.rules.len(), |first| usize::from(first.id));
        let exact = first.map(|first| &first.path);
        let named = |rule: &&Rule| rule.host.as_ref().is_none_or(|pattern| pattern.matches(host));
        let mut rules = self.rules[1..before].iter().filter(|rule| rule.path.has_spellings()).filter(named);
        rules.find(|rule| rule.path.may_mean(path, exact)).map(|rule| rule.id)
    }

    /// Routes that can never be reached, as pairs of numbers: the later one, and the earlier that takes all of it.
    pub fn unreachable(&self) -> Vec<(u16, u16)> {
        let mut pairs = Vec::new();
        for later in self.rules[1..].iter().filter(|rule| !rule.implied) {
            let earlier = self.rules[1..usize::from(later.id)].iter().find(|earlier| {
                earlier.path.covers(&later.path)
                    && earlier.covers_host(later)
                    // Another path claims all methods; the same path only its own.
                    && (earlier.path != later.path || earlier.methods.is_empty() || (!later.methods.is_empty() && later.methods.iter().all(|m| earlier.methods.contains(m))))
            });
            if let Some(earlier) = earlier {
                pairs.push((later.id, earlier.id));
            }
        }
        pairs
    }
}

/// The value of `Allow`: `HEAD` comes with `GET`.
fn allow<'m>(methods: impl Iterator<Item = &'m Method>) -> String {
    let mut names: Vec<&str> = methods.map(Method::as_str).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(routes: &[(&str, &[&str], Option<&str>)]) -> Rules {
        let routes: Vec<Route> = routes
            .iter()
            .map(|(path, methods, host)| Route {
                path: path.parse().unwrap(),
                methods: methods.iter().map(|m| m.parse().unwrap()).collect(),
                host: host.map(|host| host.parse().unwrap()),
                ..Route::default()
            })
            .collect();
        Rules::new(routes.iter(), |place| format!("palisade.toml:{place}").into())
    }

    #[test]
    fn a_route_claims_its_paths_and_methods_do_not_fall_through() {
        let rules = rules(&[
            ("/admin/*", &["GET"], None),
            ("/notes", &["GET"], None),
            ("/notes", &["POST"], None),
            ("/b/*", &[], Some("billing.example.com")),
            ("/*", &[], None),
        ]);
        let find = |host: &str, path: &str, method: &str| {
            rules.find(host, path, &Method::from_bytes(method.as_bytes()).unwrap())
        };
        assert_eq!(find("a", "/admin", "GET"), Found::Rule(1));
        assert_eq!(find("a", "/admin/x", "HEAD"), Found::Rule(1));
        assert_eq!(find("a", "/admin/x", "POST"), Found::OtherMethods(1, "GET, HEAD".into()));
        assert_eq!(find("a", "/notes", "POST"), Found::Rule(3));
        assert_eq!(find("a", "/notes/", "PUT"), Found::OtherMethods(2, "GET, HEAD, POST".into()));
        assert_eq!(find("billing.example.com", "/b/1", "PUT"), Found::Rule(4));
        assert_eq!(find("a", "/b/1", "PUT"), Found::Rule(5));
        assert_eq!(
            find("a", "/else", "TRACE"),
            Found::OtherMethods(5, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT".into())
        );
    }

    #[test]
    fn another_spelling_of_a_number_passes_no_rule_by() {
        let rules = rules(&[
            ("/users/1", &[], None),
            ("/users/{id:int}/*", &["GET"], None),
            ("/files/{id:uuid}", &[], None),
            ("/v/1", &[], None),
            ("/v/1.0", &[], None),
            ("/only/{id:int}", &[], Some("a.example")),
            ("/*", &[], None),
        ]);
        let find = |path: &str| rules.find("b.example", path, &Method::GET);
        for (path, expected) in [
            ("/users/1", Found::Rule(1)),
            ("/users/01", Found::Respelled(1)),
            ("/users/%201", Found::Respelled(1)),
            ("/users/7", Found::Rule(2)),
            ("/users/7/x", Found::Rule(2)),
            ("/users/07", Found::Respelled(2)),
            ("/users/7.0/x/", Found::Respelled(2)),
            ("/users/+7", Found::Respelled(2)),
            ("/users/me", Found::Rule(7)),
            ("/users/7-eleven", Found::Rule(7)),
            ("/files/01234567-89AB-cdef-0123-456789abcdef", Found::Respelled(3)),
            ("/files/x", Found::Rule(7)),
            ("/v/1.0", Found::Rule(5)),
            ("/v/1.00", Found::Respelled(4)),
            ("/v/1.1", Found::Rule(7)),
            ("/only/07", Found::Rule(7)),
        ] {
            assert_eq!(find(path), expected, "{path}");
        }
        assert_eq!(rules.find("a.example", "/only/07", &Method::GET), Found::Respelled(6));
    }

    #[test]
    fn unreachable_routes_are_seen() {
        let rules = rules(&[
            ("/a/*", &[], None),
            ("/a/b", &[], None),
            ("/c", &["GET"], None),
            ("/c", &["GET"], None),
            ("/c", &["POST"], None),
            ("/a/*", &[], Some("x.y")),
            ("/d/*", &[], Some("*.x.y")),
            ("/d/*", &[], Some("a.x.y")),
            ("/d/e", &[], Some("*.a.x.y")),
            ("/d/*", &[], Some("x.y")),
            ("/d/*", &[], Some("*.y")),
            ("/d/*", &[], None),
        ]);
        assert_eq!(rules.unreachable(), [(2, 1), (4, 3), (6, 1), (8, 7), (9, 7)]);
    }
}
