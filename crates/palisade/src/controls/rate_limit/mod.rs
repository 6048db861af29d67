//! How many requests a client may send.
//!
//! Guide section 8. By address below `hosts`, above everything that costs more than a look-up. Counting is exact: what
//! passes is what the generic cell rate algorithm lets pass, also when many threads ask at once, and a refused request
//! costs nothing. State outlives policies; a reload refills nothing, also where it changes the rate. Sources: ITU-T I.371
//! (GCRA), draft-ietf-httpapi-ratelimit-headers-10, RFC 6585 §4; threat 27.

mod client;
mod config;
mod facts;
mod gcra;
mod plan;
mod shared;
#[cfg(all(test, feature = "redis"))]
mod shared_tests;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode, request, response};
use palisade_base::{Cidr, Rate};
use palisade_policy::Problems;

use crate::context::Context;
use crate::control::{Begun, Check, Control, Info, Routes};
use crate::controls::auth::Caller;
use crate::policy::Env;
use crate::refusal::{Code, Refusal, Stop};

use client::{BY_HEADER, Client, Subject, V6, V6_WIDE, network};
pub(crate) use config::STRICT_RATE;
pub use config::{By, Config, Keys, Off, RateText, Rates, Route, Store, WhenAway};
pub use facts::Facts;
use gcra::Outcome;
use plan::{Limit, Plan, Said, Stage, plan};
use shared::{Place, Shared};
use table::{Bucket, Flights, Key, MOST, Table};

/// More requests than the limit allows.
pub static EXCEEDED: Code = Code::client(
    "rate_limit.exceeded",
    StatusCode::TOO_MANY_REQUESTS,
    8,
    "too many requests; `Retry-After` says when to come back",
)
.owasp("excess_rate_limit_exceeded");
/// More requests at once than the route allows.
pub static IN_FLIGHT: Code = Code::client(
    "rate_limit.in_flight",
    StatusCode::TOO_MANY_REQUESTS,
    8,
    "too many requests at once; wait for the earlier ones",
)
.owasp("excess_rate_limit_exceeded");
/// The header that requests are counted by can be read in two ways.
pub static KEY: Code = Code::client(
    "rate_limit.key",
    StatusCode::BAD_REQUEST,
    8,
    "a header that requests are counted by is there twice, or too long",
)
.owasp("input_validation_fail");
/// Nobody can say how many requests there were, and the policy refuses then.
pub static AWAY: Code = Code::operator(
    "rate_limit.away",
    StatusCode::SERVICE_UNAVAILABLE,
    8,
    "requests cannot be counted at the moment; try again soon",
);

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const NANOS: u64 = 1_000_000_000;

/// The control.
#[derive(Debug)]
pub struct RateLimit {
    plans: Vec<Option<Arc<Plan>>>,
    /// Whether there may be API keys, which may have a limit of their own.
    has_keys: bool,
    exempt: Vec<Cidr>,
    table: Arc<Table>,
    flights: Arc<Flights>,
    /// Where all instances count together, if they do.
    shared: Option<Shared>,
}

/// A place among the requests in flight, given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    flights: Arc<Flights>,
    key: Key,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.flights.give_back(self.key);
    }
}

impl Control for RateLimit {
    type Config = Config;
    type Route = Route;
    const INFO: Info = Info {
        name: "rate_limit",
        section: 8,
        codes: &[&EXCEEDED, &IN_FLIGHT, &KEY, &AWAY],
        judges: true,
        about: "How many requests a client may send.",
    };

