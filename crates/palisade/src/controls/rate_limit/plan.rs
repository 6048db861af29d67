//! What holds for the requests of a rule: its limits, compiled.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, LazyLock};

use http::HeaderValue;
use palisade_base::Rate;
use palisade_policy::Problems;

use super::client::Subject;
use super::config::{By, Keys, Rates};
use super::gcra::Quota;

/// IPv6 networks of /48 get so many times the rate of a /64.
const WIDE: u64 = 16;

/// What holds for the requests of a rule. Header values are built once.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) limits: Vec<Limit>,
    /// How many of them are decided at once; the others below the login.
    at_once: usize,
    pub(super) cost: u32,
    pub(super) in_flight: Option<(Limit, u32)>,
    /// `RateLimit-Policy`.
    pub(super) policy: Option<HeaderValue>,
}

#[derive(Debug, Clone)]
pub(super) struct Limit {
    /// The same over reloads.
    pub(super) id: u64,
    /// The same in every instance, of every release.
    pub(super) name: [u8; 16],
    pub(super) by: By,
    pub(super) quota: Quota,
    wide: Quota,
    pub(super) text: Arc<str>,
    /// The value of `RateLimit` up to the number of units that are left.
    pub(super) head: Arc<str>,
}

/// When a limit is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before anything that costs more than counting.
    AtOnce,
    /// Once it is known who sends the request.
    BelowLogin,
}

impl Plan {
    /// The limits that are decided at a stage, and the number of the first.
    pub(super) fn of(&self, stage: Stage) -> (u8, &[Limit]) {
        let (at_once, below) = self.limits.split_at(self.at_once);
        match stage {
            Stage::AtOnce => (0, at_once),
            Stage::BelowLogin => (u8::try_from(self.at_once).unwrap_or(u8::MAX), below),
        }
    }

    /// Whether something is decided at a stage.
    pub(super) fn has(&self, stage: Stage) -> bool {
        !self.of(stage).1.is_empty() || self.in_flight.as_ref().is_some_and(|(limit, _)| limit.stage() == stage)
    }
}

impl Limit {
    pub(super) fn stage(&self) -> Stage {
        if self.by.needs_login() { Stage::BelowLogin } else { Stage::AtOnce }
    }

    pub(super) fn quota(&self, subject: Subject<'_>) -> &Quota {
        if matches!(subject, Subject::V6Wide(_)) { &self.wide } else { &self.quota }
    }

    /// The limit that an API key has by itself, wherever it is used.
    pub(super) fn of_key(rate: Rate) -> Option<Self> {
        static SAME: LazyLock<(u64, [u8; 16])> =
            LazyLock::new(|| (id("its own", &By::Key, 0), name("its own", &By::Key, 0)));
        let (id, name) = *SAME;
        // Of a period of a hundred years one at a time, which is the longest that is counted.
        let quota = Quota::new(rate, rate.amount()).or_else(|| Quota::new(rate, 1))?;
        let text: Arc<str> = format!("{rate} of the key").into();
        Some(Self { id, name, by: By::Key, quota, wide: quota, head: format!("\"{text}\";r=").into(), text })
    }

    /// Its item of `RateLimit-Policy`.
    pub(super) fn policy(&self, rate: Rate) -> String {
        format!("\"{}\";q={};w={}", self.text, rate.amount(), rate.period().as_secs())
    }
}

/// What one place of the policy says.
pub(super) struct Said<'p> {
    pub(super) path: String,
    pub(super) scope: String,
    pub(super) rates: &'p [Rate],
    pub(super) keys: Keys,
}

impl Said<'_> {
    pub(super) fn by(&self) -> By {
        self.keys.by.clone().unwrap_or_default()
    }

    pub(super) fn is_off(&self) -> bool {
        matches!(self.keys.limit, Some(Rates::Off(_)))
    }

    pub(super) fn limits(&self, problems: &mut Problems) -> Vec<Limit> {
        let by = self.by();
        let mut limits: Vec<Limit> = Vec::with_capacity(self.rates.len());
        for (place, rate) in self.rates.iter().enumerate() {
            let burst = self.keys.burst.unwrap_or_else(|| rate.amount());
            let Some(quota) = Quota::new(*rate, burst) else {
                problems.error(
                    &self.path,
                    format!("filling a `burst` of {burst} at `{rate}` takes longer than a hundred years"),
                    "lower `burst`",
                );
                continue;
            };
            // By rank, the longest period first, so that state is kept when number or period change, and when a shorter
            // limit joins: only what was there and is gone may be forgotten.
            let longer = |(other_place, other): (usize, &Rate)| {
                other.period() > rate.period() || other.period() == rate.period() && other_place < place
            };
            let rank = self.rates.iter().enumerate().filter(|other| longer(*other)).count();
            let text: Arc<str> = match &by {
                By::Address => rate.to_string().into(),
                By::Header(name) => format!("{rate} by {name}").into(),
                By::User | By::Key => format!("{rate} by {by}").into(),
            };
            limits.push(Limit {
                id: id(&self.scope, &by, rank),
                name: name(&self.scope, &by, rank),
                by: by.clone(),
                quota,
                wide: quota.times(WIDE),
                head: format!("\"{text}\";r=").into(),
                text,
            });
        }
        limits
    }

    /// The limit that counts requests in flight: only its identity is used.
    pub(super) fn in_flight(&self) -> Option<Limit> {
        let rate = "1/second".parse::<Rate>().ok()?;
        let quota = Quota::new(rate, 1)?;
        let by = self.by();
        let id = id(&self.scope, &by, usize::MAX);
        Some(Limit { id, name: [0; 16], by, quota, wide: quota, text: "in_flight".into(), head: "".into() })
    }
}

fn id(scope: &str, by: &By, rank: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (scope, by, rank).hash(&mut hasher);
    hasher.finish()
}

fn name(scope: &str, by: &By, rank: usize) -> [u8; 16] {
    let text = format!("{scope}\n{by}\n{rank}");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let mut name = [0; 16];
    name.copy_from_slice(&hash.as_ref()[..16]);
    name
}

/// The plan of a rule; none where nothing is limited.
pub(super) fn plan(limits: Vec<Limit>, cost: u32, in_flight: Option<(Limit, u32)>) -> Option<Arc<Plan>> {
    if limits.is_empty() && in_flight.is_none() {
        return None;
    }
    let items: Vec<String> = limits
        .iter()
        .filter_map(|limit| {
            let rate: Rate = limit.text.split(" by ").next()?.parse().ok()?;
            Some(limit.policy(rate))
        })
        .collect();
    let policy = (!items.is_empty()).then(|| HeaderValue::from_str(&items.join(", ")).ok()).flatten();
    let at_once = limits.iter().position(|limit| limit.by.needs_login()).unwrap_or(limits.len());
    Some(Arc::new(Plan { limits, at_once, cost, in_flight, policy }))
}
