//! A rule, compiled.

use std::sync::Arc;

use crate::expand::Macro;
use crate::operator::Operator;
use crate::problem::Place;
use crate::regex::Regex;
use crate::transform::Transform;
use crate::variable::Var;

/// Which values of a variable.
#[derive(Debug, Clone)]
pub(crate) enum Select {
    All,
    /// By name, in lower case.
    Key(Box<[u8]>),
    /// By a pattern over names, in any case.
    Pattern(Regex),
    /// By a pattern over the names of `TX`, with the slots whose names it matches.
    Slots(Regex, Arc<[u32]>),
    /// A variable of `TX` by its slot.
    Slot(u32),
    /// `XML:/*`: the text of the document.
    XmlText,
    /// `XML://@*`: the values of all attributes.
    XmlAttributes,
}

/// A variable that a rule inspects.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) var: Var,
    pub(crate) select: Select,
    /// `&VAR`: how many there are.
    pub(crate) count: bool,
}

/// A variable that a rule leaves out.
#[derive(Debug, Clone)]
pub(crate) struct Exclusion {
    pub(crate) var: Var,
    pub(crate) select: Select,
}

impl Select {
    /// Whether a name (any case) is selected.
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        match self {
            Select::All | Select::XmlText | Select::XmlAttributes => true,
            Select::Key(name) => name.eq_ignore_ascii_case(key),
            Select::Pattern(regex) | Select::Slots(regex, _) => regex.is_match(key).unwrap_or(true),
            Select::Slot(_) => false,
        }
    }
}

impl Exclusion {
    pub(crate) fn covers(&self, var: Var, key: &[u8]) -> bool {
        self.var == var && self.select.has(key)
    }
}

/// What `setvar` does.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Set(Macro),
    Add(Macro),
    Subtract(Macro),
    Unset,
}

/// The name of a variable that a rule writes.
#[derive(Debug, Clone)]
pub(crate) enum Name {
    Slot(u32),
    Text(Macro),
}

/// `setvar`.
#[derive(Debug, Clone)]
pub(crate) struct SetVar {
    pub(crate) collection: Var,
    pub(crate) name: Name,
    pub(crate) change: Change,
}

/// Whether the engine judges and acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineMode {
    /// Rules are evaluated and act.
    #[default]
    On,
    /// Rules are evaluated; what they would have done is recorded.
    DetectionOnly,
    /// No rule is evaluated.
    Off,
}

/// How a request body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// A form.
    UrlEncoded,
    /// `multipart/form-data`.
    Multipart,
    /// XML.
    Xml,
    /// JSON.
    Json,
}

impl Processor {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Processor::UrlEncoded => "URLENCODED",
            Processor::Multipart => "MULTIPART",
            Processor::Xml => "XML",
            Processor::Json => "JSON",
        }
    }

    pub(crate) fn find(name: &str) -> Option<Processor> {
        [Processor::UrlEncoded, Processor::Multipart, Processor::Xml, Processor::Json]
            .into_iter()
            .find(|p| p.name().eq_ignore_ascii_case(name))
    }
}

/// Rules by number, text of a tag or of a message.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    Ids(Vec<(u64, u64)>),
    Tag(Regex),
    Message(Regex),
}

/// `ctl`: what changes for the rest of this transaction.
#[derive(Debug, Clone)]
pub(crate) enum Ctl {
    Engine(EngineMode),
    RequestBodyAccess(bool),
    ResponseBodyAccess(bool),
    Processor(Processor),
    ForceRequestBody(bool),
    Remove(Which),
    RemoveTarget(Which, Arc<Exclusion>),
    /// [`Ctl::Remove`] with the rules it means, once all are known.
    RemoveRules(Arc<[u32]>),
    /// [`Ctl::RemoveTarget`] with the rules it means.
    RemoveTargets(Arc<[u32]>, Arc<Exclusion>),
    AuditEngine(AuditMode),
    /// Accepted and without effect here (`debugLogLevel`, `auditLogParts`).
    Nothing,
}