    fn compile(section: &Config, routes: &Routes<'_, Route>, env: &Env, problems: &mut Problems) -> Option<Self> {
        let mut groups = BTreeMap::new();
        let standard = Said {
            path: "rate_limit.default".into(),
            scope: "default".into(),
            rates: section.default.as_slice(),
            keys: Keys::default(),
        };
        let by_address = standard.limits(problems);
        let standard = plan(by_address.clone(), 1, None);
        let mut plans = Vec::with_capacity(routes.by_rule.len());
        for (rule, said) in routes.by_rule.iter().enumerate() {
            let Some(said) = said else {
                plans.push(standard.clone());
                continue;
            };
            let path = format!("route[{}].rate_limit", rule.saturating_sub(1));
            let keys = said.keys();
            let own_bucket = keys.limit.is_some() || keys.group.is_some() || keys.burst.is_some();
            let scope = match &keys.group {
                Some(group) => format!("group {group}"),
                None => format!("route {}", routes.names.get(rule).map_or("", String::as_str)),
            };
            let rates = keys.limit.clone().unwrap_or_else(|| section.default.clone());
            let rates = rates.as_slice();
            let said = Said { path: path.clone(), scope, rates, keys };
            if said.by().needs_login() && !env.has_login {
                problems.error(
                    &path,
                    format!("nobody is known here as a `{}`: there is no `[auth]`", said.by()),
                    "add `[auth]`, or count by `address`",
                );
            }
            let mut limits = if own_bucket || said.by() != By::Address { said.limits(problems) } else { Vec::new() };
            if limits.iter().all(|limit| limit.by != By::Address) && !said.is_off() {
                // On top of the address, never instead.
                limits = by_address.iter().cloned().chain(limits).collect();
            }
            if let Some(group) = &said.keys.group {
                let same = (said.rates.to_vec(), said.keys.burst, said.by());
                if let Some(first) = groups.get(group).filter(|first| **first != same) {
                    let _: &(Vec<Rate>, Option<u32>, By) = first;
                    problems.error(
                        &path,
                        format!("routes of the group `{group}` say different limits"),
                        "write the same limit on each, or name another group",
                    );
                }
                groups.insert(group.clone(), same);
            }
            let cost = said.keys.cost.unwrap_or(1);
            if let Some(limit) = limits.iter().find(|limit| limit.quota.take(0, cost, 0).store.is_none()) {
                problems.error(
                    &path,
                    format!("`cost = {cost}` is more than `{}` ever lets pass at once", limit.text),
                    "lower `cost`, or raise `burst`",
                );
            }
            let in_flight = said.keys.in_flight.zip(said.in_flight());
            plans.push(plan(limits, cost, in_flight.map(|(most, limit)| (limit, most))));
        }
        let shared = match (section.store, &env.redis) {
            (Store::Local, _) => None,
            (Store::Redis, Some(redis)) => {
                Some(Shared::new(redis.clone(), section.when_away, Arc::clone(&env.metrics)))
            }
            (Store::Redis, None) => {
                problems.error(
                    "rate_limit.store",
                    "there is no server that instances could share",
                    "name one: `[redis]` with `url = { secret = \"redis-url\" }`; or write `store = \"local\"`",
                );
                None
            }
        };
        (env.has_login || plans.iter().any(Option::is_some)).then(|| Self {
            plans,
            has_keys: env.has_login,
            exempt: section.exempt.clone(),
            table: env.state.get("rate_limit", || Table::new(env.clock.instant())),
            flights: env.state.get("rate_limit", Flights::default),
            shared,
        })
    }
}

/// The same control once more, below the login: limits by user and by key, and those that keys have by themselves.
#[derive(Debug)]
pub struct BelowLogin(Arc<RateLimit>);

impl BelowLogin {
    /// Where some request may be limited so.
    pub(crate) fn of(control: &Arc<RateLimit>) -> Option<Self> {
        let late = |plan: &Arc<Plan>| plan.has(Stage::BelowLogin);
        (control.has_keys || control.plans.iter().flatten().any(late)).then(|| Self(Arc::clone(control)))
    }
}

impl Check for BelowLogin {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        self.0.decide(Stage::BelowLogin, ctx, parts)
    }

    fn waits(&self) -> bool {
        self.0.waits()
    }

    fn begin<'a>(&'a self, ctx: &'a Arc<Context>, parts: &'a mut request::Parts) -> Begun<'a> {
        self.0.start(Stage::BelowLogin, ctx, parts)
    }
}

impl Check for RateLimit {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        self.decide(Stage::AtOnce, ctx, parts)
    }

    fn waits(&self) -> bool {
        self.shared.is_some()
    }

    fn begin<'a>(&'a self, ctx: &'a Arc<Context>, parts: &'a mut request::Parts) -> Begun<'a> {
        self.start(Stage::AtOnce, ctx, parts)
    }

    fn response(&self, ctx: &Context, parts: &mut response::Parts) -> Result<(), Refusal> {
        let Some(facts) = ctx.rate() else { return Ok(()) };
        let plan = self.plan(ctx);
        let own = own(ctx);
        let policy = plan.and_then(|plan| plan.policy.as_ref());
        if let Some(policy) = with_own(policy, own.as_ref()) {
            parts.headers.insert(RATE_LIMIT_POLICY, policy);
        }
        let limit = match (facts.limit, &own) {
            (OWN, Some((_, own))) => Some(own),
            (number, _) => plan.and_then(|plan| plan.limits.get(usize::from(number))),
        };
        if let Some(limit) = limit {
            parts.headers.insert(RATE_LIMIT, facts.header(&limit.head));
        }
        if parts.status == StatusCode::TOO_MANY_REQUESTS
            && parts.extensions.get::<&'static Code>().is_none()
            && !parts.headers.contains_key(RETRY_AFTER)
        {
            // The application's own limit, which does not say when to come back: not before ours would be.
            let seconds = facts.wait.div_ceil(NANOS).max(1);
            parts.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        Ok(())
    }

    fn answers(&self) -> bool {
        true
    }
}

