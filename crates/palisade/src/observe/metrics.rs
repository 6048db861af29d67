//! Metrics for Prometheus. Labels come from the policy, never from a request, so that nobody can grow them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::timing::Timing;
use crate::control::Mode;
use crate::policy::Rule;

/// A metric as Prometheus knows it.
#[derive(Debug)]
pub struct Metric {
    /// Its name: that of its samples, or what those of a histogram begin with.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels, in order; their meaning is in [`LABELS`].
    pub labels: &'static [&'static str],
    /// What it says: its `HELP`.
    pub about: &'static str,
}

macro_rules! metrics {
    ($($(#[doc = $about:literal])* $ident:ident = $kind:ident $name:literal $labels:tt;)*) => {
        $($(#[doc = $about])* static $ident: Metric =
            Metric { name: $name, kind: stringify!($kind), labels: &$labels, about: concat!($($about),*) };)*
        /// Every metric, in the order of the exposition. Public interface.
        pub static METRICS: &[&Metric] = &[$(&$ident),*];
    };
}

metrics! {
    /// Time of a request without the upstream's part
    REQUEST = histogram "palisade_request_seconds" ["route", "status"];
    /// Time to the first byte of the upstream's answer
    UPSTREAM = histogram "palisade_upstream_seconds" ["route", "status"];
    /// Requests refused, or that would have been
    REFUSALS = counter "palisade_refusals_total" ["control", "code", "mode"];
    /// Share of a bounded resource in use, 0 to 1
    SATURATION = gauge "palisade_saturation" ["resource"];
    /// Time until a certificate ends; negative once it has
    CERTIFICATE = gauge "palisade_certificate_expiry_seconds" ["certificate"];
    /// Whether something that controls depend on answers
    DEPENDENCY = gauge "palisade_dependency_up" ["dependency"];
    /// Requests decided without something that was away
    AWAY = counter "palisade_away_total" ["control", "dependency", "when_away"];
    /// Mails by what became of them
    MAILS = counter "palisade_mails_total" ["kind", "outcome"];
}

/// The labels of the metrics: each with what it says. Public interface.
pub static LABELS: &[(&str, &str)] = &[
    ("certificate", "its file, or `local authority`"),
    ("code", "the code of the refusal"),
    ("control", "the control that decided, or the part of the server that the code names"),
    ("dependency", "`redis` or `mail`"),
    ("kind", "what the mail is for, such as `reset`"),
    ("mode", "`block`: refused; `detect`: would have been"),
    ("outcome", "`sent`, `delayed` (it will be tried again) or `dropped`"),
    ("resource", "`connections`, `handshakes` or `mail`"),
    ("route", "the path of the `[[route]]` that matched, or of a `[[static]]`, or `default`"),
    ("status", "the class of the answer's status: `1xx` to `5xx`"),
    ("when_away", "what was done instead"),
];

impl Metric {
    /// Registers what it is counted in, under its name: the library adds the prefix, the unit and the `_total` of counters.
    fn register(&self, registry: &mut Registry, counted: impl prometheus_client::registry::Metric) {
        let (name, about) = (self.name.strip_prefix("palisade_").unwrap_or(self.name), self.about.trim());
        match name.strip_suffix("_seconds") {
            Some(name) => registry.register_with_unit(name, about, Unit::Seconds, counted),
            None => registry.register(name.strip_suffix("_total").unwrap_or(name), about, counted),
        }
    }
}

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DependencyLabels {
    dependency: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AwayLabels {
    control: &'static str,
    dependency: &'static str,
    when_away: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MailLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// Shared text as a label value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ArcText(Arc<str>);

impl prometheus_client::encoding::EncodeLabelValue for ArcText {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>) -> fmt::Result {
        prometheus_client::encoding::EncodeLabelValue::encode(&&*self.0, encoder)
    }
}

/// The metrics of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RouteLabels, Timing>,
    upstream: Family<RouteLabels, Timing>,
    refusals: Family<RefusalLabels, Counter>,
    saturation: Family<ResourceLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    certificates: Family<CertificateLabels, Gauge>,
    dependencies: Family<DependencyLabels, Gauge>,
    away: Family<AwayLabels, Counter>,
    mails: Family<MailLabels, Counter>,
}

/// The times of one route, found once and kept by its policy: a request looks up no label.
#[derive(Debug, Default)]
pub(crate) struct RouteTimes {
    /// By class of status: with the upstream's part left out, and that part.
    classes: [OnceLock<(Timing, Timing)>; 5],
}

impl RouteTimes {
    /// Counts a request.
    pub(crate) fn request(
        &self,
        metrics: &Metrics,
        rule: &Rule,
        status: StatusCode,
        micros: u64,
        upstream: Option<u64>,
    ) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        let (own, behind) = self.classes[class].get_or_init(|| metrics.times(rule, CLASSES[class]));
        own.observe(micros.saturating_sub(upstream.unwrap_or(0)));
        if let Some(micros) = upstream {
            behind.observe(micros);
        }
    }
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("palisade"),
            requests: Family::default(),
            upstream: Family::default(),
            refusals: Family::default(),
            saturation: Family::default(),
            certificates: Family::default(),
            dependencies: Family::default(),
            away: Family::default(),
            mails: Family::default(),
        };
        let registry = &mut metrics.registry;
        REQUEST.register(registry, metrics.requests.clone());
        UPSTREAM.register(registry, metrics.upstream.clone());
        REFUSALS.register(registry, metrics.refusals.clone());
        SATURATION.register(registry, metrics.saturation.clone());
        CERTIFICATE.register(registry, metrics.certificates.clone());
        DEPENDENCY.register(registry, metrics.dependencies.clone());
        AWAY.register(registry, metrics.away.clone());
        MAILS.register(registry, metrics.mails.clone());
        metrics
    }
}

