//! What an application's Python source says of hosts, origins, limits and the places of its documentation, as far as it
//! says so in literals.
//!
//! Read as text: nothing is run, and what is computed is left alone. Sections 7, 8 and 9 of the guide put
//! `TrustedHostMiddleware`, `slowapi` and `CORSMiddleware` into the application; the policy takes them over.

use palisade::policy::values::{HostPattern, OriginPattern, PathPattern, PathPrefix};
use palisade_base::Rate;
use serde_json::json;

use super::write::Setting;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// `TrustedHostMiddleware(allowed_hosts=…)`.
    pub(super) hosts: Vec<String>,
    /// `CORSMiddleware(…)`, where the policy can say the same.
    pub(super) cors: Option<Sharing>,
    /// Path and rates of `@limiter.limit("…")`.
    pub(super) limits: Vec<(String, Vec<String>)>,
    /// The arguments of `FastAPI(…)`.
    pub(super) places: Places,
}

/// Where the application has its documentation, and what it is mounted under: `FastAPI(docs_url="/d", root_path="/api")`.
/// Nothing: as FastAPI has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    docs: Option<Option<String>>,
    redoc: Option<Option<String>>,
    openapi: Option<Option<String>>,
    root_path: Option<String>,
}

impl Places {
    fn of(text: &str, app: &str) -> Self {
        let Some(arguments) = text.match_indices("FastAPI(").find_map(|(at, called)| {
            let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
            let own = text[line..at].strip_prefix(app)?.trim_start().starts_with(['=', ':']);
            own.then(|| closed(&text[at + called.len()..]))?
        }) else {
            return Self::default();
        };
        let path = |key: &str| match keyword(text, arguments, key)? {
            Value::Text(path) if path.starts_with('/') && path.parse::<PathPattern>().is_ok() => Some(Some(path)),
            Value::Word("None") => Some(None),
            _ => None,
        };
        let root_path = path("root_path").flatten().filter(|prefix| prefix.parse::<PathPrefix>().is_ok());
        Self { docs: path("docs_url"), redoc: path("redoc_url"), openapi: path("openapi_url"), root_path }
    }

    /// As keys of the policy; what FastAPI has by itself is the policy's default too.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        match &self.openapi {
            Some(Some(path)) => settings.push(Setting::new("upstream.openapi", json!(path))),
            // Without the document there are no pages either.
            Some(None) => settings.push(Setting::new("upstream.openapi", json!("off"))),
            None => {}
        }
        if let Some(prefix) = &self.root_path {
            settings.push(Setting::new("upstream.root_path", json!(prefix)));
        }
        let place = |said: &Option<Option<String>>, usual: &str| match said {
            Some(place) => place.clone(),
            None => Some(usual.to_owned()),
        };
        if self.docs.is_some() || self.redoc.is_some() {
            let pages: Vec<String> =
                [place(&self.docs, "/docs"), place(&self.redoc, "/redoc")].into_iter().flatten().collect();
            settings.push(Setting::new("headers.docs_pages", json!(pages)));
        }
        settings
    }
}

/// The arguments of `CORSMiddleware`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sharing {
    pub(super) origins: Vec<String>,
    credentials: bool,
    methods: Vec<String>,
    headers: Vec<String>,
    exposed: Vec<String>,
    max_age: u32,
}

impl Sharing {
    /// As keys of `[cors]`.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let mut settings = vec![
            Setting::new("cors.origins", json!(self.origins)),
            Setting::new("cors.credentials", json!(self.credentials)),
            Setting::new("cors.methods", json!(self.methods)),
            Setting::new("cors.max_age", json!(format!("{}s", self.max_age))),
        ];
        for (key, names) in [("cors.headers", &self.headers), ("cors.expose_headers", &self.exposed)] {
            if !names.is_empty() {
                settings.push(Setting::new(key, json!(names)));
            }
        }
        settings
    }
}

