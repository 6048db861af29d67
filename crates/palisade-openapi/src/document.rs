//! A document that was read: its operations, and which of them a request means.

use std::collections::HashMap;

use crate::paths::Paths;
use crate::read::{Ordered, Root};
use crate::security::{Alternative, Demand, Scheme, Security};
use crate::template::{BadTemplate, Template};

/// The largest document that is read, in bytes.
pub const MAX_BYTES: usize = 16 << 20;
/// The most operations of one document.
pub const MAX_OPERATIONS: usize = 20_000;
/// The most alternatives, demands of one, and scopes of one demand.
const MAX_SECURITY: usize = 100;

/// Why a document is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Bad {
    /// Longer than [`MAX_BYTES`].
    #[error("the document is larger than 16 MiB")]
    TooLong,
    /// Not JSON, nested too deeply, a member twice or of another type.
    #[error("the document cannot be read: {0}")]
    Json(String),
    /// Swagger 2, or something later than is known.
    #[error("the document is not of OpenAPI 3")]
    Version,
    /// More than [`MAX_OPERATIONS`], or a security of more than 100 parts.
    #[error("the document has more operations, or longer lists of security, than are read")]
    TooMany,
    /// A path that is none.
    #[error("a path of the document cannot be meant: {0}")]
    Path(#[from] BadTemplate),
    /// Two paths that differ in nothing but the names of parameters, which no two paths of a document may.
    #[error("a path of the document is there twice, with other names of its parameters")]
    Twice,
    /// The operations of a path stand elsewhere.
    #[error("a path of the document is a reference, and references of paths are not followed")]
    Reference,
}

/// A method that a document can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
    /// TRACE.
    Trace,
}

impl Method {
    const ALL: [Self; 8] =
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options, Self::Trace];

    /// As a request names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
        }
    }

    /// By the name that a request has for it, in capitals.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// By the name that a document has for it, in small letters.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let small = |method: &Self| method.as_str().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(small).filter(|_| name.bytes().all(|b| b.is_ascii_lowercase()))
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: Template,
    /// `operationId`.
    pub id: Option<Box<str>>,
    /// Whom it is for.
    pub security: Security,
}

/// A document.
#[derive(Debug, Default)]
pub struct Document {
    operations: Vec<Operation>,
    /// For each path, in the order of the document, its operations.
    items: Vec<Vec<(Method, usize)>>,
    templates: Vec<Template>,
    paths: Paths,
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Bad> {
        if bytes.len() > MAX_BYTES {
            return Err(Bad::TooLong);
        }
        let root: Root = serde_json::from_slice(bytes).map_err(|why| Bad::Json(why.to_string()))?;
        if !root.openapi.starts_with("3.") {
            return Err(Bad::Version);
        }
        let schemes: HashMap<String, Scheme> = root
            .components
            .schemes
            .0
            .into_iter()
            .map(|(name, said)| match said.reference {
                Some(_) => (name, Scheme::Unknown),
                None => (name, said.written.map_or(Scheme::Unknown, |written| written.scheme())),
            })
            .collect();
        let everywhere = security(root.security.unwrap_or_default(), &schemes)?;
        let mut document = Self::default();
        let mut shapes = std::collections::HashSet::new();
        for (path, item) in root.paths.0 {
            // `x-…` stands beside the paths.
            if path.starts_with("x-") {
                continue;
            }
            if item.is_reference {
                return Err(Bad::Reference);
            }
            let template = Template::parse(&path)?;
            if !shapes.insert(template.segments().to_vec()) {
                return Err(Bad::Twice);
            }
            let mut operations = Vec::with_capacity(item.operations.len());
            for (method, written) in item.operations {
                if document.operations.len() >= MAX_OPERATIONS {
                    return Err(Bad::TooMany);
                }
                operations.push((method, document.operations.len()));
                document.operations.push(Operation {
                    method,
                    path: template.clone(),
                    id: written.id.map(Into::into),
                    security: match written.security {
                        Some(own) => security(own, &schemes)?,
                        None => everywhere.clone(),
                    },
                });
            }
            let number = u32::try_from(document.items.len()).map_err(|_| Bad::TooMany)?;
            document.paths.add(&template, number);
            document.items.push(operations);
            document.templates.push(template);
        }
        Ok(document)
    }

