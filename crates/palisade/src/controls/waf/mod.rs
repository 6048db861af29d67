//! The web application firewall: the OWASP Core Rule Set, or any rules of its language, over requests and answers.
//!
//! Guide section 21; threats 25 and 36. The engine is `palisade-seclang`; here is what a gateway adds: which rules, what
//! is fed to them, what their verdicts mean, what a request that cannot be inspected becomes. A request without a body is
//! judged at once. A body that rules read is held back until it was judged; every other one streams.

mod collections;
mod config;
mod exclude;
mod judge;
mod rules;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Version, request, response};
use palisade_policy::Problems;
use palisade_seclang::{Finding, RuleSet, Transaction};
use parking_lot::Mutex;

use crate::body::Start;
use crate::context::Context;
use crate::control::{Asked, Check, Control, ControlId, Info, Inspect, Mode, Peek, Remedy, Routes};
use crate::controls::limits;
use crate::observe::redact;
use crate::policy::Env;
use crate::refusal::{Code, Refusal, Stop};

pub use config::{Beyond, Config, Encoding, Exclude, Route, Rules};
use exclude::Excluded;
use rules::Variant;
pub(crate) use rules::files;

/// A rule refused the request, or the answer to it.
pub static BLOCKED: Code =
    Code::client("waf.blocked", StatusCode::FORBIDDEN, 21, "this request looks like an attack and was refused")
        .owasp("malicious_attack_tool");
/// The body cannot be read in one way only.
pub static AMBIGUOUS: Code = Code::client(
    "waf.ambiguous",
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    21,
    "the body of this request is malformed or can be read in more than one way",
)
.owasp("input_validation_fail");
/// The type or encoding of a body does not say how it is to be read.
pub static CONTENT_TYPE_CODE: Code = Code::client(
    "waf.content_type",
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    21,
    "the body of this request needs one Content-Type, a charset of UTF-8 and no Content-Encoding",
)
.owasp("input_validation_fail");
/// There is more to inspect than may be.
pub static LIMIT: Code = Code::client(
    "waf.limit",
    StatusCode::PAYLOAD_TOO_LARGE,
    21,
    "this request is too large or too complex to be inspected",
)
.owasp("input_validation_fail");

/// Heads and bodies of more bytes are judged off the I/O threads.
const INLINE: usize = 4096;
/// What is held of a multipart body before it streams: enough for a form without files.
const MULTIPART_HELD: usize = 64 * 1024;
/// How long the start of an answer is waited for where rules read answers.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// From here on it matters whether time was used or only passed.
const EXACT: Duration = Duration::from_millis(1);
/// Transactions that a thread keeps for reuse.
const SPARE: usize = 16;

/// The control.
#[derive(Debug)]
pub struct Waf(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    id: ControlId,
    sets: Vec<Arc<RuleSet>>,
    /// What rules keep, by the number of their set.
    kept: Vec<Arc<collections::Keeper>>,
    by_rule: Vec<OfRule>,
    excluded: Vec<Excluded>,
    written: Vec<Exclude>,
    budget: Duration,
    /// Whether any rule set looks at answers.
    answers: bool,
    spare: Box<[Mutex<Vec<Transaction>>]>,
}

/// What holds for one route.
#[derive(Debug, Clone, Copy)]
struct OfRule {
    set: usize,
    body_limit: usize,
    beyond: Beyond,
    /// Whether bodies in gzip are undone.
    gzip: bool,
}

/// How far a request has come.
#[derive(Debug)]
pub(crate) struct Inspection {
    transaction: Transaction,
    /// The rule set, by number.
    set: usize,
    spent: Duration,
    /// Whether the request was judged wholly.
    requested: bool,
    /// Matches that were logged already.
    logged: usize,
    /// Findings that are known already: those of the head.
    found: usize,
    body: usize,
    /// Whether it was said already what rules that only detect would have refused.
    told: bool,
    /// Whether the body's gzip is undone.
    decodes: bool,
    /// Whether the rules know the head of the answer.
    answered: bool,
}