/// The number of the limit that an API key has by itself; those of a plan are counted from zero.
const OWN: u8 = u8::MAX;

/// The limit of the API key that a request came with.
fn own(ctx: &Context) -> Option<(Rate, Limit)> {
    let rate = ctx.identity().caller()?.key_rate()?;
    Some((rate, Limit::of_key(rate)?))
}

/// `RateLimit-Policy` with the limit of the key.
fn with_own(policy: Option<&HeaderValue>, own: Option<&(Rate, Limit)>) -> Option<HeaderValue> {
    let Some((rate, own)) = own else { return policy.cloned() };
    let own = own.policy(*rate);
    let all = match policy.and_then(|policy| policy.to_str().ok()) {
        Some(policy) => format!("{policy}, {own}"),
        None => own,
    };
    HeaderValue::try_from(all).ok()
}

/// A request at a stage: what it is counted by, and as whom.
struct Counted<'a> {
    stage: Stage,
    plan: Option<&'a Plan>,
    /// The limit of its API key.
    own: Option<Limit>,
    client: Client<'a>,
}

impl Counted<'_> {
    fn cost(&self) -> u32 {
        self.plan.map_or(1, |plan| plan.cost)
    }

    /// Its limits, with their numbers.
    fn limits(&self) -> impl Iterator<Item = (u8, &Limit)> {
        let (first, limits) = self.plan.map_or((0, &[][..]), |plan| plan.of(self.stage));
        (first..).zip(limits).chain(self.own.iter().map(|own| (OWN, own)))
    }
}

impl RateLimit {
    fn plan(&self, ctx: &Context) -> Option<&Plan> {
        self.plans.get(usize::from(ctx.rule().id))?.as_deref()
    }

    /// Decides in this process.
    fn decide(&self, stage: Stage, ctx: &Context, parts: &request::Parts) -> Result<(), Stop> {
        let Some(counted) = self.counted(stage, ctx, parts) else { return Ok(()) };
        self.enter(ctx, &counted)?;
        self.decide_here(ctx, &counted)
    }

