//! What a control is, and the plumbing that every control shares.
//!
//! A control is one module: its policy section, its verdicts, its codes, its page. Judgement sits in a function from
//! request to verdict; what a verdict means (`block`, `detect`, `off`) is decided here, the same way for all.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, request, response};
use palisade_policy::Problems;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::body::Start;
use crate::context::Context;
use crate::observe::decisions::Judged;
use crate::policy::{Env, Policy, Rule};
use crate::refusal::{Code, Refusal, Stop};

/// What a verdict of a control means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The control enforces.
    Block,
    /// The control logs and counts what it would have refused and changes no answer beyond the request id.
    Detect,
    /// The control is not there.
    Off,
}

impl Mode {
    /// As in policy, log and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Detect => "detect",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is fixed about a control.
#[derive(Debug)]
pub struct Info {
    /// Its name: of the module, the policy section, the documentation page.
    pub name: &'static str,
    /// The section of the guide.
    pub section: u8,
    /// Every code that it refuses with.
    pub codes: &'static [&'static Code],
    /// Whether it judges content or amount and so can refuse a legitimate request by mistake. Only such a control has
    /// a `mode`; the others always enforce.
    pub judges: bool,
    /// One sentence for the reference.
    pub about: &'static str,
}

/// A control by its place in the registry ([`crate::controls::INFOS`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ControlId(pub(crate) u8);

impl ControlId {
    /// What is fixed about it.
    pub fn info(self) -> &'static Info {
        crate::controls::INFOS[usize::from(self.0)]
    }
}

/// A control: how its section of the policy becomes a [`Check`].
pub trait Control: Check + Sized + 'static {
    /// What its section of the policy may say.
    type Config: DeserializeOwned + Serialize + JsonSchema + Default + fmt::Debug;
    /// What a `[[route]]` may say of it; [`NoRoute`] for nothing.
    type Route: DeserializeOwned + Serialize + JsonSchema + Default + fmt::Debug;
    /// Name, guide section, codes.
    const INFO: Info;

    /// Builds the control. Reports every problem instead of stopping at the first; key paths in problems are those of
    /// the policy file. `None`: there is nothing to do, and the control is not in the stack.
    fn compile(
        section: &Self::Config,
        routes: &Routes<'_, Self::Route>,
        env: &Env,
        problems: &mut Problems,
    ) -> Option<Self>;
}

/// A judgement on the head of a request and on the head of its answer: synchronous, without I/O.
pub trait Check: Send + Sync {
    /// Judges a request; may change its head.
    ///
    /// # Errors
    /// The refusal, or an answer of the control's own.
    fn request(&self, _ctx: &Context, _parts: &mut request::Parts) -> Result<(), Stop> {
        Ok(())
    }

    /// Changes or judges an answer. In `detect` it is run on a copy, and what it changed is counted.
    ///
    /// # Errors
    /// The refusal that takes the answer's place.
    fn response(&self, _ctx: &Context, _parts: &mut response::Parts) -> Result<(), Refusal> {
        Ok(())
    }

    /// The smallest change that would let exactly this request pass. Without an answer of the control's own, one that
    /// judges is put into `detect` for the request's route, and of one that always enforces it is said that it does.
    fn remedy(&self, _asked: &Asked<'_>) -> Option<Remedy> {
        None
    }

    /// Whether [`Check::response`] does anything: a stage without it is not visited on the way out.
    fn answers(&self) -> bool {
        false
    }

    /// How much of the body of the application's answer this control has to see before the head goes out: nothing of
    /// almost every answer, which then streams untouched.
    fn peeks(&self, _ctx: &Context, _status: StatusCode, _headers: &HeaderMap) -> Option<Peek> {
        None
    }

    /// Judges the application's answer by the start of its body, or changes its head.
    ///
    /// # Errors
    /// The refusal that takes the answer's place.
    fn peeked(&self, _ctx: &Context, _parts: &mut response::Parts, _start: &Start) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether [`Check::peeked`] may take more than a tenth of a millisecond for this answer, so that it runs off the I/O
    /// threads.
    fn peeks_slowly(&self, _ctx: &Context, _parts: &response::Parts, _start: &Start) -> bool {
        false
    }

    /// Whether [`Check::peeks`] ever asks for anything.
    fn reads(&self) -> bool {
        false
    }

    /// Whether the gzip of this request's body is to be undone before anybody reads it; this control has taken what the head
    /// said of it. Asked before [`Check::inspect`].
    fn decodes(&self, _ctx: &Context) -> bool {
        false
    }

    /// A judgement on the body of this request, fed while it streams to whoever reads it; none where its head says that
    /// there is nothing to judge. Asked once every head control has passed.
    fn inspect(&self, _ctx: &Context, _parts: &request::Parts) -> Option<Box<dyn Inspect>> {
        None
    }

    /// Whether [`Check::request`] may take more than a tenth of a millisecond for this request, so that it runs off the
    /// I/O threads.
    fn is_slow(&self, _ctx: &Context, _parts: &request::Parts) -> bool {
        false
    }

