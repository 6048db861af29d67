//! Why a rule matched.

use crate::problem::Place;
use crate::rule::Rule;

/// Bytes shown on either side of a match.
const CONTEXT: usize = 40;
/// Longest message, data and tag.
const LONGEST_TEXT: usize = 512;

/// A rule that matched and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Match {
    /// The rule's number.
    pub rule: u64,
    /// The phase in which it matched.
    pub phase: u8,
    /// Where the rule stands.
    pub place: Place,
    /// `msg`, with its macros replaced. Not for clients.
    pub message: String,
    /// `logdata`, with its macros replaced: text from the request.
    pub data: String,
    /// `tag`, with its macros replaced.
    pub tags: Vec<String>,
    /// 0 (emergency) to 7 (debug).
    pub severity: Option<u8>,
    /// What matched last, such as `ARGS:q`.
    pub target: String,
    /// The match in its surroundings: the value as the operator saw it, cut to 40 bytes on either side.
    pub context: Vec<u8>,
    /// Where in `context` the match lies, if the operator knows.
    pub range: Option<(usize, usize)>,
    /// Whether the rule asks for an entry in an audit log.
    pub audit: bool,
}

impl Match {
    pub(super) fn new(
        rule: &Rule,
        message: Vec<u8>,
        data: Vec<u8>,
        tags: &[Vec<u8>],
        target: String,
        value: &[u8],
        span: Option<(usize, usize)>,
    ) -> Match {
        let span = span.filter(|(start, end)| start <= end && *end <= value.len());
        let (start, end) = span.unwrap_or((0, 0));
        let from = start.saturating_sub(CONTEXT);
        // A long match shows its beginning.
        let to = end.min(start + 4 * CONTEXT).saturating_add(CONTEXT).min(value.len());
        let context = value.get(from..to).unwrap_or(&[]).to_vec();
        Match {
            rule: rule.id,
            phase: rule.phase,
            place: rule.place().clone(),
            message: text(&message),
            data: text(&data),
            tags: tags.iter().map(|tag| text(tag)).collect(),
            severity: rule.severity,
            target,
            range: span.map(|(s, e)| (s - from, (e - from).min(context.len()))),
            context,
            audit: rule.audit,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_TEXT)]).into_owned()
}