    /// Decides where the policy says.
    fn start<'a>(&'a self, stage: Stage, ctx: &'a Arc<Context>, parts: &'a request::Parts) -> Begun<'a> {
        let Some(shared) = &self.shared else { return Begun::Done(self.decide(stage, ctx, parts)) };
        let Some(counted) = self.counted(stage, ctx, parts) else { return Begun::Done(Ok(())) };
        let entered = self.enter(ctx, &counted);
        match entered.and_then(|()| Self::places(shared, &counted).map_err(Stop::from)) {
            Err(stop) => Begun::Done(Err(stop)),
            Ok(places) if places.is_empty() => Begun::Done(Ok(())),
            Ok(places) => Begun::Waits(Box::pin(async move {
                match shared.take(&places, counted.cost()).await {
                    Ok(taken) => Self::verdict(ctx, &counted, taken),
                    Err(_away) => {
                        shared.without();
                        match shared.when_away {
                            WhenAway::Local => self.decide_here(ctx, &counted),
                            WhenAway::Open => Ok(()),
                            WhenAway::Closed => Err(AWAY.refuse("the store of limits is away").retry_after(1).into()),
                        }
                    }
                }
            })),
        }
    }

    /// What a request is counted by, and as whom; none where it is not.
    fn counted<'a>(&'a self, stage: Stage, ctx: &'a Context, parts: &'a request::Parts) -> Option<Counted<'a>> {
        let plan = self.plan(ctx);
        let own = if stage == Stage::BelowLogin { own(ctx).map(|(_, limit)| limit) } else { None };
        if own.is_none() && !plan.is_some_and(|plan| plan.has(stage)) {
            return None;
        }
        let address = ctx.client_ip();
        if self.exempt.iter().any(|network| network.contains(address)) {
            return None;
        }
        let unnamed = ctx.is_behind_unnamed_proxy();
        let caller = ctx.identity().caller();
        let (user, key) = (caller.map(Caller::subject), caller.and_then(Caller::key_id));
        let client = Client { address, unnamed, headers: &parts.headers, user, key };
        Some(Counted { stage, plan, own, client })
    }

    /// Takes a place among the requests in flight, which are counted here wherever the rest is.
    fn enter(&self, ctx: &Context, counted: &Counted<'_>) -> Result<(), Stop> {
        if let Some((limit, most)) = counted.plan.and_then(|plan| plan.in_flight.as_ref())
            && limit.stage() == counted.stage
            && let Some(bucket) = self.buckets(0, limit, &counted.client)?.into_iter().flatten().next()
        {
            if !self.flights.take(bucket.key, *most) {
                // It takes nothing of the limits, and says all the same how they stand where that is known here.
                if self.shared.is_none() {
                    let stand = self.take(counted, 0, self.table.time(ctx.start))?;
                    let stand = stand.map(|(limit, outcome)| Facts::new(limit, outcome));
                    stand.into_iter().for_each(|facts| Self::say(counted.stage, ctx, facts));
                }
                return Err(IN_FLIGHT.refuse("more requests at once than `in_flight`").retry_after(1).into());
            }
            ctx.set_permit(Permit { flights: Arc::clone(&self.flights), key: bucket.key });
        }
        Ok(())
    }

    /// Counts a request in this process.
    fn decide_here(&self, ctx: &Context, counted: &Counted<'_>) -> Result<(), Stop> {
        let taken = self.take(counted, counted.cost(), self.table.time(ctx.start))?;
        Self::verdict(ctx, counted, taken)
    }

    /// Keeps for the answer how the client stands.
    fn say(stage: Stage, ctx: &Context, facts: Facts) {
        match stage {
            Stage::AtOnce => ctx.set_rate(facts),
            Stage::BelowLogin => ctx.set_rate_below_login(facts),
        }
    }

    /// What became of an attempt, said to the client.
    fn verdict(ctx: &Context, counted: &Counted<'_>, taken: Option<(u8, Outcome)>) -> Result<(), Stop> {
        let Some((number, outcome)) = taken else { return Ok(()) };
        let facts = Facts::new(number, outcome);
        Self::say(counted.stage, ctx, facts);
        if outcome.store.is_some() {
            return Ok(());
        }
        let refusal = EXCEEDED.refuse("more requests than the limit allows").retry_after(facts.wait.div_ceil(NANOS));
        Err(match counted.limits().find(|(known, _)| *known == number) {
            Some((_, limit)) => refusal.with("limit", limit.text.to_string()).into(),
            None => refusal.into(),
        })
    }

    /// Takes `cost` units of each limit, or of none. Says which limit has least left, or which refused.
    fn take(&self, counted: &Counted<'_>, cost: u32, now: u64) -> Result<Option<(u8, Outcome)>, Refusal> {
        let mut limits = counted.limits();
        let Some((number, limit)) = limits.next() else { return Ok(None) };
        let first = self.buckets(number, limit, &counted.client)?;
        let Some(second) = limits.next() else {
            let taken = self.table.take_all(first.iter().flatten(), cost, now);
            return Ok(taken.map(|(bucket, outcome)| (bucket.limit, outcome)));
        };
        let mut buckets = [None; MOST];
        let mut pairs = buckets.chunks_exact_mut(2);
        if let Some(pair) = pairs.next() {
            pair.copy_from_slice(&first);
        }
        for ((number, limit), pair) in std::iter::once(second).chain(limits).zip(pairs) {
            pair.copy_from_slice(&self.buckets(number, limit, &counted.client)?);
        }
        let taken = self.table.take_all(buckets.iter().flatten(), cost, now);
        Ok(taken.map(|(bucket, outcome)| (bucket.limit, outcome)))
    }

    /// The buckets in this process that a request is counted in under a limit.
    fn buckets<'l>(
        &self,
        number: u8,
        limit: &'l Limit,
        client: &Client<'_>,
    ) -> Result<[Option<Bucket<'l>>; 2], Refusal> {
        Ok(client.subjects(limit)?.map(|subject| {
            let subject = subject?;
            let of = |kind: u64, subject: u64| Key { limit: limit.id ^ kind, subject };
            let (key, neighbours) = match subject {
                Subject::V4(address) => (of(0, address.into()), of(0, u64::from(address) >> 16)),
                Subject::V6(prefix) => (of(V6, prefix), of(V6, prefix >> 16)),
                Subject::V6Wide(wide) => (of(V6_WIDE, wide), of(V6_WIDE, wide)),
                Subject::Value(value, address) => {
                    (of(BY_HEADER, self.table.subject(value)), of(BY_HEADER, network(address)))
                }
            };
            Some(Bucket { key, neighbours, quota: limit.quota(subject), limit: number })
        }))
    }

    /// The buckets in the shared store that a request is counted in.
    fn places(shared: &Shared, counted: &Counted<'_>) -> Result<Vec<Place>, Refusal> {
        let mut places = Vec::with_capacity(counted.limits().count() * 2);
        for (number, limit) in counted.limits() {
            for subject in counted.client.subjects(limit)?.into_iter().flatten() {
                places.push(Place { key: shared.key(limit, &subject), quota: *limit.quota(subject), limit: number });
            }
        }
        Ok(places)
    }
}
