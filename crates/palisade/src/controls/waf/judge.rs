//! What the engine says, as the gateway says it: refusals, log lines, remedies.

use std::borrow::Cow;
use std::collections::BTreeSet;

use http::StatusCode;
use http::header::{HeaderValue, LOCATION};
use palisade_seclang::{Finding, Match, Outcome, Transaction};
use serde_json::json;

use super::config::{Beyond, Exclude};
use super::{AMBIGUOUS, BLOCKED, CONTENT_TYPE_CODE, Inspection, LIMIT, Shared, exclude};
use crate::context::Context;
use crate::control::{Asked, Remedy};
use crate::observe::{event, redact};
use crate::refusal::{Code, Refusal};

/// Lines that one request may log.
const MOST_LINES: usize = 100;
const HIDDEN: &str = redact::REDACTED;

impl Shared {
    /// What the rules, the limits and the readings of the body say of a request so far, or of its answer.
    pub(super) fn judge(&self, ctx: &Context, inspection: &Inspection, answer: bool) -> Result<(), Refusal> {
        let transaction = &inspection.transaction;
        let beyond = self.of(ctx).beyond;
        let new = inspection.new_findings();
        let limits = || new.iter().filter(|finding| finding.is_limit());
        let refused = |finding: &&Finding| self.beyond(beyond, inspection, ctx.has_body, finding).is_err();
        let limit = limits().find(refused).or_else(|| limits().next());
        // What passes whatever was found is a body that the API does not parse. Too many cookies switch no rule off.
        let unread = inspection.body > 0 && !transaction.is_parsed();
        if beyond == Beyond::Pass && unread && limit.is_some_and(|finding| !refused(&finding)) {
            return Ok(());
        }
        let verdict = transaction.verdict().map(|verdict| (verdict, false));
        if let Some((verdict, watched)) =
            verdict.or_else(|| transaction.would_be().filter(|_| !inspection.told).map(|verdict| (verdict, true)))
        {
            let refusal = self.blocked(inspection, verdict.rule);
            let refusal = match (&verdict.outcome, StatusCode::from_u16(verdict.status)) {
                (Outcome::Drop, _) => refusal.close(),
                (Outcome::Redirect, status) => {
                    // No other status makes a client follow, and a rule may have one that was meant for refusals.
                    let follows = |status: &StatusCode| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
                    let status = status.ok().filter(follows).unwrap_or(StatusCode::FOUND);
                    let location = verdict.location.as_deref().unwrap_or("/");
                    match HeaderValue::from_str(location) {
                        Ok(location) => refusal.status(status).header(LOCATION, location),
                        Err(_) => refusal,
                    }
                }
                (Outcome::Refuse, Ok(status)) if status.as_u16() >= 400 => refusal.status(status),
                _ => refusal,
            };
            return Err(if watched { refusal.watched() } else { refusal });
        }
        if let Some(finding) = limit {
            return self.beyond(beyond, inspection, ctx.has_body, finding);
        }
        if answer || !ctx.has_body {
            return Ok(());
        }
        match transaction.findings().iter().find_map(|finding| unclear(finding, inspection)) {
            Some((code, finding)) => {
                Err(code.refuse("a body with more than one reading").with("reason", finding.to_string()))
            }
            None => Ok(()),
        }
    }

    /// What becomes of a request beyond a limit.
    pub(super) fn beyond(
        &self,
        beyond: Beyond,
        inspection: &Inspection,
        has_body: bool,
        finding: &Finding,
    ) -> Result<(), Refusal> {
        let always = match finding {
            // What the API parses and rules did not see is the way round every rule (threat 36).
            Finding::Budget { .. } | Finding::StepLimit { .. } => false,
            // A body without a type is parsed; no body is not.
            _ => has_body && inspection.transaction.is_parsed(),
        };
        match beyond {
            Beyond::InspectHead | Beyond::Pass if !always => Ok(()),
            _ => Err(limited(finding, always)),
        }
    }

    fn blocked(&self, inspection: &Inspection, rule: u64) -> Refusal {
        let transaction = &inspection.transaction;
        let matches = transaction.matches();
        let ids: BTreeSet<u64> = matches.iter().map(|found| found.rule).chain([rule]).collect();
        let ids: Vec<String> = ids.iter().take(20).map(u64::to_string).collect();
        let mut refusal = BLOCKED.refuse("rules of the WAF").with("rules", ids.join(","));
        // The rule that refuses is often the one that adds up scores: what it added up says more.
        let named = matches.iter().filter(|found| exclude::field(&found.target).is_some());
        let telling = named.min_by_key(|found| found.severity.unwrap_or(u8::MAX)).or_else(|| matches.last());
        if let Some(found) = telling {
            // All that matched there: without one of them the others refuse.
            let there: BTreeSet<u64> =
                matches.iter().filter(|other| other.target == found.target).map(|other| other.rule).collect();
            let there: Vec<String> = there.iter().take(20).map(u64::to_string).collect();
            refusal = refusal
                .with("exclude", there.join(","))
                .with("rule", found.rule.to_string())
                .with("msg", redact::text(&found.message))
                .with("target", target(found))
                .with("match", context(found))
                .with("at", found.place.to_string());
        }
        match score(transaction) {
            0 => refusal,
            score => refusal.with("score", score.to_string()),
        }
    }