impl Inspection {
    /// Tells the rules of the head of the answer, once.
    fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        if std::mem::replace(&mut self.answered, true) {
            return;
        }
        self.transaction.response(status.as_u16(), b"HTTP/1.1");
        for (name, value) in headers {
            self.transaction.response_header(name.as_str().as_bytes(), value.as_bytes());
        }
    }

    /// What was found beside what is known of the head.
    fn new_findings(&self) -> &[Finding] {
        self.transaction.findings().get(self.found..).unwrap_or_default()
    }
}

impl Control for Waf {
    type Config = Config;
    type Route = Route;
    const INFO: Info = Info {
        name: "waf",
        section: 21,
        codes: &[&BLOCKED, &AMBIGUOUS, &CONTENT_TYPE_CODE, &LIMIT],
        judges: true,
        about: "Rules that know attacks: the OWASP Core Rule Set, over requests and answers. Off without `rules`.",
    };

    fn compile(section: &Config, routes: &Routes<'_, Route>, env: &Env, problems: &mut Problems) -> Option<Self> {
        if section.rules.paths().is_empty() {
            idle(section, routes, problems);
            return None;
        }
        let mut variants: Vec<Variant> = Vec::new();
        let by_rule = routes.map(|route| {
            let variant = Variant {
                paranoia: route.and_then(|route| route.paranoia).or(section.paranoia),
                threshold: route.and_then(|route| route.threshold).or(section.threshold),
            };
            let known = variants.iter().position(|known| *known == variant);
            let set = known.unwrap_or_else(|| {
                variants.push(variant);
                variants.len() - 1
            });
            let body_limit = route.and_then(|route| route.body_limit).unwrap_or(section.body_limit).len();
            let encodings = route.and_then(|route| route.encodings.as_ref()).unwrap_or(&section.encodings);
            let gzip = encodings.contains(&Encoding::Gzip);
            OfRule { set, body_limit, gzip, beyond: route.and_then(|route| route.beyond_limit).unwrap_or_default() }
        });
        if section.budget.duration().is_zero() {
            problems.error("waf.budget", "no rule could be evaluated in no time", "write at least `1ms`");
        }
        let sets = rules::compile(section, &variants, env, problems)?.into_iter().map(|set| (set.rules, set.kept));
        let (sets, kept): (Vec<_>, Vec<_>) = sets.unzip();
        let excluded = exclude::compile(&section.exclude, &sets, problems);
        let id = crate::controls::INFOS.iter().position(|info| info.name == Self::INFO.name).unwrap_or_default();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Some(Self(Arc::new(Shared {
            id: ControlId(u8::try_from(id).unwrap_or_default()),
            answers: sets.iter().any(|rules| rules.reads_answers()),
            sets,
            kept,
            by_rule,
            excluded,
            written: section.exclude.clone(),
            budget: section.budget.duration(),
            spare: (0..threads.clamp(1, 64)).map(|_| Mutex::default()).collect(),
        })))
    }
}

/// Without rules nothing that was written would have an effect.
fn idle(section: &Config, routes: &Routes<'_, Route>, problems: &mut Problems) {
    let fix = "name rules in `[waf]`, such as `rules = \"/usr/share/modsecurity-crs\"`, or remove the line";
    let why = "without `rules` the WAF is off, and this has no effect";
    let written = [
        ("waf.paranoia", section.paranoia.is_some()),
        ("waf.threshold", section.threshold.is_some()),
        ("waf.exclude", !section.exclude.is_empty()),
    ];
    for (key, _) in written.iter().filter(|(_, written)| *written) {
        problems.error(key, why, fix);
    }
    for (route, said) in routes.said() {
        if said.paranoia.is_some() || said.threshold.is_some() {
            problems.error(&format!("{route}.waf"), why, fix);
        }
    }
}

