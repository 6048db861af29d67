//! Files that Palisade serves itself, from directories that cannot be left.
//!
//! Guide section 17. Below `access`, since a file is as open as the route of its path says: `[[static]]` opens nothing to
//! anybody. What can be judged by the path alone is judged in the stack; the file is opened beneath its root in one step
//! (`root.rs`), judged by its descriptor, and what was judged is what is sent (`answer.rs`). Threats 39, 41.

mod answer;
mod body;
mod check;
mod conditions;
mod config;
mod names;
mod root;
mod tags;
mod types;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{ALLOW, HeaderValue};
use http::{Method, Response, StatusCode, request};
use palisade_policy::Problems;

pub(crate) use self::check::check;
pub use self::config::{Config, FilesPath, Keep};
use self::names::Wrong;
use crate::body::ResponseBody;
use crate::context::Context;
use crate::control::{Asked, Check, Control, Info, NoRoute, Remedy, Routes};
use crate::controls::integrity::HIDDEN_FILE;
use crate::policy::config::Route;
use crate::policy::values::{HostPattern, MethodName};
use crate::policy::{Env, state_dir};
use crate::refusal::{Code, Refusal, Stop};

/// There is no such file, or none that is served.
pub static NOT_FOUND: Code =
    Code::client("static.not_found", StatusCode::NOT_FOUND, 17, "nothing is served under this path");
/// Files are read, and nothing else.
pub static METHOD: Code =
    Code::client("static.method", StatusCode::METHOD_NOT_ALLOWED, 17, "this path does not answer to this method");
/// The file is not the one that the client has.
pub static PRECONDITION: Code = Code::client(
    "static.precondition",
    StatusCode::PRECONDITION_FAILED,
    17,
    "the file is not the one that this request is about",
);
/// The part that was asked for lies behind the end.
pub static RANGE: Code = Code::client(
    "static.range",
    StatusCode::RANGE_NOT_SATISFIABLE,
    17,
    "the part that was asked for lies behind the end of the file",
);
/// A file is there and cannot be read.
pub static UNAVAILABLE: Code =
    Code::operator("static.unavailable", StatusCode::SERVICE_UNAVAILABLE, 17, "this file cannot be read just now");

/// What a directory of files answers to.
const METHODS: &str = "GET, HEAD";

/// The control.
#[derive(Debug)]
pub struct StaticFiles {
    /// Longer paths first.
    mounts: Vec<Arc<Mount>>,
    gate: body::Gate,
    tags: Arc<tags::Tags>,
}

/// An answer in the making.
type Answering<'r> = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Refusal>> + Send + 'r>>;

/// One `[[static]]`.
#[derive(Debug)]
pub(crate) struct Mount {
    path: FilesPath,
    host: Option<HostPattern>,
    root: root::Root,
    index: Option<Box<str>>,
    cache: Option<HeaderValue>,
    precompressed: bool,
    types: BTreeMap<Box<str>, HeaderValue>,
}

impl Control for StaticFiles {
    type Config = Vec<Config>;
    type Route = NoRoute;
    const INFO: Info = Info {
        name: "static",
        section: 17,
        codes: &[&NOT_FOUND, &METHOD, &PRECONDITION, &RANGE, &UNAVAILABLE],
        judges: false,
        about: "Files that Palisade serves itself, from directories that cannot be left.",
    };

    fn compile(section: &Vec<Config>, _: &Routes<'_, NoRoute>, env: &Env, problems: &mut Problems) -> Option<Self> {
        let mut mounts: Vec<Arc<Mount>> = section
            .iter()
            .enumerate()
            .map(|(place, config)| Arc::new(Mount::compile(config, &format!("static[{place}]"), env, problems)))
            .collect();
        mounts.sort_by_key(|mount| std::cmp::Reverse((mount.path.prefix().len(), mount.host.is_some())));
        let gate = env.state.get("static", body::Gate::default);
        let tags = env.state.get("static", tags::Tags::default);
        (!mounts.is_empty()).then(|| Self { mounts, gate: (*gate).clone(), tags })
    }
}

