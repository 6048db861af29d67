//! What was decided about recent requests: what `explain` and `report` answer from, and what `init` learns from.
//!
//! Guide section 16. Everything here is bounded, split into shards so that no two I/O threads meet at a lock, and
//! outlives reloads. A request that passes costs a hash of its id and a write of 16 bytes; one that is refused is kept
//! with what the log says about it, redacted like the log.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, StatusCode};
use palisade_base::Timestamp;
use parking_lot::Mutex;

use crate::context::{Connection, Context};
use crate::control::Mode;
use crate::observe::redact;
use crate::policy::{Policy, Rules};
use crate::refusal::{Code, Fault, Refusal};
use crate::server::request_id::RequestId;

/// Refused requests that are kept, over all shards.
pub const KEPT_REFUSED: usize = 10_000;
/// Passed requests whose outcome is kept, over all shards.
pub const KEPT_PASSED: usize = 50_000;
/// Groups of the counters, a shard.
const MAX_GROUPS: usize = 1_000;
/// Request ids, clients and requests that a group keeps as examples.
pub(crate) const SAMPLES: usize = 5;
/// Requests that it keeps where they would have been refused: each may become an exception in what `palisade init` writes.
const WATCHED: usize = 30;
const CLIENTS: usize = 10;
/// Policies whose routes are remembered, so that an answer names the line of the policy that was in force.
const POLICIES: usize = 16;
/// Bytes of one text of a request.
const MAX_TEXT: usize = 256;
/// Paths with bodies larger than the strict policy allows, a shard.
const MAX_LARGE: usize = 100;

/// One control's verdict on a request.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The control, or the part of the gateway that the code names.
    pub control: &'static str,
    /// What it said.
    pub code: &'static Code,
    /// The mode in which it ran.
    pub mode: Mode,
    /// What happened, as in the log.
    pub why: &'static str,
    /// The fields of the log line.
    pub fields: Vec<(&'static str, Box<str>)>,
}

impl Judged {
    /// A field of the log line.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }
}

/// A request that was refused, or would have been.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Its id.
    pub id: RequestId,
    /// When it was decided.
    pub time: Timestamp,
    /// The client's address.
    pub client: Box<str>,
    /// The host, empty where it was not read.
    pub host: Box<str>,
    /// The method.
    pub method: Method,
    /// The path, redacted.
    pub path: Box<str>,
    /// The number of its rule.
    pub rule: u16,
    /// The pattern of its route, or `default`.
    pub route: Arc<str>,
    /// The line of its route in the policy.
    pub line: Arc<str>,
    /// The policy it was decided under.
    pub policy: u16,
    /// The status that the client got.
    pub status: StatusCode,
    /// Whether the client was refused; else it would have been.
    pub refused: bool,
    /// Every verdict.
    pub verdicts: Vec<Judged>,
}

/// What became of a request that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was answered.
    Passed,
    /// The client left before the answer had ended.
    ClientGone,
    /// The application's answer broke off.
    Broken,
}

/// What is kept of a request that was not refused.
#[derive(Debug, Clone, Copy)]
struct Passed {
    /// A hash of the id: a lookup that fails is wrong once in 2^48.
    key: u64,
    rule: u16,
    status: u16,
    policy: u16,
    ending: Ending,
}

/// What `explain` knows of a request.
#[derive(Debug)]
pub enum Known {
    /// It was refused, or would have been.
    Decided(Box<Decision>, Option<Arc<PolicyFacts>>),
    /// It passed every control.
    Passed {
        /// Its status.
        status: u16,
        /// The route's pattern and line, where that policy is still remembered.
        route: Option<(Arc<str>, Arc<str>)>,
        /// The policy it was decided under.
        policy: Option<Arc<PolicyFacts>>,
        /// How it ended.
        ending: Ending,
    },
}

/// What is remembered of a policy that was in force.
#[derive(Debug)]
pub struct PolicyFacts {
    number: u16,
    /// The start of its hash.
    pub hash: Box<str>,
    /// Since when.
    pub since: Timestamp,
    routes: Vec<(Arc<str>, Arc<str>)>,
}

/// What is counted: a code of a control, for a route, in a mode.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// The control.
    pub control: &'static str,
    /// Its code's name.
    pub code: &'static str,
    /// The route's pattern.
    pub route: Arc<str>,
    /// `block`: was refused; `detect`: would have been.
    pub mode: &'static str,
}

/// What was seen of one [`GroupKey`].
#[derive(Debug, Clone)]
pub struct Group {
    /// How many requests.
    pub count: u64,
    /// The first.
    pub first: Timestamp,
    /// The last.
    pub last: Timestamp,
    /// The line of the route.
    pub line: Arc<str>,
    /// The number of the route's rule.
    pub rule: u16,
    /// The code.
    pub code: &'static Code,
    /// The last request ids.
    pub samples: VecDeque<RequestId>,
    /// The first clients.
    pub clients: Vec<Box<str>>,
    /// The first different requests, with what was said about them.
    pub requests: Vec<Example>,
}

