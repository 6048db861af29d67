//! What the policy may say of limits.

use std::fmt;
use std::str::FromStr;

use http::HeaderName;
use palisade_base::{BadValue, Cidr, Rate, TextValue, text_value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an address may send where a policy says nothing.
pub(crate) const STRICT_RATE: &str = "1000/minute";

/// `[rate_limit]`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// How many requests an address may send to all routes without a limit of their own, together: `"1000/minute"`, a
    /// list of which each holds (also `"10/second;1000/day"`), or `"off"`. `N/period` lets N pass at once from rest, then one every period/N. IPv6
    /// counts by /64 and, at 16 times the rate, by /48.
    pub default: Rates,
    /// Networks that are not counted.
    pub exempt: Vec<Cidr>,
    /// Where counts are kept: `"local"`, in this instance, or `"redis"`, in the server of `[redis]`, together with all
    /// other instances. `in_flight` is counted in this instance in any case.
    pub store: Store,
    /// What becomes of requests while Redis does not answer: `"local"` counts them in this instance, `"open"` lets them
    /// pass uncounted, `"closed"` refuses them with 503.
    pub when_away: WhenAway,
}

/// Where counts are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Store {
    /// In this instance.
    #[default]
    Local,
    /// In the server of `[redis]`.
    Redis,
}

/// What becomes of requests while the store is away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum WhenAway {
    /// They are counted in this instance.
    #[default]
    Local,
    /// They pass, uncounted.
    Open,
    /// They are refused.
    Closed,
}

impl WhenAway {
    /// As in policy, status and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let rate = STRICT_RATE.parse().map(Rates::One);
        Self {
            default: rate.unwrap_or(Rates::Off(Off::Off)),
            exempt: Vec::new(),
            store: Store::default(),
            when_away: WhenAway::default(),
        }
    }
}

/// A rate, several, or none.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Rates {
    /// No limit.
    Off(Off),
    /// One, or several in one text.
    One(RateText),
    /// Each of them holds.
    Several(#[schemars(length(min = 1, max = 8))] Vec<Rate>),
}

impl Rates {
    pub(super) fn as_slice(&self) -> &[Rate] {
        match self {
            Self::Off(_) => &[],
            Self::One(rates) => &rates.0,
            Self::Several(rates) => rates,
        }
    }
}

/// Rates as slowapi's decorators take them: one, or several between `;`, `,` or `|`, each of which holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateText(Vec<Rate>);

/// In one place of the policy.
const MOST_RATES: usize = 8;

impl TextValue for RateText {
    const FORMAT: &'static str = "rates";
    const NOUN: &'static str = "a rate";
    const EXAMPLES: &'static [&'static str] = &["600/minute", "10 per second", "10/second;1000/day"];
}

impl FromStr for RateText {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let rates: Vec<Rate> = text.split([',', ';', '|']).map(str::parse).collect::<Result<_, _>>()?;
        if rates.len() > MOST_RATES {
            return Err(BadValue::new("eight rates at most"));
        }
        Ok(Self(rates))
    }
}

impl fmt::Display for RateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, rate) in self.0.iter().enumerate() {
            let between = if place == 0 { "" } else { ";" };
            write!(f, "{between}{rate}")?;
        }
        Ok(())
    }
}

text_value!(RateText);

/// `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Off {
    /// No limit.
    Off,
}

/// What a route may say: `"5/minute"`, `["10/second", "1000/day"]`, `"off"`, or a table.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Route {
    /// No limit.
    Off(Off),
    /// One, or several in one text, by address, in place of the default.
    One(RateText),
    /// Each of them holds, by address, in place of the default.
    Several(#[schemars(length(min = 1, max = 8))] Vec<Rate>),
    /// Everything that can be said.
    Keys(Box<Keys>),
}

impl Default for Route {
    fn default() -> Self {
        Self::Keys(Box::default())
    }
}

/// A route's limit as a table. What is not said stays as it is without: `{ cost = 5 }` counts five times against the
/// default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
pub struct Keys {
    /// The rate, several, or `"off"`. It takes the default's place, except that one by header, user or key comes on top of
    /// the default by address: whoever may choose a header could otherwise choose a fresh limit with each request.
    pub limit: Option<Rates>,
    /// Who is counted: `"address"`, `"user"`, `"key"` (the API key), or `"header:X-Tenant"`. A request without the header, or
    /// of nobody who is logged in, is counted by its address. Users and keys count once they are proved.
    pub by: Option<By>,
    /// How many units a request of this route costs.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub cost: Option<u32>,
    /// Routes of one group are counted together; they say the same limit.
    #[schemars(length(min = 1, max = 64))]
    pub group: Option<String>,
    /// How many units may be taken at once from rest. Default: the number of the rate.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<u32>,
    /// How many requests may be on their way at once, from their head to the last byte of their answer.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub in_flight: Option<u32>,
}

impl Route {
    pub(super) fn keys(&self) -> Keys {
        match self {
            Self::Off(off) => Keys { limit: Some(Rates::Off(*off)), ..Keys::default() },
            Self::One(rates) => Keys { limit: Some(Rates::One(rates.clone())), ..Keys::default() },
            Self::Several(rates) => Keys { limit: Some(Rates::Several(rates.clone())), ..Keys::default() },
            Self::Keys(keys) => (**keys).clone(),
        }
    }
}

/// Who is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum By {
    /// The client's address; IPv6 by /64 and, at 16 times the rate, by /48.
    #[default]
    Address,
    /// The user, on top of the address; a client that acts for itself is one too.
    User,
    /// The API key, on top of the address.
    Key,
    /// The value of a header, on top of the address.
    Header(HeaderName),
}

impl By {
    /// Whether it takes a login to know.
    pub(super) fn needs_login(&self) -> bool {
        matches!(self, Self::User | Self::Key)
    }
}

impl TextValue for By {
    const FORMAT: &'static str = "limit-key";
    const NOUN: &'static str = "what a limit counts by";
    const EXAMPLES: &'static [&'static str] = &["address", "user", "key", "header:X-Tenant"];
}

impl FromStr for By {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.split_once(':') {
            None if text == "address" => Ok(Self::Address),
            None if text == "user" => Ok(Self::User),
            None if text == "key" => Ok(Self::Key),
            Some(("header", name)) => {
                name.parse().map(Self::Header).map_err(|_| BadValue::new("not the name of a header behind `header:`"))
            }
            _ => Err(BadValue::new("requests are counted by `address`, `user`, `key` or a header")),
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("address"),
            Self::User => f.write_str("user"),
            Self::Key => f.write_str("key"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

text_value!(By);