impl Metrics {
    fn times(&self, rule: &Rule, status: &'static str) -> (Timing, Timing) {
        let labels = RouteLabels { route: ArcText(Arc::clone(&rule.label)), status };
        (self.requests.get_or_create_owned(&labels), self.upstream.get_or_create_owned(&labels))
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

    /// Says whether a dependency answers; `None`: there is no such dependency any more.
    pub(crate) fn dependency(&self, dependency: &'static str, up: Option<bool>) {
        let labels = DependencyLabels { dependency };
        if let Some(up) = up {
            self.dependencies.get_or_create(&labels).set(i64::from(up));
        } else {
            self.dependencies.remove(&labels);
        }
    }

    /// Counts a request that a control decided without something it depends on.
    pub(crate) fn decided_without(&self, control: &'static str, dependency: &'static str, when_away: &'static str) {
        self.away.get_or_create(&AwayLabels { control, dependency, when_away }).inc();
    }

    /// Counts what became of a mail: `sent`, `delayed` (an attempt that will be followed by another) or `dropped`.
    pub(crate) fn mail(&self, kind: &'static str, outcome: &'static str) {
        self.mails.get_or_create(&MailLabels { kind, outcome }).inc();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each.
    fn counted() -> Metrics {
        let metrics = Metrics::default();
        metrics.refused("hosts", "hosts.unknown", Mode::Block);
        metrics.saturation("connections", 0.5);
        metrics.dependency("redis", Some(false));
        metrics.decided_without("rate_limit", "redis", "local");
        metrics.mail("reset", "sent");
        metrics.certificates([(Arc::from("a \"quoted\" name"), -3)].into_iter());
        let rules = crate::policy::Rules::new(std::iter::empty(), |_| "".into());
        let times = RouteTimes::default();
        times.request(&metrics, rules.get(0), StatusCode::OK, 1_500, Some(500));
        times.request(&metrics, rules.get(0), StatusCode::NO_CONTENT, 2_000_000, None);
        metrics
    }

    #[test]
    fn the_exposition_is_what_the_table_says() {
        let text = counted().text(false);
        let mut lines = text.lines().peekable();
        for metric in METRICS {
            let Metric { name, kind, labels, about } = metric;
            assert_eq!(lines.next(), Some(&*format!("# HELP {name} {}.", about.trim())));
            assert_eq!(lines.next(), Some(&*format!("# TYPE {name} {kind}")));
            let mut samples = 0;
            while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                let (sampled, rest) = sample.split_once('{').unwrap();
                let (set, _) = rest.rsplit_once('}').unwrap();
                let named: Vec<&str> = set.split("\",").map(|label| label.split_once('=').unwrap().0).collect();
                let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|end| sampled == format!("{name}{end}"));
                assert!(if *kind == "histogram" { of_histogram } else { sampled == *name }, "{sample}");
                let own: Vec<&str> = named.into_iter().filter(|label| *label != "le").collect();
                assert_eq!(own, *labels, "{sample}");
                samples += 1;
            }
            assert!(samples > 0, "{name} is not counted in this test");
            for label in *labels {
                assert!(LABELS.iter().any(|(known, _)| known == label), "`{label}` is not in the table of labels");
            }
        }
        assert_eq!(lines.next(), None);
        for (label, _) in LABELS {
            assert!(METRICS.iter().any(|metric| metric.labels.contains(label)), "no metric has `{label}`");
        }
    }

    #[test]
    fn both_formats_name_what_is_promised() {
        let metrics = counted();
        let (new, old) = (metrics.text(true), metrics.text(false));
        assert!(new.ends_with("# EOF\n") && new.contains("# TYPE palisade_refusals counter\n"), "{new}");
        assert!(old.contains("# TYPE palisade_refusals_total counter\n") && !old.contains("# UNIT"), "{old}");
        for text in [&new, &old] {
            for line in [
                "palisade_refusals_total{control=\"hosts\",code=\"hosts.unknown\",mode=\"block\"} 1\n",
                "palisade_request_seconds_sum{route=\"default\",status=\"2xx\"} 2.001\n",
                "palisade_request_seconds_count{route=\"default\",status=\"2xx\"} 2\n",
                "palisade_request_seconds_bucket{le=\"0.001\",route=\"default\",status=\"2xx\"} 1\n",
                "palisade_request_seconds_bucket{le=\"+Inf\",route=\"default\",status=\"2xx\"} 2\n",
                "palisade_upstream_seconds_count{route=\"default\",status=\"2xx\"} 1\n",
                "# TYPE palisade_request_seconds histogram\n",
                "# TYPE palisade_upstream_seconds histogram\n",
                "palisade_saturation{resource=\"connections\"} 0.5\n",
                "palisade_dependency_up{dependency=\"redis\"} 0\n",
                "palisade_mails_total{kind=\"reset\",outcome=\"sent\"} 1\n",
                "palisade_away_total{control=\"rate_limit\",dependency=\"redis\",when_away=\"local\"} 1\n",
                "palisade_certificate_expiry_seconds{certificate=\"a \\\"quoted\\\" name\"} -3\n",
            ] {
                assert!(text.contains(line), "{line} is not in {text}");
            }
        }
        metrics.dependency("redis", None);
        assert!(!metrics.text(true).contains("dependency_up{"));
        metrics.certificates(std::iter::empty());
        assert!(!metrics.text(true).contains("quoted"));
    }
}