/// One request of a group.
#[derive(Debug, Clone)]
pub struct Example {
    /// The method.
    pub method: Method,
    /// The host.
    pub host: Box<str>,
    /// The path with its numbers and ids as parameters, such as `/users/{id:int}`.
    pub path: Box<str>,
    /// What the control said.
    pub judged: Judged,
}

/// Bodies that are larger than the strict policy allows by default, of one method and path.
#[derive(Debug, Clone, Copy, Default)]
pub struct Large {
    /// How many.
    pub count: u64,
    /// The largest, in bytes.
    pub bytes: u64,
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub struct Summary {
    /// Every group.
    pub groups: BTreeMap<GroupKey, Group>,
    /// Requests whose group did not fit.
    pub other: u64,
    /// All requests.
    pub requests: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests that passed and would have been refused.
    pub would_refuse: u64,
    /// Large bodies, by method and path.
    pub large: BTreeMap<(String, Box<str>), Large>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    decided: VecDeque<Decision>,
    groups: HashMap<GroupKey, Group>,
    other: u64,
    passed: Vec<Passed>,
    next: usize,
    requests: u64,
    refused: u64,
    would_refuse: u64,
    large: HashMap<(Method, Box<str>), Large>,
}

/// The store. One a server; see the module.
#[derive(Debug)]
pub struct Decisions {
    shards: Box<[Shard]>,
    policies: Mutex<(u16, VecDeque<Arc<PolicyFacts>>)>,
}

impl Default for Decisions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 64);
        Self { shards: (0..threads).map(|_| Shard::default()).collect(), policies: Mutex::default() }
    }
}

/// The thread's number: threads that handle requests get different ones, and so different shards.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        mine.get()
    })
}