    /// Judges a request where that may take a look-up elsewhere. Asked instead of [`Check::request`] where
    /// [`Check::waits`]; what needs no look-up is decided at once, without an allocation.
    fn begin<'a>(&'a self, ctx: &'a Arc<Context>, parts: &'a mut request::Parts) -> Begun<'a> {
        Begun::Done(self.request(ctx, parts))
    }

    /// Whether [`Check::begin`] ever waits.
    fn waits(&self) -> bool {
        false
    }

    /// Whether [`Check::is_slow`] is ever true: a control without it is not asked.
    fn can_be_slow(&self) -> bool {
        false
    }

    /// How long may be waited for a body, beside what its bytes buy. The plumbing holds the watch.
    fn body_time(&self, ctx: &Context) -> Option<Duration> {
        let _ = ctx;
        None
    }

    /// Whether [`Check::inspect`] or [`Check::body_time`] ever give something: a stage without it is not asked.
    fn inspects(&self) -> bool {
        false
    }
}

/// A judgement on a head that may have to wait: the third shape of a control.
pub enum Begun<'a> {
    /// It is made.
    Done(Result<(), Stop>),
    /// It takes a look-up elsewhere. Cancel safe: a client that leaves ends it.
    Waits(Pin<Box<dyn Future<Output = Result<(), Stop>> + Send + 'a>>),
}

impl fmt::Debug for Begun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(outcome) => f.debug_tuple("Done").field(outcome).finish(),
            Self::Waits(_) => f.write_str("Waits"),
        }
    }
}

/// How much of a body is read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    /// At most so many bytes.
    pub bytes: usize,
    /// And no longer than this.
    pub within: Duration,
}

/// A judgement on a body while it streams past, in the pieces in which it happens to arrive.
pub trait Inspect: Send + fmt::Debug {
    /// How many bytes are held back until [`Inspect::finish`] has judged the whole; of a longer body the rest streams, but
    /// for its end. `None`: everything streams, and there is no last judgement.
    fn holds(&self) -> Option<usize> {
        None
    }

    /// How many bytes make the end of what was fed: while a longer body streams, so many stay back. Where a body can be taken
    /// for whole before its last byte these are more than one, and grow with all that follows.
    fn keeps(&self) -> usize {
        1
    }

    /// A first judgement, on all that came so far, once that is more than [`Inspect::holds`] and before any of it goes; may
    /// hold back more from then on. Without it the beginning of a longer body goes as it is.
    ///
    /// # Errors
    /// The refusal, which ends the body.
    fn begin(&mut self, _ctx: &Context, _pieces: &[Bytes]) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether [`Inspect::begin`] has something to judge.
    fn begins(&self) -> bool {
        false
    }

    /// Whether the rest of the body is of no interest, because what came so far says enough: [`Inspect::finish`] judges now,
    /// and the rest streams without being fed.
    fn lets_go(&self) -> bool {
        false
    }

    /// The last judgement: the whole body was fed, or as much as it takes, and the application has not seen its end.
    ///
    /// # Errors
    /// The refusal.
    fn finish(&mut self, _ctx: &Context) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether [`Inspect::finish`], or [`Inspect::begin`], may take more than a tenth of a millisecond, so that it runs off
    /// the I/O threads.
    fn is_slow(&self) -> bool {
        false
    }

    /// Judges the next piece.
    ///
    /// # Errors
    /// The refusal, which ends the body; in `detect` it is recorded, and this inspector is fed no more.
    fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal>;
}

/// A request that was refused, or would have been, as [`Check::remedy`] sees it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What the control said.
    pub judged: &'a Judged,
    /// The method.
    pub method: &'a Method,
    /// The host, empty where it was not read.
    pub host: &'a str,
    /// The path, redacted.
    pub path: &'a str,
    /// The client's address.
    pub client: &'a str,
    /// The policy in force now.
    pub policy: &'a Policy,
    /// The request's rule in it.
    pub rule: &'a Rule,
}

/// What would let a request pass that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// A key of the request's route, such as `limits = { body = "2MiB" }`.
    Route(String),
    /// Lines of a section, its header included.
    Section(String),
    /// Nothing that a policy could say: what has to change instead.
    Elsewhere(String),
}

/// A control's section of the policy: its own keys, and `mode` where the control judges.
#[derive(Debug)]
pub struct Section<C: Control> {
    /// `mode`, where it was written.
    pub mode: Option<Mode>,
    /// The control's own keys.
    pub config: C::Config,
}

impl<C: Control> Default for Section<C> {
    fn default() -> Self {
        Self { mode: None, config: C::Config::default() }
    }
}

/// What one `[[route]]` says of a control.
#[derive(Debug)]
pub struct RouteSection<C: Control> {
    /// `mode`, where it was written.
    pub mode: Option<Mode>,
    /// The control's own keys.
    pub config: C::Route,
}