impl Source {
    /// Adds what a file says; `app` is the variable of its `FastAPI(…)`.
    pub(super) fn add(&mut self, text: &str, app: &str) {
        let text = without_comments(text);
        if self.hosts.is_empty()
            && let Some(arguments) = arguments(&text, "TrustedHostMiddleware")
            && let Some(Value::List(hosts)) = keyword(&text, arguments, "allowed_hosts")
            && hosts.iter().all(|host| host != "*" && host.parse::<HostPattern>().is_ok())
        {
            self.hosts = hosts;
        }
        if self.cors.is_none() {
            self.cors = arguments(&text, "CORSMiddleware").and_then(|arguments| sharing(&text, arguments));
        }
        self.limits.extend(limits(&text, app));
        if self.places == Places::default() {
            self.places = Places::of(&text, app);
        }
    }
}

fn sharing(text: &str, arguments: &str) -> Option<Sharing> {
    let list = |key: &str, default: &[&str]| match keyword(text, arguments, key) {
        None => Some(default.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()),
        Some(Value::List(list)) => Some(list),
        Some(_) => None,
    };
    let is_any = |list: &[String]| list.iter().any(|word| word == "*");
    if keyword(text, arguments, "allow_origin_regex").is_some() {
        return None;
    }
    let origins = list("allow_origins", &[])?;
    let credentials = match keyword(text, arguments, "allow_credentials") {
        None | Some(Value::Word("False")) => false,
        Some(Value::Word("True")) => true,
        Some(_) => return None,
    };
    let mut methods = list("allow_methods", &["GET"])?;
    if is_any(&methods) {
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].map(String::from).to_vec();
    }
    let headers = list("allow_headers", &[])?;
    let max_age = match keyword(text, arguments, "max_age") {
        None => 600,
        Some(Value::Word(number)) => number.parse().ok()?,
        Some(_) => return None,
    };
    let name =
        |word: &String| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let exposed = list("expose_headers", &[])?;
    let fits = !origins.is_empty()
        && origins.iter().all(|origin| origin.parse::<OriginPattern>().is_ok())
        // What a browser does with both is not what was meant; the application stays the author.
        && !(credentials && (is_any(&origins) || is_any(&headers)))
        && methods.iter().all(|method| !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase()))
        && headers.iter().chain(&exposed).all(|word| word == "*" || name(word));
    fits.then_some(Sharing { origins, credentials, methods, headers, exposed, max_age })
}

/// Limits of handlers that have their path for themselves: a route of the policy holds for all methods of its path.
fn limits(text: &str, app: &str) -> Vec<(String, Vec<String>)> {
    // Counted by something else than the address: not ours to translate.
    if text.contains("key_func=") && !text.contains("key_func=get_remote_address") {
        return Vec::new();
    }
    let mut handlers: Vec<(String, Option<Vec<String>>)> = Vec::new();
    let (mut path, mut rates) = (None, None);
    for line in text.lines() {
        if let Some(decorator) = line.strip_prefix('@') {
            let Some((name, rest)) = decorator.split_once('(') else { continue };
            let argument = || string(rest.trim_start()).map(|(word, _)| word);
            match name.rsplit_once('.') {
                Some((owner, "get" | "post" | "put" | "patch" | "delete" | "api_route")) if owner == app => {
                    path = argument();
                }
                Some((_, "limit")) => rates = argument(),
                _ => {}
            }
        } else if line.starts_with("def ") || line.starts_with("async def ") {
            let rates: Option<String> = rates.take();
            if let Some(path) = path.take() {
                let rates = rates.map(|rates| rates.split(';').map(|rate| rate.trim().to_owned()).collect());
                handlers.push((path, rates));
            }
        }
    }
    let alone = |path: &str| handlers.iter().filter(|(other, _)| other == path).count() == 1;
    let limited = handlers.iter().filter_map(|(path, rates)| {
        let rates = rates.clone()?;
        let fits = alone(path)
            && !path.contains(":path}")
            && path.parse::<PathPattern>().is_ok()
            && rates.iter().all(|rate| rate.parse::<Rate>().is_ok());
        fits.then(|| (path.clone(), rates))
    });
    limited.collect()
}

/// A literal.
#[derive(Debug, PartialEq, Eq)]
enum Value<'t> {
    /// A list or tuple of texts.
    List(Vec<String>),
    /// A text.
    Text(String),
    /// `True`, a number, a name; anything else too.
    Word(&'t str),
}

/// What stands behind `Name,` up to the bracket that closes it: its arguments in `add_middleware(Name, …)` and in
/// `Middleware(Name, …)`.
fn arguments<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.match_indices(name).find_map(|(at, _)| closed(text[at + name.len()..].trim_start().strip_prefix(',')?))
}