impl OfRule {
    /// Whether the encoding of a body is to be undone; a refusal where it has one that stays.
    fn undoes(self, headers: &HeaderMap) -> Result<bool, Refusal> {
        let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
        let first = encodings.next().map_or(&b""[..], |value| value.as_bytes());
        let one = encodings.next().is_none();
        if one && first.eq_ignore_ascii_case(b"identity") {
            return Ok(false);
        }
        // RFC 9110 §8.4.1.3: the other name means the same.
        let gzip = first.eq_ignore_ascii_case(b"gzip") || first.eq_ignore_ascii_case(b"x-gzip");
        if one && gzip && self.gzip {
            return Ok(true);
        }
        let name = redact::text(&first.escape_ascii().to_string());
        Err(CONTENT_TYPE_CODE
            .refuse("the body is encoded, and rules would not read what is sent")
            .with("reason", format!("Content-Encoding: {name}"))
            .close())
    }
}

impl Shared {
    fn of(&self, ctx: &Context) -> OfRule {
        self.by_rule[usize::from(ctx.rule().id)]
    }

    fn take(&self, set: usize) -> Transaction {
        let spare = self.spare[crate::shard::of(self.spare.len())].lock().pop();
        match spare {
            Some(mut transaction) => {
                transaction.reset(&self.sets[set]);
                transaction
            }
            None => Transaction::new(&self.sets[set]),
        }
    }

    fn give_back(&self, inspection: Box<Inspection>) {
        // One that grew with a large request is not kept.
        if inspection.body > 1 << 16 {
            return;
        }
        let mut spare = self.spare[crate::shard::of(self.spare.len())].lock();
        if spare.len() < SPARE {
            spare.push(inspection.transaction);
        }
    }

    /// A transaction that knows the head.
    fn begin(&self, ctx: &Context, headers: &HeaderMap) -> Box<Inspection> {
        let of = self.of(ctx);
        let mut transaction = self.take(of.set);
        transaction.limit_body(of.body_limit);
        let local = ctx.connection.local;
        // Inside somebody else's application it is not known.
        let known = !local.ip().is_unspecified();
        let server = if known { palisade_base::canonical_ip(local.ip()).to_string() } else { String::new() };
        transaction.connection(ctx.client_text(), ctx.connection.peer.port(), &server, local.port());
        transaction.unique_id(ctx.request_id().as_str());
        transaction.request(ctx.method.as_str().as_bytes(), target(ctx).as_bytes(), protocol(ctx.version));
        // Over HTTP/2 the host may come as `:authority` alone.
        if ctx.version >= Version::HTTP_2 && !headers.contains_key(HOST) {
            transaction.header(b"Host", ctx.authority().as_bytes());
        }
        for (name, value) in headers {
            transaction.header(name.as_str().as_bytes(), value.as_bytes());
        }
        for excluded in &self.excluded {
            if excluded.path.as_ref().is_none_or(|path| path.matches(ctx.path())) {
                transaction.leave_out(&excluded.by_set[of.set]);
            }
        }
        Box::new(Inspection {
            transaction,
            set: of.set,
            spent: Duration::ZERO,
            requested: false,
            logged: 0,
            found: 0,
            body: 0,
            told: false,
            decodes: false,
            answered: false,
        })
    }

    /// Evaluates some rules within what is left of the budget.
    fn evaluate(&self, inspection: &mut Inspection, rules: impl FnOnce(&mut Transaction)) {
        let start = Instant::now();
        inspection.transaction.budget(self.budget.saturating_sub(inspection.spent));
        rules(&mut inspection.transaction);
        let elapsed = start.elapsed();
        // What took no longer cost no more; the exact clock costs as much as some rules.
        inspection.spent += if elapsed < EXACT { elapsed } else { inspection.transaction.used().min(elapsed) };
    }

    /// Feeds a piece of the body.
    fn feed(&self, inspection: &mut Inspection, beyond: Beyond, piece: &[u8]) -> Result<(), Refusal> {
        inspection.body = inspection.body.saturating_add(piece.len());
        inspection.transaction.body(piece);
        let new = inspection.new_findings();
        // What cannot be inspected need not be read to its end.
        match new.iter().find(|finding| finding.is_limit()) {
            Some(finding) => self.beyond(beyond, inspection, true, finding).map_err(Refusal::close),
            None => Ok(()),
        }
    }