/// The routes of a policy as one control sees them: its own keys, where the route has them, by rule number.
#[derive(Debug)]
pub struct Routes<'p, R> {
    /// For each rule; the default rule, number 0, has none.
    pub by_rule: Vec<Option<&'p R>>,
    /// For each rule, what it is called as long as its host, methods and path stay as written: state that outlives a
    /// reload is kept by it.
    pub names: &'p [String],
}

impl<'p, R> Routes<'p, R> {
    /// Merges for each rule: `merge` gets what the route says, or nothing.
    pub fn map<T>(&self, mut merge: impl FnMut(Option<&'p R>) -> T) -> Vec<T> {
        self.by_rule.iter().map(|route| merge(*route)).collect()
    }

    /// What routes say, with the key path of the route (`route[2]`) for problems.
    pub fn said(&self) -> impl Iterator<Item = (String, &'p R)> + '_ {
        self.by_rule
            .iter()
            .enumerate()
            .filter_map(|(rule, said)| said.map(|said| (format!("route[{}]", rule - 1), said)))
    }
}

/// A route has nothing to say of a control.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct NoRoute {}

impl JsonSchema for NoRoute {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NoRoute".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "x-absent": true })
    }
}

/// Splits `mode` from the rest of a section. Sections are small and read once, so a detour through a value is fine.
fn split<'de, T: DeserializeOwned, D: Deserializer<'de>>(deserializer: D) -> Result<(Option<Mode>, T), D::Error> {
    use serde::de::Error as _;
    let mut value = serde_json::Value::deserialize(deserializer)?;
    let mode = match &mut value {
        serde_json::Value::Object(table) => table.remove("mode"),
        _ => None,
    };
    let mode = mode.map(serde_json::from_value).transpose().map_err(D::Error::custom)?;
    Ok((mode, serde_json::from_value(value).map_err(D::Error::custom)?))
}

impl<'de, C: Control> Deserialize<'de> for Section<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        split(deserializer).map(|(mode, config)| Self { mode, config })
    }
}

impl<'de, C: Control> Deserialize<'de> for RouteSection<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        split(deserializer).map(|(mode, config)| Self { mode, config })
    }
}

impl<C: Control> Serialize for Section<C> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.config.serialize(serializer)
    }
}

fn with_mode<C: Control>(mut schema: Schema, default: Option<&str>) -> Schema {
    let mut mode = if C::INFO.judges {
        serde_json::json!({
            "description": "`block` enforces, `detect` logs and counts what would have been refused, `off` removes the control.",
            "enum": ["block", "detect", "off"],
        })
    } else {
        // Named, so that a policy which asks for another mode is told why it cannot have it.
        serde_json::json!({
            "description": "This control always enforces; no other mode exists.",
            "enum": ["block"],
            "x-why": "this control always enforces, since it decides what a request is or who may send it: remove the line",
        })
    };
    if let Some(default) = default {
        mode["default"] = default.into();
    }
    let add = |object: &mut serde_json::Map<String, serde_json::Value>| {
        if let Some(serde_json::Value::Object(properties)) = object.get_mut("properties") {
            properties.insert("mode".into(), mode.clone());
            true
        } else if object.get("type").is_some_and(|kind| kind == "object") {
            object.insert("properties".into(), serde_json::json!({ "mode": mode.clone() }));
            true
        } else {
            false
        }
    };
    let Some(object) = schema.as_object_mut() else { return schema };
    if !add(object) {
        for alternatives in ["anyOf", "oneOf"] {
            for alternative in object.get_mut(alternatives).and_then(|a| a.as_array_mut()).into_iter().flatten() {
                if let Some(alternative) = alternative.as_object_mut() {
                    add(alternative);
                }
            }
        }
    }
    schema
}

impl<C: Control> JsonSchema for Section<C> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Section_{}", C::INFO.name).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = with_mode::<C>(C::Config::json_schema(generator), Some("block"));
        schema.insert("description".into(), C::INFO.about.into());
        schema.insert("x-guide-section".into(), C::INFO.section.into());
        schema
    }
}

impl<C: Control> JsonSchema for RouteSection<C> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Route_{}", C::INFO.name).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        with_mode::<C>(C::Route::json_schema(generator), None)
    }
}

/// One stage of the stack: a control and its number.
#[derive(Clone)]
pub struct Stage {
    /// Which control.
    pub control: ControlId,
    /// The control itself.
    pub check: Arc<dyn Check>,
    /// Whether it may have to run off the I/O threads.
    pub slow: bool,
    /// Whether it may have to look something up elsewhere.
    pub waits: bool,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.control.info().name)
    }
}

/// Ties a type to its number in the registry, so that `stack.rs` can name controls by their fields.
#[derive(Debug)]
pub struct Compiled<C> {
    /// Its number.
    pub id: ControlId,
    /// The control, where there is one.
    pub control: Option<Arc<C>>,
    marker: PhantomData<C>,
}

impl<C> Compiled<C> {
    pub(crate) fn new(id: ControlId, control: Option<C>) -> Self {
        Self { id, control: control.map(Arc::new), marker: PhantomData }
    }
}