    /// All operations, in the order of the document.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// An operation by its number.
    ///
    /// # Panics
    /// When it is not a number that [`find`](Self::find) gave.
    pub fn operation(&self, number: usize) -> &Operation {
        &self.operations[number]
    }

    /// The operations that a request may run, by their numbers; all of them have to let it pass. None: it is not in the
    /// document. `path` is normalised; HEAD is GET where the document does not name it.
    ///
    /// Where several paths match, the most concrete is meant (OpenAPI 3.1 section 4.8.8.1). Frameworks that try routes in
    /// their order run an earlier one all the same, so whatever stands before the most concrete one counts too.
    pub fn find(&self, path: &str, method: Method) -> Vec<usize> {
        let items = self.paths.find(path);
        let found = self.of_method(&items, method);
        if found.is_empty() && method == Method::Head { self.of_method(&items, Method::Get) } else { found }
    }

    fn of_method(&self, items: &[u32], method: Method) -> Vec<usize> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        for item in items.iter().filter_map(|item| usize::try_from(*item).ok()) {
            let operations = self.items.get(item).into_iter().flatten();
            found.extend(operations.filter(|(own, _)| *own == method).map(|(_, operation)| (item, *operation)));
        }
        let template = |place: usize| &self.templates[found[place].0];
        let concrete = (0..found.len())
            .reduce(|best, next| if template(next).is_more_concrete_than(template(best)) { next } else { best });
        found.truncate(concrete.map_or(0, |place| place + 1));
        found.into_iter().map(|(_, operation)| operation).collect()
    }
}