    /// Judges the parts that are whole, in the first so many bytes of a form that is too long to be held back, by
    /// themselves: rules add up what they find, so that the form's own transaction is asked once.
    fn beginning(&self, ctx: &Context, headers: &HeaderMap, pieces: &[Bytes], whole: usize) -> Result<(), Refusal> {
        let mut inspection = self.begin(ctx, headers);
        self.evaluate(&mut inspection, |transaction| {
            transaction.request_headers();
        });
        reads(&mut inspection.transaction, headers);
        inspection.found = inspection.transaction.findings().len();
        inspection.body = whole;
        let mut left = whole;
        for piece in pieces {
            let piece = &piece[..piece.len().min(left)];
            left -= piece.len();
            inspection.transaction.body(piece);
        }
        inspection.transaction.body(b"--\r\n");
        self.evaluate(&mut inspection, |transaction| {
            transaction.request_body();
        });
        // What is ambiguous is known of the form itself: only rules are asked.
        let judged = self.judge(ctx, &inspection, true);
        self.give_back(inspection);
        judged
    }

    /// Rules of the last phase record, what rules keep is kept, and all that matched is logged.
    fn end(&self, ctx: &Context, mut inspection: Box<Inspection>) {
        if self.sets[inspection.set].has_phase(5) || self.kept[inspection.set].is_used() {
            self.evaluate(&mut inspection, Transaction::logging);
        }
        self.log(ctx, &mut inspection);
        self.give_back(inspection);
    }

    /// Keeps a request that passed until its body or its answer comes, where rules want to see that.
    fn keep(&self, ctx: &Context, mut inspection: Box<Inspection>) {
        self.log(ctx, &mut inspection);
        if inspection.requested && !self.answers {
            self.end(ctx, inspection);
        } else {
            *ctx.inspection() = Some(inspection);
        }
    }
}

/// The target as the request line has it: over HTTP/1 that may be a whole URL. Over HTTP/2 scheme and authority always
/// come, in fields of their own.
fn target(ctx: &Context) -> Cow<'_, str> {
    let path = ctx.target.path_and_query().map_or("/", PathAndQuery::as_str);
    match (ctx.target.scheme_str(), ctx.target.authority()) {
        (Some(scheme), Some(authority)) if ctx.version < Version::HTTP_2 => {
            format!("{scheme}://{authority}{path}").into()
        }
        _ => path.into(),
    }
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2.0",
        Version::HTTP_3 => b"HTTP/3.0",
        _ => b"HTTP/1.1",
    }
}