/// A text up to the bracket that closes it.
fn closed(rest: &str) -> Option<&str> {
    let mut depth = 0_u32;
    let mut place = 0;
    while let Some(c) = rest[place..].chars().next() {
        match c {
            '"' | '\'' => place += string(&rest[place..])?.1,
            '(' | '[' | '{' => (depth, place) = (depth + 1, place + 1),
            ')' | ']' | '}' if depth == 0 => return Some(&rest[..place]),
            ')' | ']' | '}' => (depth, place) = (depth - 1, place + 1),
            other => place += other.len_utf8(),
        }
    }
    None
}

/// The value of `key=` among arguments; a name of a list at the left margin of the file stands for that list.
fn keyword<'t>(text: &'t str, arguments: &'t str, key: &str) -> Option<Value<'t>> {
    let value = arguments.match_indices(key).find_map(|(at, _)| {
        let before = arguments[..at].chars().next_back();
        let own = before.is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
        arguments[at + key.len()..].trim_start().strip_prefix('=').filter(|_| own)
    })?;
    let value = literal(value.trim_start());
    let Value::Word(name) = value else { return Some(value) };
    let defined = text.lines().scan(0, |at, line| {
        let start = *at;
        *at += line.len() + 1;
        Some((start, line))
    });
    let found = defined.filter_map(|(start, line)| {
        let rest = line.strip_prefix(name)?.trim_start();
        let rest = rest.strip_prefix(':').map_or(rest, |typed| typed.find('=').map_or(typed, |at| &typed[at..]));
        let behind = rest.strip_prefix('=')?.trim_start();
        behind.starts_with(['[', '(']).then(|| literal(&text[start + line.len() - behind.len()..]))
    });
    Some(found.last().unwrap_or(Value::Word(name)))
}

fn literal(text: &str) -> Value<'_> {
    let word = || {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
        Value::Word(&text[..end])
    };
    let Some(mut rest) = text.strip_prefix(['[', '(']) else {
        return match string(text) {
            // Not the first of two that are put together.
            Some((value, length))
                if text[length..].trim_start().is_empty() || text[length..].trim_start().starts_with(',') =>
            {
                Value::Text(value)
            }
            _ => word(),
        };
    };
    let mut list = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.starts_with([']', ')']) {
            return Value::List(list);
        }
        let Some((item, length)) = string(rest) else { return Value::Word("") };
        list.push(item);
        rest = rest[length..].trim_start();
        if let Some(behind) = rest.strip_prefix(',') {
            rest = behind;
        } else if !rest.starts_with([']', ')']) {
            // Computed.
            return Value::Word("");
        }
    }
}

/// A plain text at the start: its value, and the length of its literal.
fn string(text: &str) -> Option<(String, usize)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let end = text[1..].find(quote)?;
    let value = &text[1..=end];
    (!value.contains(['\\', '\n'])).then(|| (value.to_owned(), end + 2))
}