fn key(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

impl Decisions {
    fn shard(&self) -> &Mutex<Inside> {
        &self.shards[thread_number() % self.shards.len()].0
    }

    /// Remembers the routes of a policy that comes into force; returns the number that requests are kept with.
    pub(crate) fn policy(&self, hash: &str, rules: &Rules, since: Timestamp) -> u16 {
        let mut policies = self.policies.lock();
        // The same texts under another switch are the same policy.
        if let Some(last) = policies.1.back().filter(|last| &*last.hash == hash) {
            return last.number;
        }
        let number = policies.0.wrapping_add(1);
        policies.0 = number;
        let routes = rules.iter().map(|rule| (Arc::clone(&rule.label), Arc::clone(&rule.line))).collect();
        if policies.1.len() == POLICIES {
            policies.1.pop_front();
        }
        policies.1.push_back(Arc::new(PolicyFacts { number, hash: hash.into(), since, routes }));
        number
    }

    fn facts(&self, number: u16) -> Option<Arc<PolicyFacts>> {
        self.policies.lock().1.iter().rev().find(|facts| facts.number == number).cloned()
    }

    /// A request that was refused, or that some control would have refused.
    pub(crate) fn decided(&self, ctx: &Context, status: StatusCode, refused: Option<&Refusal>) {
        let mut verdicts: Vec<Judged> =
            refused.map(|refusal| judged(refusal.code().control(), Mode::Block, refusal)).into_iter().collect();
        verdicts.extend(ctx.verdicts().iter().map(|said| judged(said.control.info().name, said.mode, &said.refusal)));
        let rule = ctx.rule();
        let decision = Decision {
            id: *ctx.request_id(),
            time: ctx.policy.clock().now(),
            client: Box::from(&**ctx.client_text()),
            host: cut(ctx.host()),
            method: ctx.method.clone(),
            path: cut(&redact::path(ctx.path())),
            rule: rule.id,
            route: Arc::clone(&rule.label),
            line: Arc::clone(&rule.line),
            policy: ctx.policy.number(),
            status,
            refused: refused.is_some(),
            verdicts,
        };
        self.keep(decision);
    }

    /// A request whose head was refused before it was one: nothing of it is known, or to be believed.
    pub(crate) fn refused_head(
        &self,
        policy: &Policy,
        connection: &Connection,
        id: RequestId,
        code: &'static Code,
        (why, violation): (&'static str, &'static str),
    ) {
        let rule = policy.rule(0);
        let fields = vec![("violation", violation.into())];
        self.keep(Decision {
            id,
            time: policy.clock().now(),
            client: Box::from(&**connection.client_text()),
            host: Box::default(),
            method: Method::from_bytes(b"-").unwrap_or_default(),
            path: Box::default(),
            rule: rule.id,
            route: Arc::clone(&rule.label),
            line: Arc::clone(&rule.line),
            policy: policy.number(),
            status: code.status,
            refused: true,
            verdicts: vec![Judged { control: code.control(), code, mode: Mode::Block, why, fields }],
        });
    }

    fn keep(&self, decision: Decision) {
        let mut inside = self.shard().lock();
        inside.requests += 1;
        if decision.refused {
            inside.refused += 1;
        } else {
            inside.would_refuse += 1;
        }
        for judged in &decision.verdicts {
            inside.count(&decision, judged);
        }
        if inside.decided.len() >= (KEPT_REFUSED / self.shards.len()).max(1) {
            inside.decided.pop_front();
        }
        inside.decided.push_back(decision);
    }

    /// A request that passed every control.
    pub(crate) fn passed(&self, ctx: &Context, status: StatusCode, ending: Ending) {
        let entry = Passed {
            key: key(ctx.request_id().as_str()),
            rule: ctx.rule().id,
            status: status.as_u16(),
            policy: ctx.policy.number(),
            ending,
        };
        let capacity = (KEPT_PASSED / self.shards.len()).max(1);
        let mut inside = self.shard().lock();
        inside.requests += 1;
        if inside.passed.len() < capacity {
            // Once a shard, so that no request pays for growing.
            if inside.passed.capacity() < capacity {
                inside.passed.reserve_exact(capacity);
            }
            inside.passed.push(entry);
        } else {
            let next = inside.next;
            inside.passed[next] = entry;
            inside.next = (next + 1) % capacity;
        }
    }

    /// A request that passed with a body larger than the strict policy allows by default.
    pub(crate) fn large_body(&self, method: &Method, path: &str, bytes: u64) {
        let key = (method.clone(), cut(&template(&redact::path(path))));
        let mut inside = self.shard().lock();
        if inside.large.len() >= MAX_LARGE && !inside.large.contains_key(&key) {
            return;
        }
        let large = inside.large.entry(key).or_default();
        large.count += 1;
        large.bytes = large.bytes.max(bytes);
    }

    /// What is known of a request.
    pub fn find(&self, id: &str) -> Option<Known> {
        for shard in &self.shards {
            let inside = shard.0.lock();
            let found = inside.decided.iter().rev().find(|decision| decision.id.as_str() == id).cloned();
            drop(inside);
            if let Some(decision) = found {
                let facts = self.facts(decision.policy);
                return Some(Known::Decided(Box::new(decision), facts));
            }
        }
        let key = key(id);
        let passed = self.shards.iter().find_map(|shard| {
            let inside = shard.0.lock();
            inside.passed.iter().find(|passed| passed.key == key).copied()
        })?;
        let policy = self.facts(passed.policy);
        Some(Known::Passed {
            status: passed.status,
            route: policy.as_ref().and_then(|facts| facts.routes.get(usize::from(passed.rule)).cloned()),
            policy,
            ending: passed.ending,
        })
    }

    /// How many requests were refused, and how many would have been, since the start.
    pub fn counts(&self) -> (u64, u64, u64) {
        self.shards.iter().fold((0, 0, 0), |(requests, refused, would), shard| {
            let inside = shard.0.lock();
            (requests + inside.requests, refused + inside.refused, would + inside.would_refuse)
        })
    }

    /// The policy in force, and since when.
    pub fn latest(&self) -> Option<Arc<PolicyFacts>> {
        self.policies.lock().1.back().cloned()
    }

    /// Everything that was counted.
    pub fn summary(&self) -> Summary {
        let mut all = Summary::default();
        for shard in &self.shards {
            let inside = shard.0.lock();
            all.other += inside.other;
            all.requests += inside.requests;
            all.refused += inside.refused;
            all.would_refuse += inside.would_refuse;
            for ((method, path), large) in &inside.large {
                let sum = all.large.entry((method.to_string(), path.clone())).or_default();
                sum.count += large.count;
                sum.bytes = sum.bytes.max(large.bytes);
            }
            for (key, group) in &inside.groups {
                match all.groups.get_mut(key) {
                    Some(sum) => sum.add(group, examples(key.mode)),
                    None => drop(all.groups.insert(key.clone(), group.clone())),
                }
            }
        }
        all
    }
}

impl Inside {
    fn count(&mut self, decision: &Decision, judged: &Judged) {
        let mode = judged.mode.as_str();
        let (control, code, route) = (judged.control, judged.code.name, Arc::clone(&decision.route));
        let key = GroupKey { control, code, route, mode };
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            self.other += 1;
            return;
        }
        let group = self.groups.entry(key).or_insert_with(|| Group {
            count: 0,
            first: decision.time,
            last: decision.time,
            line: Arc::clone(&decision.line),
            rule: decision.rule,
            code: judged.code,
            samples: VecDeque::with_capacity(SAMPLES),
            clients: Vec::new(),
            requests: Vec::new(),
        });
        group.count += 1;
        group.last = decision.time;
        if group.samples.len() == SAMPLES {
            group.samples.pop_front();
        }
        group.samples.push_back(decision.id);
        if group.clients.len() < CLIENTS && !group.clients.contains(&decision.client) {
            group.clients.push(decision.client.clone());
        }
        if group.requests.len() < examples(mode) {
            let path = template(&decision.path);
            let known = group.requests.iter().any(|known| {
                known.method == decision.method
                    && *known.path == *path
                    && known.host == decision.host
                    && known.judged.why == judged.why
            });
            if !known {
                group.requests.push(Example {
                    method: decision.method.clone(),
                    host: decision.host.clone(),
                    path: path.into(),
                    judged: judged.clone(),
                });
            }
        }
    }
}