impl Mount {
    fn compile(config: &Config, key: &str, env: &Env, problems: &mut Problems) -> Self {
        if config.index.contains('/') || config.index.is_empty() || names::is_private_name(&config.index) {
            problems.error(
                &format!("{key}.index"),
                "not the name of a file that is served",
                "name one file, such as `index.html`, or write `off`",
            );
        }
        let mut types = BTreeMap::new();
        for (ending, kind) in &config.types {
            let ending = ending.strip_prefix('.').filter(|ending| !ending.is_empty() && !ending.contains(['.', '/']));
            let value = HeaderValue::from_str(kind).ok().filter(|_| kind.contains('/') && kind.is_ascii());
            match (ending, value) {
                (Some(ending), Some(value)) => {
                    types.insert(ending.to_ascii_lowercase().into(), value);
                }
                _ => {
                    problems.error(
                        &format!("{key}.types"),
                        "not an extension and its content type",
                        "write it like `types = { \".glb\" = \"model/gltf-binary\" }`",
                    );
                }
            }
        }
        Self {
            path: config.path.clone(),
            host: config.host.clone(),
            root: root::Root::new(config.root.clone(), state_dir(&env.server)),
            index: (config.index != "off").then(|| config.index.as_str().into()),
            cache: config.cache.value(),
            precompressed: config.precompressed,
            types,
        }
    }

    /// What is left of the path of a request that this one serves.
    fn rest<'p>(&self, host: &str, path: &'p str) -> Option<&'p str> {
        self.path.rest(path).filter(|_| self.host.as_ref().is_none_or(|pattern| pattern.matches(host)))
    }

    fn read(&self, rest: &str) -> Result<names::Wanted, Wrong> {
        names::read(rest, self.path.prefix().is_empty())
    }
}

impl StaticFiles {
    /// Who serves a path, and what is left of it.
    fn find<'p>(&self, ctx: &'p Context) -> Option<(&Arc<Mount>, &'p str)> {
        let path = ctx.path();
        if path == "/.palisade" || path.starts_with("/.palisade/") {
            return None;
        }
        self.mounts.iter().find_map(|mount| Some((mount, mount.rest(ctx.host(), path)?)))
    }

    /// Answers a request for a file, or refuses what is there and is not served; none where its path is nobody's here.
    /// In a box, so that the way of all other requests does not have to have room for it.
    pub(crate) fn answer<'r>(&'r self, ctx: &'r Arc<Context>, parts: &'r request::Parts) -> Option<Answering<'r>> {
        let (mount, rest) = self.find(ctx)?;
        let wanted = mount.read(rest);
        Some(Box::pin(async move { answer::answer(self, mount, wanted.map_err(refuse)?, ctx, parts).await }))
    }
}

fn refuse(wrong: Wrong) -> Refusal {
    match wrong {
        Wrong::NoName => NOT_FOUND.refuse("the path is not the name of a file"),
        Wrong::Hidden => HIDDEN_FILE.refuse("a name that is never served from a directory of files"),
    }
}

impl Check for StaticFiles {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        let Some((mount, rest)) = self.find(ctx) else { return Ok(()) };
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            let allow = HeaderValue::from_static(METHODS);
            return Err(METHOD.refuse("a file is read, and nothing else").header(ALLOW, allow).into());
        }
        mount.read(rest).map(drop).map_err(|wrong| refuse(wrong).into())
    }

    fn remedy(&self, asked: &Asked<'_>) -> Option<Remedy> {
        let change = match asked.judged.code.name {
            "static.method" => {
                "files under a `[[static]]` are read with GET and HEAD; what takes other methods belongs to a path of the application"
            }
            "static.not_found" => {
                "the root of this `[[static]]` holds the file itself: a regular file, readable by Palisade's user, without a symbolic link on the way"
            }
            "static.unavailable" => "the disk or the limits of the process are the cause; the log line says which",
            _ => return None,
        };
        Some(Remedy::Elsewhere(format!("`static` always enforces: {change}")))
    }
}

/// The routes that directories of files have by themselves, behind all that are written: the policy's defaults hold for
/// them, and logs and metrics call them by their path. With each its place in the policy. Where a route is written for
/// all the paths of a directory, that is the one.
pub(crate) fn routes(policy: &crate::controls::Config) -> Vec<(usize, Route)> {
    let files = policy.r#static.config.iter().enumerate().map(|(place, config)| {
        let methods = vec![MethodName(Method::GET)];
        (place, Route { path: config.pattern(), host: config.host.clone(), methods, ..Route::default() })
    });
    let written = |route: &Route| {
        let covers =
            |other: &Route| other.path.covers(&route.path) && (other.host.is_none() || other.host == route.host);
        policy.route.iter().any(|other| covers(&other.route))
    };
    let mut routes: Vec<(usize, Route)> = files.filter(|(_, route)| !written(route)).collect();
    routes.sort_by_key(|(_, route)| std::cmp::Reverse((route.path.as_str().len(), route.host.is_some())));
    routes
}

#[cfg(test)]
mod tests;
