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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    certificate: ArcText,
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
    certificates: Family<CertificateLabels, Gauge>,
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
        let certificates = Family::default();
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
        registry.register_with_unit(
            "certificate_expiry",
            "Time until a certificate ends; negative once it has",
            Unit::Seconds,
            certificates.clone(),
        );
        Self { registry, requests, upstream, refusals, saturation, certificates }
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

    /// Says in how many seconds each certificate ends; those not named are forgotten.
    pub(crate) fn certificates(&self, certificates: impl Iterator<Item = (Arc<str>, i64)>) {
        self.certificates.clear();
        for (certificate, seconds) in certificates {
            self.certificates.get_or_create(&CertificateLabels { certificate: ArcText(certificate) }).set(seconds);
        }
    }

    /// The text that Prometheus scrapes: OpenMetrics 1.0 for who asks for it, else the format 0.0.4 that everything reads.
    pub fn text(&self, openmetrics: bool) -> String {
        let mut text = String::new();
        let _ = encode(&mut text, &self.registry);
        if openmetrics { text } else { classic(&text) }
    }
}

/// OpenMetrics in the older format: there a counter's name in `HELP` and `TYPE` is that of its samples, with `_total`,
/// and there are neither units nor an end mark.
fn classic(openmetrics: &str) -> String {
    let counters: Vec<&str> =
        openmetrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut out = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        let about = |keyword: &str| line.strip_prefix(keyword).and_then(|rest| rest.split_once(' '));
        let renamed = [("# HELP ", about("# HELP ")), ("# TYPE ", about("# TYPE "))]
            .into_iter()
            .find_map(|(keyword, about)| about.filter(|(name, _)| counters.contains(name)).map(|it| (keyword, it)));
        match renamed {
            Some((keyword, (name, rest))) => {
                let _ = std::fmt::Write::write_fmt(&mut out, format_args!("{keyword}{name}_total {rest}\n"));
            }
            None if line.starts_with("# UNIT ") || line == "# EOF" => {}
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_name_what_is_promised() {
        let metrics = Metrics::default();
        metrics.refused("hosts", "hosts.unknown", Mode::Block);
        metrics.saturation("connections", 0.5);
        metrics.certificates([(Arc::from("a \"quoted\" name"), -3)].into_iter());
        let (new, old) = (metrics.text(true), metrics.text(false));
        assert!(new.ends_with("# EOF\n") && new.contains("# TYPE palisade_refusals counter\n"), "{new}");
        assert!(old.contains("# TYPE palisade_refusals_total counter\n") && !old.contains("# UNIT"), "{old}");
        for text in [&new, &old] {
            for line in [
                "palisade_refusals_total{control=\"hosts\",code=\"hosts.unknown\",mode=\"block\"} 1\n",
                "# TYPE palisade_request_seconds histogram\n",
                "# TYPE palisade_upstream_seconds histogram\n",
                "palisade_saturation{resource=\"connections\"} 0.5\n",
                "palisade_certificate_expiry_seconds{certificate=\"a \\\"quoted\\\" name\"} -3\n",
            ] {
                assert!(text.contains(line), "{line} is not in {text}");
            }
        }
        metrics.certificates(std::iter::empty());
        assert!(!metrics.text(true).contains("quoted"));
    }
}