    /// One line a rule that matched and logs.
    pub(super) fn log(&self, ctx: &Context, inspection: &mut Inspection) {
        let matches = inspection.transaction.matches();
        let new = matches.get(inspection.logged..).unwrap_or_default();
        let env = ctx.policy.env();
        if !new.is_empty() && env.log.security.is_on() {
            let mode = ctx.mode(self.id).as_str();
            let score = score(&inspection.transaction);
            for found in new.iter().take(MOST_LINES.saturating_sub(inspection.logged)) {
                drop(
                    event::WAF_MATCH
                        .line(&env.log)
                        .u64("ruleId", found.rule)
                        .str("msg", &redact::text(&found.message))
                        .str("data", &data(found))
                        .list("tags", found.tags.iter().map(String::as_str))
                        .u64("score", score)
                        .str("target", &target(found))
                        .str("mode", mode)
                        .str("request_id", ctx.request_id().as_str()),
                );
            }
        }
        inspection.logged = matches.len();
    }

    /// The exclusion that lets the match pass, beside those that are there.
    pub(super) fn remedy(&self, asked: &Asked<'_>) -> Remedy {
        let judged = asked.judged;
        if *judged.code == LIMIT {
            return self.beyond_a_limit(asked);
        }
        let gzip = ["Content-Encoding: gzip", "Content-Encoding: x-gzip"];
        if *judged.code == CONTENT_TYPE_CODE && judged.field("reason").is_some_and(|reason| gzip.contains(&reason)) {
            return Remedy::Route("waf = { encodings = [\"gzip\"] }".to_owned());
        }
        if *judged.code != BLOCKED {
            return Remedy::Elsewhere(format!(
                "the request has to change: {}",
                judged.field("reason").unwrap_or_default()
            ));
        }
        let (Some(rules), Some(target)) = (judged.field("exclude"), judged.field("target")) else {
            return detect();
        };
        self.excluding(asked, rules, exclude::field(target))
    }

    /// An exclusion for this path, beside those that are there.
    fn excluding(&self, asked: &Asked<'_>, rules: &str, field: Option<String>) -> Remedy {
        let mut all: Vec<String> = self.written.iter().map(line).collect();
        let path = asked.path.parse().ok().filter(|_| !asked.path.contains(HIDDEN));
        let rules = rules.split(',').map(str::to_owned).collect();
        all.push(line(&Exclude { path, field, rules }));
        Remedy::Section(format!(
            "[waf]\nexclude = [\n{}]",
            all.iter().map(|line| format!("  {line},\n")).collect::<String>()
        ))
    }

    /// What helps depends on which limit it was: a longer body lets no more arguments pass.
    fn beyond_a_limit(&self, asked: &Asked<'_>) -> Remedy {
        let judged = asked.judged;
        let Some(of) = self.by_rule.get(usize::from(asked.rule.id)) else { return detect() };
        let settings = self.sets[of.set].settings();
        let reason = judged.field("reason").unwrap_or_default();
        match judged.field("limit").unwrap_or_default() {
            "budget" => {
                Remedy::Section(format!("[waf]\nbudget = \"{}ms\"", self.budget.as_millis().saturating_mul(2).max(1)))
            }
            "step_limit" => match judged.field("rule") {
                Some(rule) => self.excluding(asked, rule, None),
                None => detect(),
            },
            "body_too_long" => {
                let in_rules = settings.request_body_limit.min(settings.request_body_no_files_limit);
                if in_rules < of.body_limit {
                    return Remedy::Elsewhere(format!(
                        "the rules have a limit of their own, {in_rules} bytes: remove `SecRequestBodyLimit` and \
                         `SecRequestBodyNoFilesLimit` from them, and `body_limit` holds"
                    ));
                }
                let mib = (of.body_limit >> 20).saturating_mul(2).max(10);
                Remedy::Route(format!("waf = {{ body_limit = \"{mib}MiB\" }}"))
            }
            // Head, or no body that the API parses: what was inspected may decide.
            _ if judged.field("decides") == Some(DECIDES) => {
                Remedy::Route("waf = { beyond_limit = \"inspect_head\" }".to_owned())
            }
            "too_many_arguments" => Remedy::Elsewhere(format!(
                "{reason}: write `SecArgumentsLimit {}` in a file of `[waf] rules`",
                settings.arguments.saturating_mul(2)
            )),
            "too_deep" => Remedy::Elsewhere(format!(
                "{reason}: write `SecRequestBodyJsonDepthLimit {}` in a file of `[waf] rules`",
                settings.json_depth.saturating_mul(2)
            )),
            "value_too_long" => Remedy::Elsewhere(format!(
                "the request has to change: {reason}, and rules read no longer ones; a file of a multipart form may be longer"
            )),
            _ => Remedy::Elsewhere(format!("the request has to change: {reason}")),
        }
    }
}