fn security(written: Vec<Ordered<Vec<String>>>, schemes: &HashMap<String, Scheme>) -> Result<Security, Bad> {
    if written.len() > MAX_SECURITY {
        return Err(Bad::TooMany);
    }
    let mut alternatives = Vec::with_capacity(written.len());
    for Ordered(demands) in written {
        if demands.len() > MAX_SECURITY || demands.iter().any(|(_, scopes)| scopes.len() > MAX_SECURITY) {
            return Err(Bad::TooMany);
        }
        let demands = demands.into_iter().map(|(name, scopes)| Demand {
            scheme: schemes.get(&name).cloned().unwrap_or(Scheme::Unknown),
            scopes: scopes.into_iter().map(Into::into).collect(),
        });
        alternatives.push(Alternative(demands.collect()));
    }
    Ok(Security(alternatives))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::security::KeyPlace;

    fn document(paths: &str) -> Document {
        let schemes = r#""b":{"type":"http","scheme":"Bearer"},"o":{"type":"oauth2","flows":{"password":{"tokenUrl":"token","scopes":{"a":""}}}},
            "k":{"type":"apiKey","in":"header","name":"X-API-Key"},"m":{"type":"mutualTLS"},"r":{"$ref":"x"},"n":{"type":"new"}"#;
        let text = format!(
            r#"{{"openapi":"3.1.0","info":{{"title":"x","x":[[[1]]]}},"paths":{{{paths}}},"components":{{"schemas":{{}},"securitySchemes":{{{schemes}}}}}}}"#
        );
        Document::parse(text.as_bytes()).expect(paths)
    }

    fn found(document: &Document, path: &str, method: Method) -> Vec<String> {
        document.find(path, method).into_iter().map(|number| document.operation(number).path.to_string()).collect()
    }

    #[test]
    fn what_a_path_means() {
        let d = document(
            r#""/":{"get":{}},"/users/me":{"get":{}},"/users/{id}":{"get":{},"delete":{},"head":{}},"/a/{x}/c":{"get":{}},
               "/a/b/{y}":{"get":{}},"/late/{id}":{"get":{}},"/late/me":{"get":{},"post":{}},"x-more":{}"#,
        );
        let get = |path: &str| found(&d, path, Method::Get);
        assert_eq!(get("/"), ["/"]);
        assert_eq!(get("/users/me"), ["/users/me"], "the concrete one, which stands first");
        assert_eq!(get("/users/7"), ["/users/{id}"]);
        assert_eq!(get("/users/7/"), ["/users/{id}"]);
        assert_eq!(found(&d, "/users/me", Method::Delete), ["/users/{id}"], "the method decides too");
        assert_eq!(found(&d, "/users/me", Method::Head), ["/users/{id}"], "named");
        assert_eq!(found(&d, "/", Method::Head), ["/"], "of GET");
        assert_eq!(get("/late/me"), ["/late/{id}", "/late/me"], "an application runs the first");
        assert_eq!(found(&d, "/late/me", Method::Post), ["/late/me"]);
        assert_eq!(get("/a/b/c"), ["/a/{x}/c", "/a/b/{y}"]);
        for nothing in ["/users", "/users/7/x", "/Users/7", "//", "/users//me"] {
            assert!(get(nothing).is_empty(), "{nothing}");
        }
        assert!(found(&d, "/users/7", Method::Post).is_empty());
    }

    #[test]
    fn whom_an_operation_is_for() {
        let d = document(
            r#""/open":{"get":{}},"/none":{"get":{"security":[]}},"/maybe":{"get":{"security":[{},{"b":[]}]}},
               "/b":{"get":{"security":[{"b":[]}]}},"/o":{"get":{"security":[{"o":["a","b"]},{"k":[]}]}},
               "/both":{"get":{"security":[{"o":["a"],"k":[]}]}},"/odd":{"get":{"security":[{"m":[]},{"r":[]},{"n":[]},{"x":[]}]}}"#,
        );
        let of = |path: &str| &d.operation(d.find(path, Method::Get)[0]).security;
        for open in ["/open", "/none", "/maybe"] {
            assert!(of(open).is_open(), "{open}");
        }
        let demand = |scheme: Scheme, scopes: &[&str]| Demand {
            scheme,
            scopes: scopes.iter().map(|scope| Box::from(*scope)).collect(),
        };
        let key = Scheme::ApiKey { place: KeyPlace::Header, name: "X-API-Key".into() };
        assert_eq!(of("/b").alternatives(), [Alternative(vec![demand(Scheme::Http("bearer".into()), &[])])]);
        assert_eq!(
            of("/o").alternatives(),
            [Alternative(vec![demand(Scheme::OAuth2, &["a", "b"])]), Alternative(vec![demand(key.clone(), &[])])]
        );
        assert_eq!(of("/both").alternatives()[0].demands(), [demand(Scheme::OAuth2, &["a"]), demand(key, &[])]);
        let odd: Vec<&Scheme> = of("/odd").alternatives().iter().map(|one| &one.demands()[0].scheme).collect();
        assert_eq!(odd, [&Scheme::MutualTls, &Scheme::Unknown, &Scheme::Unknown, &Scheme::Unknown]);
        let everywhere =
            br#"{"openapi":"3.0.3","security":[{"b":[]}],"paths":{"/a":{"get":{}},"/b":{"get":{"security":[]}}},
            "components":{"securitySchemes":{"b":{"type":"http","scheme":"bearer"}}}}"#;
        let d = Document::parse(everywhere).expect("a document");
        let open: Vec<bool> = d.operations().iter().map(|operation| operation.security.is_open()).collect();
        assert_eq!(open, [false, true]);
    }

    #[test]
    fn hostile_documents() {
        let nested = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        let deep = format!(
            r#"{{"openapi":"3.1.0","components":{{"securitySchemes":{{"b":{{"type":"http","x":{nested}}}}}}}}}"#
        );
        let many: Vec<String> = (0..=MAX_OPERATIONS).map(|n| format!(r#""/{n}":{{"get":{{}}}}"#)).collect();
        let many = format!(r#"{{"openapi":"3.1.0","paths":{{{}}}}}"#, many.join(","));
        let scopes = format!(
            r#"{{"openapi":"3.1.0","paths":{{"/a":{{"get":{{"security":[{{"b":[{}]}}]}}}}}}}}"#,
            vec!["\"a\""; 101].join(",")
        );
        let of = |paths: &str| format!(r#"{{"openapi":"3.1.0","paths":{{{paths}}}}}"#);
        for (text, expected) in [
            ("", "cannot be read"),
            ("<!doctype html>", "cannot be read"),
            ("[]", "cannot be read"),
            (r#"{"swagger":"2.0","paths":{}}"#, "cannot be read"),
            (r#"{"openapi":"2.0"}"#, "OpenAPI 3"),
            (r#"{"openapi":3.1}"#, "cannot be read"),
            (r#"{"openapi":"3.1.0","paths":{},"paths":{}}"#, "duplicate field"),
            (&of(r#""/a":{"get":{}},"/a":{"get":{}}"#), "twice"),
            (&of(r#""/a":{"get":{},"get":{}}"#), "twice"),
            (&of(r#""/a":{"get":{"security":[],"security":[]}}"#), "duplicate field"),
            (&of(r#""/a":{"get":{"security":[{"b":[],"b":[]}]}}"#), "twice"),
            (&of(r#""/a":{"get":{"security":{}}}"#), "cannot be read"),
            (&of(r#""/a/{x}":{"get":{}},"/a/{y}":{"get":{}}"#), "other names"),
            (&of(r#""/a":{"get":{}},"/a/":{"get":{}}"#), "other names"),
            (&of(r#""a":{"get":{}}"#), "cannot be meant"),
            (&of(r#""/a":{"$ref":"http://169.254.169.254/"}"#), "reference"),
            (&of(r#""/a":{"$ref":"file:///etc/passwd"}"#), "reference"),
            (&deep, "recursion limit"),
            (&many, "more members"),
            (&scopes, "longer lists"),
        ] {
            let said = Document::parse(text.as_bytes()).expect_err(text).to_string();
            assert!(said.contains(expected), "{text:.80}: {said}");
        }
        assert_eq!(Document::parse(&vec![b' '; MAX_BYTES + 1]).err(), Some(Bad::TooLong));
        // What is not read may be as deep as it likes: it is skipped without recursion.
        let skipped = format!(r#"{{"openapi":"3.1.0","x":{}1{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert!(Document::parse(skipped.as_bytes()).is_ok());
        // A null security is none of its own.
        assert!(
            document(r#""/a":{"get":{"security":null},"GET":{},"Get":{"security":[{"b":[]}]}}"#).operations().len()
                == 1
        );
    }

    #[test]
    fn a_look_up_is_bounded() {
        let word = |bits: u32| -> String {
            (0..12).map(|bit| if bits >> bit & 1 == 1 { "/a".to_owned() } else { format!("/{{p{bit}}}") }).collect()
        };
        let paths: Vec<String> = (0..4096).map(|bits| format!(r#""{}":{{"get":{{}}}}"#, word(bits))).collect();
        let document = document(&paths.join(","));
        let started = std::time::Instant::now();
        let _many = document.find(&"/a".repeat(12), Method::Get);
        assert!(started.elapsed() < std::time::Duration::from_secs(2));
        assert!(document.find(&"/b".repeat(12), Method::Get).len() == 1);
    }

    proptest! {
        /// Whatever is read: nothing panics, and what is found matches.
        #[test]
        fn of_strangers(paths in proptest::collection::vec("(/[ab{}.%é]{0,4}){1,3}", 0..6), path in "(/[ab%./]{0,3}){0,4}") {
            let members: Vec<String> = paths.iter().map(|path| format!(r#""{path}":{{"get":{{}}}}"#)).collect();
            let text = format!(r#"{{"openapi":"3.1.0","paths":{{{}}}}}"#, members.join(","));
            if let Ok(document) = Document::parse(text.as_bytes()) {
                for number in document.find(&path, Method::Get) {
                    prop_assert!(number < document.operations().len());
                }
            }
        }
    }
}