/// What goes into an audit log; the engine only keeps the wish for whoever writes the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuditMode {
    /// Every transaction.
    On,
    /// None.
    #[default]
    Off,
    /// Those in which a rule asked for it.
    RelevantOnly,
}

/// What a rule does to the transaction when it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Disruption {
    /// Whatever `SecDefaultAction` says for the phase.
    Default,
    Pass,
    Deny,
    Drop,
    Redirect(Macro),
    Allow(Scope),
}

/// How far `allow` reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Phase,
    Request,
    All,
}

/// Where evaluation goes on after a match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Skip {
    No,
    /// To this position in the list of rules.
    To(u32),
    /// Before compilation: this many rules of the phase.
    Count(u32),
    /// Before compilation: a marker's name or a rule's number.
    Label(String),
}

/// One link of a rule: what is looked at and what happens at once when it matches.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) place: Place,
    pub(crate) targets: Vec<Target>,
    pub(crate) exclusions: Vec<Exclusion>,
    pub(crate) transforms: Arc<[Transform]>,
    pub(crate) operator: Operator,
    pub(crate) negated: bool,
    pub(crate) multi_match: bool,
    pub(crate) capture: bool,
    pub(crate) setvars: Vec<SetVar>,
    pub(crate) ctls: Vec<Ctl>,
    pub(crate) init_collections: Vec<(Var, Macro)>,
    pub(crate) expiries: Vec<(Var, Macro, Macro)>,
}

/// A rule: its links (one, or several with `chain`) and what happens when all match.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// 0 for what has no number.
    pub(crate) id: u64,
    pub(crate) phase: u8,
    pub(crate) links: Vec<Link>,
    pub(crate) disruption: Disruption,
    pub(crate) status: Option<u16>,
    pub(crate) log: bool,
    pub(crate) audit: bool,
    pub(crate) message: Option<Macro>,
    pub(crate) data: Option<Macro>,
    pub(crate) tags: Vec<Macro>,
    pub(crate) severity: Option<u8>,
    pub(crate) version: Option<Box<str>>,
    pub(crate) revision: Option<Box<str>>,
    pub(crate) skip: Skip,
}

impl Link {
    /// All texts in which a macro may stand: the operator's argument, what is set, names and times of collections.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &Macro> {
        let sets = self.setvars.iter().flat_map(|set| {
            let name = match &set.name {
                Name::Slot(_) => None,
                Name::Text(name) => Some(name),
            };
            let to = match &set.change {
                Change::Unset => None,
                Change::Set(to) | Change::Add(to) | Change::Subtract(to) => Some(to),
            };
            name.into_iter().chain(to)
        });
        let expiries = self.expiries.iter().flat_map(|(_, name, seconds)| [name, seconds]);
        let collections = self.init_collections.iter().map(|(_, key)| key);
        self.operator.argument().into_iter().chain(sets).chain(collections).chain(expiries)
    }
}

impl Rule {
    /// Where whoever is refused is sent.
    pub(crate) fn redirect(&self) -> Option<&Macro> {
        match &self.disruption {
            Disruption::Redirect(to) => Some(to),
            _ => None,
        }
    }

    /// The texts of what a rule that matched says: its message, data and tags, and where it sends somebody.
    pub(crate) fn says(&self) -> impl Iterator<Item = &Macro> {
        self.message.iter().chain(&self.data).chain(&self.tags).chain(self.redirect())
    }

    pub(crate) fn place(&self) -> &Place {
        &self.links[0].place
    }

    /// Whether `which` means this rule.
    pub(crate) fn is(&self, which: &Which) -> bool {
        let text = |m: &Macro, regex: &Regex| {
            m.parts.iter().any(|p| matches!(p, crate::expand::Part::Text(t) if regex.is_match(t).unwrap_or(false)))
        };
        match which {
            Which::Ids(ranges) => self.id != 0 && ranges.iter().any(|(low, high)| (*low..=*high).contains(&self.id)),
            Which::Tag(regex) => self.tags.iter().any(|t| text(t, regex)),
            Which::Message(regex) => self.message.as_ref().is_some_and(|m| text(m, regex)),
        }
    }
}