impl Group {
    fn add(&mut self, other: &Self, most: usize) {
        self.count += other.count;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        for id in &other.samples {
            if self.samples.len() < SAMPLES {
                self.samples.push_back(*id);
            }
        }
        for client in &other.clients {
            if self.clients.len() < CLIENTS && !self.clients.contains(client) {
                self.clients.push(client.clone());
            }
        }
        for example in &other.requests {
            let known = self.requests.iter().any(|known| {
                known.method == example.method && known.path == example.path && known.judged.why == example.judged.why
            });
            if self.requests.len() < most && !known {
                self.requests.push(example.clone());
            }
        }
    }
}

/// How many requests a group in this mode keeps.
fn examples(mode: &str) -> usize {
    if mode == Mode::Detect.as_str() { WATCHED } else { SAMPLES }
}

fn judged(control: &'static str, mode: Mode, refusal: &Refusal) -> Judged {
    let fields = refusal.fields().iter().take(8).map(|(name, value)| (*name, cut(value))).collect();
    Judged { control, code: refusal.code(), mode, why: refusal.why(), fields }
}

fn cut(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(MAX_TEXT)].into()
}

/// Of a path with more than one reading the folder that all of them lie in, as a pattern: `/files/*` of `/files/a%2Fb`. A
/// route for less is not selected by all of them, and such a request is refused whatever it says.
pub(crate) fn folder(path: &str) -> Option<String> {
    let mut before = 0;
    for segment in path.split('/') {
        if segment.contains(';') || segment.contains("%2F") || segment.contains("%3B") {
            return Some(format!("{}*", path.get(..before)?));
        }
        before += segment.len() + 1;
    }
    None
}

/// A path with numbers, UUIDs and redacted values as parameters: `/users/7` and `/users/8` are one thing. Of a path with
/// more than one reading, its folder.
pub(crate) fn template(path: &str) -> String {
    let folder = folder(path);
    let path = folder.as_deref().unwrap_or(path);
    let mut out = String::with_capacity(path.len() + 8);
    for (place, segment) in path.split('/').enumerate() {
        if place > 0 {
            out.push('/');
        }
        let kind = if segment.contains(redact::REDACTED) {
            "{value}"
        } else if !segment.is_empty() && segment.len() < 20 && segment.bytes().all(|b| b.is_ascii_digit()) {
            "{id:int}"
        } else if is_uuid(segment) {
            "{id:uuid}"
        } else {
            segment
        };
        out.push_str(kind);
    }
    out
}

fn is_uuid(segment: &str) -> bool {
    segment.len() == 36
        && segment.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

/// Whether a verdict is one that the policy could have spared the client.
pub fn is_of_policy(code: &Code) -> bool {
    code.fault == Fault::Client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_templates() {
        for (path, wanted) in [
            ("/", "/"),
            ("/notes", "/notes"),
            ("/users/7/notes/12", "/users/{id:int}/notes/{id:int}"),
            ("/n/3f2b8a10-0000-4000-8000-000000000000", "/n/{id:uuid}"),
            ("/pay/[redacted]", "/pay/{value}"),
            ("/notes;pin=[redacted]/7", "/*"),
            ("/notes/[redacted]/7", "/notes/{value}/{id:int}"),
            ("/x/", "/x/"),
            ("/files/7/a%2Fb/c", "/files/{id:int}/*"),
            ("/files/a;b=1", "/files/*"),
            ("/a%3Bb", "/*"),
            ("/a%2Eb", "/a%2Eb"),
        ] {
            assert_eq!(template(path), wanted);
        }
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        assert_eq!(cut(&"é".repeat(200)).len(), MAX_TEXT);
        assert_eq!(cut(&format!("a{}", "é".repeat(200))).len(), MAX_TEXT - 1);
    }
}