impl Check for Waf {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        // Palisade's own endpoints read strictly and put nothing together from texts. A password may look like anything, and
        // the address that a client wants its user back at looks like an attack.
        if ctx.rule().own {
            return Ok(());
        }
        let waf = &*self.0;
        let mut inspection = waf.begin(ctx, &parts.headers);
        // A call of gRPC may be a conversation, which holding it back would end, whatever its messages are called.
        let may_read = ctx.has_body && ctx.method != Method::CONNECT && !ctx.grpc;
        waf.evaluate(&mut inspection, |transaction| {
            transaction.request_headers();
            if !may_read {
                transaction.request_body();
            }
        });
        // What no rule reads by its type may still be JSON to who asks for it: its beginning tells.
        let reads =
            may_read && (reads(&mut inspection.transaction, &parts.headers) || inspection.transaction.guess_json());
        if may_read && !reads && inspection.transaction.verdict().is_none() {
            waf.evaluate(&mut inspection, |transaction| {
                transaction.request_body();
            });
        }
        inspection.requested = !reads;
        let encoded = reads && parts.headers.contains_key(CONTENT_ENCODING);
        let undone = if encoded { waf.of(ctx).undoes(&parts.headers) } else { Ok(false) };
        let judged = match (waf.judge(ctx, &inspection, false), undone) {
            (Err(refusal), _) if !refusal.is_watched() => Err(refusal),
            (_, Err(refusal)) => Err(refusal),
            (judged, Ok(decodes)) => {
                inspection.decodes = decodes;
                judged
            }
        };
        if inspection.decodes {
            // What is forwarded has none any more, and nobody knows yet how long it is.
            parts.headers.remove(CONTENT_ENCODING);
            parts.headers.remove(CONTENT_LENGTH);
        }
        inspection.found = inspection.transaction.findings().len();
        match judged {
            Ok(()) => waf.keep(ctx, inspection),
            Err(refusal) if refusal.is_watched() && reads => {
                inspection.told = true;
                waf.keep(ctx, inspection);
                return Err(refusal.into());
            }
            Err(refusal) => {
                waf.end(ctx, inspection);
                return Err(refusal.into());
            }
        }
        Ok(())
    }

    fn is_slow(&self, ctx: &Context, parts: &request::Parts) -> bool {
        target(ctx).len() + parts.headers.values().map(HeaderValue::len).sum::<usize>() > INLINE
    }

    fn can_be_slow(&self) -> bool {
        true
    }

    fn decodes(&self, ctx: &Context) -> bool {
        ctx.inspection().as_ref().is_some_and(|inspection| inspection.decodes)
    }

    fn inspect(&self, ctx: &Context, parts: &request::Parts) -> Option<Box<dyn Inspect>> {
        let mut kept = ctx.inspection();
        if kept.as_ref()?.requested {
            return None;
        }
        let of = self.0.of(ctx);
        let inspection = kept.take()?;
        let multipart = inspection.transaction.is_multipart();
        let holds = if multipart { of.body_limit.min(MULTIPART_HELD) } else { of.body_limit };
        let refuses = ctx.mode(ctx.policy.controls().waf.id) == Mode::Block;
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let streams = multipart && refuses && length.is_none_or(|length| length > holds);
        let is_slow = self.is_slow(ctx, parts);
        Some(Box::new(Reader {
            waf: Arc::clone(&self.0),
            inspection: Some(inspection),
            of,
            holds,
            refuses,
            is_slow,
            headers: streams.then(|| parts.headers.clone()),
            suspect: None,
        }))
    }

    fn inspects(&self) -> bool {
        true
    }

    fn reads(&self) -> bool {
        self.0.answers
    }

    fn peeks(&self, ctx: &Context, status: StatusCode, headers: &HeaderMap) -> Option<Peek> {
        let mut kept = ctx.inspection();
        let inspection = kept.as_mut()?;
        // Rules may have said otherwise than the settings, and what they want depends on the answer's type.
        inspection.answered(status, headers);
        let wanted = inspection.transaction.wants_response_body()
            && status != StatusCode::SWITCHING_PROTOCOLS
            && limits::media_type(headers) != "text/event-stream"
            && !headers.contains_key(CONTENT_ENCODING);
        let bytes = if wanted { self.0.sets[inspection.set].settings().response_body_limit } else { 0 };
        Some(Peek { bytes, within: ANSWER_TIME })
    }

    fn peeked(&self, ctx: &Context, parts: &mut response::Parts, start: &Start) -> Result<(), Refusal> {
        let waf = &*self.0;
        let Some(mut inspection) = ctx.inspection().take() else { return Ok(()) };
        inspection.answered(parts.status, &parts.headers);
        waf.evaluate(&mut inspection, |transaction| {
            transaction.response_headers();
            transaction.response_chunk(&start.bytes);
            transaction.response_body();
        });
        let judged = waf.judge(ctx, &inspection, true);
        waf.end(ctx, inspection);
        judged
    }

    fn answers(&self) -> bool {
        self.0.answers
    }

    fn response(&self, ctx: &Context, _: &mut response::Parts) -> Result<(), Refusal> {
        // Where the application gave no answer that rules could see, what they count is counted all the same.
        let kept = ctx.inspection().take();
        if let Some(inspection) = kept {
            self.0.end(ctx, inspection);
        }
        Ok(())
    }

    fn peeks_slowly(&self, ctx: &Context, parts: &response::Parts, start: &Start) -> bool {
        let head = parts.headers.values().map(HeaderValue::len).sum::<usize>();
        // Rules of these phases may look at the request, too.
        let request = ctx.inspection().as_ref().map_or(0, |inspection| inspection.body);
        start.bytes.len().saturating_add(head).saturating_add(request) > INLINE
    }

    fn remedy(&self, asked: &Asked<'_>) -> Option<Remedy> {
        Some(self.0.remedy(asked))
    }
}