/// Comments end at the line's end, and a `#` in a text is none.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut quote = None;
        let end = line.char_indices().find(|(_, c)| match (quote, c) {
            (None, '#') => true,
            (None, '"' | '\'') => {
                quote = Some(*c);
                false
            }
            (Some(open), c) if open == *c => {
                quote = None;
                false
            }
            _ => false,
        });
        out.push_str(end.map_or(line, |(at, _)| line[..at].trim_end()));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Source {
        let mut source = Source::default();
        source.add(text, "app");
        source
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn hosts_origins_and_limits_as_the_guide_writes_them() {
        let guide = include_str!("../../../../../tests/apps/guide/main.py");
        let source = read(guide);
        assert_eq!(source.hosts, ["yourdomain.com", "*.yourdomain.com"]);
        assert_eq!(
            source.cors,
            Some(Sharing {
                origins: words(&["https://yourdomain.com"]),
                credentials: true,
                methods: words(&["GET", "POST", "PUT", "DELETE"]),
                headers: words(&["Authorization", "Content-Type"]),
                exposed: vec![],
                max_age: 3600,
            })
        );
        assert_eq!(source.limits, [("/".to_owned(), words(&["5/minute"]))]);
    }

    #[test]
    fn what_is_not_a_literal_is_left_alone() {
        for text in [
            "app.add_middleware(CORSMiddleware, allow_origins=settings.origins)",
            "app.add_middleware(CORSMiddleware, allow_origins=[HOST])",
            "app.add_middleware(CORSMiddleware, allow_origins=[\"https://a.example\" + x])",
            "app.add_middleware(CORSMiddleware, allow_origins=[f\"https://{x}\"])",
            "app.add_middleware(CORSMiddleware, allow_origins=[\"*\"], allow_credentials=True)",
            "app.add_middleware(CORSMiddleware, allow_origins=[\"https://a.b\"], allow_credentials=True, allow_headers=[\"*\"])",
            "app.add_middleware(CORSMiddleware, allow_origins=[\"https://a.b\"], allow_origin_regex=\".*\")",
            "app.add_middleware(CORSMiddleware, allow_origins=[\"a.b/\"])",
            "app.add_middleware(CORSMiddleware, allow_origins=[\"https://a.b\"]",
            "# app.add_middleware(CORSMiddleware, allow_origins=[\"https://a.b\"])",
            "from fastapi.middleware.cors import CORSMiddleware, x",
            "app.add_middleware(TrustedHostMiddleware, allowed_hosts=[\"*\"])",
            "app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts())",
            "@app.get(\"/a\")\n@limiter.limit(RATE)\ndef a(): ...",
            "@app.get(\"/a\")\n@limiter.limit(\"sometimes\")\ndef a(): ...",
            "@router.get(\"/a\")\n@limiter.limit(\"5/minute\")\ndef a(): ...",
            "@app.get(\"/a\")\n@limiter.limit(\"5/minute\")\ndef a(): ...\n@app.post(\"/a\")\ndef b(): ...",
            "Limiter(key_func=by_user)\n@app.get(\"/a\")\n@limiter.limit(\"5/minute\")\ndef a(): ...",
            "CORSMiddleware, \"",
            "CORSMiddleware, é(",
        ] {
            assert_eq!(read(text), Source::default(), "{text}");
        }
    }

    #[test]
    fn where_the_documentation_is() {
        let settings = |call: &str| -> Vec<(String, serde_json::Value)> {
            read(call).places.settings().into_iter().map(|setting| (setting.key, setting.value)).collect()
        };
        assert_eq!(settings("app = FastAPI()"), []);
        assert_eq!(settings("app = FastAPI(docs_url=settings.docs, root_path=ROOT, openapi_url=\"/a\" + x)"), []);
        assert_eq!(settings("admin = FastAPI(docs_url=\"/d\")\napp = FastAPI()"), [], "another application");
        assert_eq!(
            settings(
                "app: FastAPI = FastAPI(\n    title=\"x (y)\",\n    docs_url='/d',\n    redoc_url=None,\n    root_path=\"/api\",\n)"
            ),
            [("upstream.root_path".into(), json!("/api")), ("headers.docs_pages".into(), json!(["/d"]))]
        );
        assert_eq!(
            settings("app = fastapi.FastAPI(openapi_url=\"/v1/openapi.json\", redoc_url=\"/r\")"),
            [
                ("upstream.openapi".into(), json!("/v1/openapi.json")),
                ("headers.docs_pages".into(), json!(["/docs", "/r"]))
            ]
        );
        assert_eq!(settings("app = FastAPI(openapi_url=None)"), [("upstream.openapi".into(), json!("off"))]);
    }

    #[test]
    fn other_spellings() {
        let text = "origins: list[str] = [\n    \"http://localhost:3000\",  # the page\n    'https://a.example',\n]\n\
                    app = FastAPI(middleware=[Middleware(CORSMiddleware, allow_origins=origins, allow_methods=['*'])])\n\
                    @app.post('/in', status_code=201)\n@limiter.limit('10/second;100/day')\nasync def put(): ...\n";
        let source = read(text);
        let cors = source.cors.unwrap();
        assert_eq!(cors.origins, ["http://localhost:3000", "https://a.example"]);
        assert_eq!((cors.credentials, cors.methods.len(), cors.max_age), (false, 6, 600));
        assert_eq!(source.limits, [("/in".to_owned(), words(&["10/second", "100/day"]))]);
    }
}
