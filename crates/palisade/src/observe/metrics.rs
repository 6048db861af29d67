//! Metrics for Prometheus. Labels come from the policy, never from a request, so that nobody can grow them.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::control::Mode;
use crate::policy::Rule;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: ArcText,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    control: &'static str,
    code: &'static str,
    mode: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: &'static str,
}

/// Shared text as a label value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ArcText(Arc<str>);

impl prometheus_client::encoding::EncodeLabelValue for ArcText {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>) -> fmt::Result {
        prometheus_client::encoding::EncodeLabelValue::encode(&&*self.0, encoder)
    }
}

const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The metrics of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RouteLabels, Histogram, fn() -> Histogram>,
    upstream: Family<RouteLabels, Histogram, fn() -> Histogram>,
    refusals: Family<RefusalLabels, Counter>,
    saturation: Family<ResourceLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("palisade");
        let requests = Family::new_with_constructor(histogram as fn() -> Histogram);
        let upstream = Family::new_with_constructor(histogram as fn() -> Histogram);
        let refusals = Family::default();
        let saturation = Family::default();
        registry.register_with_unit(
            "request",
            "Time of a request without the upstream's part",
            Unit::Seconds,
            requests.clone(),
        );
        registry.register_with_unit(
            "upstream",
            "Time to the first byte of the upstream's answer",
            Unit::Seconds,
            upstream.clone(),
        );
        registry.register("refusals", "Requests refused, or that would have been", refusals.clone());
        registry.register("saturation", "Share of a bounded resource in use, 0 to 1", saturation.clone());
        Self { registry, requests, upstream, refusals, saturation }
    }
}

impl Metrics {
    pub(crate) fn request(&self, rule: &Rule, status: StatusCode, micros: u64, upstream_micros: Option<u64>) {
        let labels = RouteLabels { route: ArcText(Arc::clone(&rule.label)), status: class(status) };
        let own = micros.saturating_sub(upstream_micros.unwrap_or(0));
        self.requests.get_or_create(&labels).observe(own as f64 / 1e6);
        if let Some(micros) = upstream_micros {
            self.upstream.get_or_create(&labels).observe(micros as f64 / 1e6);
        }
    }

    pub(crate) fn refused(&self, control: &'static str, code: &'static str, mode: Mode) {
        self.refusals.get_or_create(&RefusalLabels { control, code, mode: mode.as_str() }).inc();
    }

    /// Says how full a bounded resource is, from 0 to 1.
    pub fn saturation(&self, resource: &'static str, share: f64) {
        self.saturation.get_or_create(&ResourceLabels { resource }).set(share);
    }

    /// The text that Prometheus scrapes.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
