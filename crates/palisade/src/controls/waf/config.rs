//! What the policy may say of the WAF.

use palisade_base::{ByteSize, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::values::PathPattern;

/// `[waf]`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The rules, in the order in which they apply: files, patterns such as `"rules/*.conf"`, or the folder of a Core Rule
    /// Set (`"/usr/share/modsecurity-crs"`), which brings its set-up and plugins along. Without rules the WAF is off.
    pub rules: Rules,
    /// The Core Rule Set's paranoia level. Set only when written; else the rules' own set-up decides (1).
    #[schemars(range(min = 1, max = 4))]
    pub paranoia: Option<u8>,
    /// The anomaly score from which the Core Rule Set refuses. Set only when written; else the rules' own set-up decides
    /// (5: one critical rule).
    #[schemars(range(min = 1, max = 10_000))]
    pub threshold: Option<u32>,
    /// What rules leave out: `{ path = "/articles", field = "json.body", rules = ["xss"] }`.
    pub exclude: Vec<Exclude>,
    /// How much of a body is inspected at most: of a multipart body the fields, files being no input of rules.
    pub body_limit: ByteSize,
    /// Encodings of bodies that are undone: rules and the application get the body as it was before. One that becomes more
    /// than a hundred times as long is refused. So is a body with any other `Content-Encoding`, or with two.
    pub encodings: Vec<Encoding>,
    /// How long rules may be evaluated for one request; then `beyond_limit` decides.
    pub budget: Interval,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            paranoia: None,
            threshold: None,
            exclude: Vec::new(),
            body_limit: ByteSize::mib(1),
            encodings: Vec::new(),
            budget: Interval::millis(50),
        }
    }
}

/// Where rules come from: one place, or several.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Rules {
    /// One file, pattern or folder.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Default for Rules {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Rules {
    /// The places as written, or, once the policy was read, from the folder of the policy.
    pub fn paths(&self) -> &[String] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }

    /// Every path with its key in the policy.
    pub(crate) fn paths_mut(&mut self) -> impl Iterator<Item = (String, &mut String)> {
        let (one, paths) = match self {
            Self::One(path) => (true, std::slice::from_mut(path)),
            Self::Several(paths) => (false, paths.as_mut_slice()),
        };
        let key = move |place| if one { "waf.rules".to_owned() } else { format!("waf.rules[{place}]") };
        let named = paths.iter_mut().enumerate().map(move |(place, path)| (key(place), path));
        named.filter(|(_, path)| *path != BUILTIN)
    }
}

/// What stands for the rules inside the binary.
pub(super) const BUILTIN: &str = "builtin";

/// Something that rules leave out.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Exclude {
    /// For which paths; without it for all.
    pub path: Option<PathPattern>,
    /// Which field: a parameter of query or form (`password`), of a JSON body (`json.user.bio`; items of lists are
    /// `json.tags.array_0`, all of them `json.tags.*`), `header.NAME`, `cookie.NAME`, `xml`, or a variable of the rule
    /// language (`REQUEST_BODY`). Without it the rules are not evaluated there at all.
    pub field: Option<String>,
    /// Which rules: numbers (`"942100"`), ranges (`"942000-942999"`), tags (`"attack-sqli"`), or a kind of attack (`"xss"`,
    /// `"sqli"`, `"rce"`, `"lfi"`). Without it all.
    pub rules: Vec<String>,
}

/// What a route may say.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Route {
    /// The paranoia level of this route.
    #[schemars(range(min = 1, max = 4))]
    pub paranoia: Option<u8>,
    /// The anomaly score from which a request of this route is refused.
    #[schemars(range(min = 1, max = 10_000))]
    pub threshold: Option<u32>,
    /// How much of a body is inspected at most.
    pub body_limit: Option<ByteSize>,
    /// Encodings of bodies that are undone on this route.
    pub encodings: Option<Vec<Encoding>>,
    /// What becomes of a request that could not be inspected wholly: too long a body, too many values, no time left. Where
    /// the API parses the body (JSON, XML, a form, fields of a multipart body), one that is too long is always refused.
    pub beyond_limit: Option<Beyond>,
}

/// An encoding that is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// `Content-Encoding: gzip` (RFC 1952).
    Gzip,
}

/// What becomes of a request that could not be inspected wholly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Beyond {
    /// It is refused.
    #[default]
    Refuse,
    /// What was inspected decides.
    InspectHead,
    /// A body that the API does not parse passes, whatever was found; of every other request what was inspected decides.
    Pass,
}