/// Whether rules read the body of a request with this head.
fn reads(transaction: &mut Transaction, headers: &HeaderMap) -> bool {
    transaction.every_reading();
    if transaction.wants_request_body() {
        return true;
    }
    let kind = limits::media_type(headers);
    let read = limits::is_parsed(headers) && (!kind.is_empty() || headers.get_all(CONTENT_TYPE).iter().count() > 1);
    if read {
        transaction.force_request_body();
    }
    read
}

/// Feeds a body to the rules.
#[derive(Debug)]
struct Reader {
    waf: Arc<Shared>,
    inspection: Option<Box<Inspection>>,
    of: OfRule,
    holds: usize,
    /// Whether a verdict ends the request; where it is only written down, all of the body is to be judged.
    refuses: bool,
    /// Whether the head alone takes long.
    is_slow: bool,
    /// Of a form that may be too long to be held back, until its beginning was judged.
    headers: Option<HeaderMap>,
    /// What the beginning is refused for, unless the whole says otherwise.
    suspect: Option<Refusal>,
}

impl Inspect for Reader {
    fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let Some(inspection) = &mut self.inspection else { return Ok(()) };
        self.waf.feed(inspection, self.of.beyond, piece)?;
        // Of a form with files the application sees the beginning before the end was judged: what is known to be ambiguous
        // by then goes no further. Nor does what comes behind the last boundary, or it would be kept back without end.
        if self.refuses && inspection.transaction.is_multipart() && inspection.body > self.holds {
            if let Some(refusal) = self.suspect.take() {
                return Err(refusal.close());
            }
            judge::ambiguous(inspection)?;
        }
        Ok(())
    }

    fn begin(&mut self, ctx: &Context, pieces: &[Bytes]) -> Result<(), Refusal> {
        let (Some(headers), Some(inspection)) = (self.headers.take(), &self.inspection) else { return Ok(()) };
        let whole = inspection.transaction.completed_bytes();
        match self.waf.beginning(ctx, &headers, pieces, whole) {
            Err(refusal) if !refusal.is_watched() => {
                if self.holds >= self.of.body_limit {
                    return Err(refusal.close());
                }
                // A rule may miss what is yet to come: the whole decides, as far as it may be held back, as of other bodies.
                self.holds = self.of.body_limit;
                self.suspect = Some(refusal);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begins(&self) -> bool {
        let whole = |inspection: &Inspection| inspection.transaction.completed_bytes() > 0;
        self.headers.is_some() && self.inspection.as_deref().is_some_and(whole)
    }

    fn holds(&self) -> Option<usize> {
        Some(self.holds)
    }

    fn keeps(&self) -> usize {
        // Where nothing is refused, nothing has to be kept from the application either.
        let inspection = self.inspection.as_ref().filter(|_| self.refuses);
        inspection.map_or(1, |inspection| inspection.transaction.undecided_bytes().max(1))
    }

    fn finish(&mut self, ctx: &Context) -> Result<(), Refusal> {
        let Some(mut inspection) = self.inspection.take() else { return Ok(()) };
        self.waf.evaluate(&mut inspection, |transaction| {
            transaction.request_body();
        });
        inspection.requested = true;
        match self.waf.judge(ctx, &inspection, false) {
            Ok(()) => {
                self.waf.keep(ctx, inspection);
                Ok(())
            }
            Err(refusal) => {
                self.waf.end(ctx, inspection);
                Err(refusal)
            }
        }
    }

    fn lets_go(&self) -> bool {
        self.inspection.as_ref().is_some_and(|inspection| inspection.transaction.has_read_enough())
    }

    fn is_slow(&self) -> bool {
        self.is_slow || self.inspection.as_ref().is_some_and(|inspection| inspection.body > INLINE)
    }
}

#[cfg(test)]
mod tests;