/// Nothing of the request is refused any more, on its route.
fn detect() -> Remedy {
    Remedy::Route("waf = { mode = \"detect\" }".to_owned())
}

/// What is said of a limit beyond which the policy lets pass what was inspected.
const DECIDES: &str = "beyond_limit";

/// The refusal of what is beyond a limit. `always`: whatever the policy says of such requests.
pub(super) fn limited(finding: &Finding, always: bool) -> Refusal {
    let refusal = LIMIT.refuse("more than is inspected").with("reason", finding.to_string());
    let refusal = refusal.with("limit", finding.code());
    let refusal = if always { refusal } else { refusal.with("decides", DECIDES) };
    match finding {
        Finding::StepLimit { rule } => refusal.with("rule", rule.to_string()),
        _ => refusal,
    }
}

fn line(exclude: &Exclude) -> String {
    let mut parts = Vec::new();
    if let Some(path) = &exclude.path {
        parts.push(format!("path = {}", json!(path.as_str())));
    }
    if let Some(field) = &exclude.field {
        parts.push(format!("field = {}", json!(field)));
    }
    if !exclude.rules.is_empty() {
        parts.push(format!("rules = {}", json!(exclude.rules)));
    }
    format!("{{ {} }}", parts.join(", "))
}

/// Refuses a body of which it is known before its end that it has more than one reading, if only by its type. That keeps
/// the list of findings, which has an end, from being full before the body began.
pub(super) fn ambiguous(inspection: &Inspection) -> Result<(), Refusal> {
    let by_type = || inspection.transaction.findings().iter().find(|finding| *code(finding) == CONTENT_TYPE_CODE);
    match inspection.new_findings().iter().find(|finding| finding.is_ambiguous()).or_else(by_type) {
        Some(finding) => {
            let refusal = code(finding).refuse("a body with more than one reading");
            Err(refusal.with("reason", finding.to_string()).close())
        }
        None => Ok(()),
    }
}

/// With which code a body is refused because of an ambiguity.
fn code(finding: &Finding) -> &'static Code {
    match finding {
        Finding::NoContentType | Finding::SeveralContentTypes | Finding::Charset(_) => &CONTENT_TYPE_CODE,
        _ => &AMBIGUOUS,
    }
}

/// Findings because of which a body is refused, and with which code. Those of the head say nothing of a body, but for
/// its type.
fn unclear<'f>(finding: &'f Finding, inspection: &Inspection) -> Option<(&'static Code, &'f Finding)> {
    if finding.is_limit() || !inspection.requested || inspection.body == 0 {
        return None;
    }
    let code = code(finding);
    let of_head = || inspection.transaction.findings().iter().take(inspection.found).any(|known| known == finding);
    if *code == AMBIGUOUS && of_head() { None } else { Some((code, finding)) }
}

/// The anomaly score in the names of versions 3 and 4 of the Core Rule Set.
pub(super) const SCORES: [&str; 4] =
    ["anomaly_score", "inbound_anomaly_score", "blocking_inbound_anomaly_score", "outbound_anomaly_score"];

/// The anomaly score so far.
fn score(transaction: &Transaction) -> u64 {
    let number = |name: &&str| std::str::from_utf8(transaction.tx(name)?).ok()?.trim().parse::<u64>().ok();
    SCORES.iter().filter_map(number).max().unwrap_or_default()
}

fn target(found: &Match) -> String {
    // The name of a parameter is the client's to choose.
    let text: String = found.target.chars().take(200).collect();
    match redact::is_secret_value(&text) {
        true => HIDDEN.to_owned(),
        false => text,
    }
}

/// Whether what a rule looked at holds a secret by its name.
fn is_secret(found: &Match) -> bool {
    let (collection, name) = found.target.split_once(':').unwrap_or((&found.target, ""));
    collection == "REQUEST_COOKIES"
        || name.eq_ignore_ascii_case("cookie")
        || name.split('.').any(redact::is_secret_name)
}

fn data(found: &Match) -> Cow<'_, str> {
    if is_secret(found) && !found.data.is_empty() { HIDDEN.into() } else { redact::text(&found.data).into() }
}

/// The match in its surroundings.
fn context(found: &Match) -> String {
    if is_secret(found) { HIDDEN.to_owned() } else { redact::text(&String::from_utf8_lossy(&found.context)) }
}
