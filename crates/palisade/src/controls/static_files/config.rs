//! `[[static]]` as it is written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::HeaderValue;
use palisade_base::{BadValue, Interval, TextValue, text_value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::controls::integrity::hidden;
use crate::policy::values::{HostPattern, PathPattern};

/// One `[[static]]`: a directory whose files Palisade serves itself.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StaticFiles")]
pub struct Config {
    /// The path that the files lie under: `/static` serves `/static/app.js`. Of several that fit the longest is meant. Who
    /// may read them is said by a `[[route]]`, as for any other path.
    pub path: FilesPath,
    /// The directory. Relative to the policy file. Nothing outside is ever opened, and no symbolic link in it is followed.
    pub root: PathBuf,
    /// The host, exact or `"*.example.com"`. Default: every host of `server.hosts`.
    #[serde(default)]
    pub host: Option<HostPattern>,
    /// The file that stands for a directory, or `"off"`. A directory is never listed.
    #[serde(default = "index")]
    pub index: String,
    /// How long answers may be kept without asking again: `"revalidate"` (kept, and asked for each time), a length of time,
    /// `"immutable"` for files whose names change with their content, `"off"` to say nothing.
    #[serde(default)]
    pub cache: Keep,
    /// `app.js.br`, `app.js.zst` and `app.js.gz` are sent instead of `app.js` to clients that take them, unless they are
    /// older.
    #[serde(default = "yes")]
    pub precompressed: bool,
    /// Content types of further extensions: `{ ".obj" = "model/obj" }`.
    #[serde(default)]
    pub types: BTreeMap<String, String>,
}

fn index() -> String {
    "index.html".into()
}

const fn yes() -> bool {
    true
}

impl Config {
    /// The pattern of all its paths.
    pub fn pattern(&self) -> PathPattern {
        self.path.pattern()
    }
}

/// A path under which files are served: literal, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FilesPath(Box<str>);

impl FilesPath {
    /// The path; empty for `/`.
    pub fn prefix(&self) -> &str {
        &self.0
    }

    /// What is left of a normalised path that lies under this one.
    pub(super) fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(&*self.0).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn pattern(&self) -> PathPattern {
        format!("{}/*", self.0).parse().unwrap_or_default()
    }
}

impl TextValue for FilesPath {
    const FORMAT: &'static str = "files-path";
    const NOUN: &'static str = "a path for files";
    const EXAMPLES: &'static [&'static str] = &["/static", "/"];
}

impl FromStr for FilesPath {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if text.ends_with('*') || text.ends_with('+') {
            return Err(BadValue::new("everything below is meant anyway; leave out what stands behind the last slash"));
        }
        text.parse::<PathPattern>()?;
        if text.contains(['{', '}', '%', ';']) || !text.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
            return Err(BadValue::new("this path is literal: no parameters, no escapes, no spaces"));
        }
        let path = text.strip_suffix('/').unwrap_or(text);
        if path == "/.palisade" || path.starts_with("/.palisade/") {
            return Err(BadValue::new("`/.palisade` is Palisade's own"));
        }
        if hidden::is_hidden(path) {
            return Err(BadValue::new("paths with such a name are never served (`integrity.hidden_file`)"));
        }
        Ok(Self(path.into()))
    }
}

impl fmt::Display for FilesPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

text_value!(FilesPath);

/// How long answers may be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// They are kept, and asked for each time.
    #[default]
    Revalidate,
    /// So long.
    For(Interval),
    /// For good.
    Immutable,
    /// Nothing is said.
    Off,
}

impl Keep {
    /// `Cache-Control` (RFC 9111 §5.2.2, RFC 8246). Never `public`: what a login protects is for one person.
    pub(super) fn value(self) -> Option<HeaderValue> {
        match self {
            Self::Revalidate => Some(HeaderValue::from_static("no-cache")),
            Self::For(time) => HeaderValue::from_str(&format!("max-age={}", time.duration().as_secs())).ok(),
            Self::Immutable => Some(HeaderValue::from_static("max-age=31536000, immutable")),
            Self::Off => None,
        }
    }
}

impl TextValue for Keep {
    const FORMAT: &'static str = "files-cache";
    const NOUN: &'static str = "a rule for caches";
    const EXAMPLES: &'static [&'static str] = &["revalidate", "1h", "immutable", "off"];
}

impl FromStr for Keep {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            "revalidate" => Ok(Self::Revalidate),
            "immutable" => Ok(Self::Immutable),
            "off" => Ok(Self::Off),
            _ => text
                .parse()
                .map(Self::For)
                .map_err(|_| BadValue::new("it is `revalidate`, `immutable`, `off`, or a length of time such as `1h`")),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revalidate => f.write_str("revalidate"),
            Self::For(time) => time.fmt(f),
            Self::Immutable => f.write_str("immutable"),
            Self::Off => f.write_str("off"),
        }
    }
}

text_value!(Keep);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_for_files() {
        for (text, prefix, path, rest) in [
            ("/static", "/static", "/static/a.js", Some("/a.js")),
            ("/static/", "/static", "/static", Some("")),
            ("/static", "/static", "/staticfiles/a.js", None),
            ("/static", "/static", "/STATIC/a.js", None),
            ("/", "", "/a.js", Some("/a.js")),
            ("/", "", "/", Some("/")),
            ("/a/b", "/a/b", "/a", None),
            ("/.well-known", "/.well-known", "/.well-known/x", Some("/x")),
        ] {
            let parsed: FilesPath = text.parse().unwrap();
            assert_eq!((parsed.prefix(), parsed.rest(path)), (prefix, rest), "{text} {path}");
            assert!(rest.is_none() || parsed.pattern().matches(path), "{text} {path}");
        }
        for text in
            ["static", "/static/*", "/a/{id}", "/a%20b", "/.git", "/.palisade", "/.palisade/x", "/a//b", "/a/../b", ""]
        {
            assert!(text.parse::<FilesPath>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_said_to_caches() {
        for (text, header) in [
            ("revalidate", Some("no-cache")),
            ("1h", Some("max-age=3600")),
            ("immutable", Some("max-age=31536000, immutable")),
            ("off", None),
        ] {
            let keep: Keep = text.parse().unwrap();
            let value = keep.value();
            assert_eq!((keep.to_string().as_str(), value.as_ref().and_then(|v| v.to_str().ok())), (text, header));
        }
        assert!("forever".parse::<Keep>().is_err());
    }
}
