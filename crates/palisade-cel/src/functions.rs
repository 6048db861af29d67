//! The functions: those of the language's standard definitions that text needs, and `inNetwork`.

use palisade_base::Cidr;

use crate::check::{Checked, Checker};
use crate::constants;
use crate::environment::Type;
use crate::node::{DatePart, Does, Each, Node, Where};
use crate::parse::{Ast, Is};
use crate::problem::{Problem, Span, closest};

/// A call as it stands in the text.
pub(crate) struct Call<'a> {
    pub(crate) at: Span,
    pub(crate) receiver: Option<&'a Ast>,
    pub(crate) name: &'a str,
    pub(crate) name_at: Span,
    pub(crate) arguments: &'a [Ast],
}

/// What is called on a value.
pub(crate) const METHODS: [&str; 18] = [
    "startsWith",
    "endsWith",
    "contains",
    "matches",
    "size",
    "exists",
    "all",
    "exists_one",
    "inNetwork",
    "lowerAscii",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
];
const PLAIN: [&str; 7] = ["has", "size", "int", "string", "timestamp", "duration", "matches"];
/// Loops in loops. Each multiplies the work.
const MAX_VARIABLES: usize = 3;

/// What other languages call it.
const FOREIGN: [(&str, &str); 16] = [
    ("len", "size(…)"),
    ("length", "size(…)"),
    ("count", "size(…)"),
    ("includes", "….contains(…)"),
    ("any", "….exists(x, …)"),
    ("some", "….exists(x, …)"),
    ("every", "….all(x, …)"),
    ("lower", "….lowerAscii()"),
    ("toLowerCase", "….lowerAscii()"),
    ("match", "….matches(…)"),
    ("regex", "….matches(…)"),
    ("cidr", "address.inNetwork('10.0.0.0/8')"),
    ("ip", "address.inNetwork('10.0.0.0/8')"),
    ("now", "now"),
    ("str", "string(…)"),
    ("exists", "has(…)"),
];

/// Whether this is the name of a function that is called by itself.
pub(crate) fn is_function(name: &str) -> bool {
    PLAIN.contains(&name)
}

impl Checker<'_> {
    /// A call.
    pub(crate) fn call(&mut self, call: &Call<'_>) -> Checked {
        match (call.receiver, call.name) {
            (None, "has") => {
                let [argument] = self.arguments::<1>(call)?;
                let node = self.may_be_missing(argument)?;
                self.made(call, Does::Has(Box::new(node)), Type::Bool)
            }
            (Some(list), "exists") => self.each(call, list, Each::Exists),
            (Some(list), "all") => self.each(call, list, Each::All),
            (Some(list), "exists_one") => self.each(call, list, Each::ExistsOne),
            (None, "size") => {
                let [argument] = self.arguments::<1>(call)?;
                self.size(call, argument)
            }
            (Some(receiver), "size") => {
                let [] = self.arguments::<0>(call)?;
                self.size(call, receiver)
            }
            (None, "matches") => {
                let [text, pattern] = self.arguments::<2>(call)?;
                self.matches(call, text, pattern)
            }
            (Some(text), "matches") => {
                let [pattern] = self.arguments::<1>(call)?;
                self.matches(call, text, pattern)
            }
            (Some(text), "startsWith") => self.find(call, text, Where::Start),
            (Some(text), "endsWith") => self.find(call, text, Where::End),
            (Some(text), "contains") => self.find(call, text, Where::Anywhere),
            (Some(text), "inNetwork") => self.in_network(call, text),
            (Some(text), "lowerAscii") => {
                let [] = self.arguments::<0>(call)?;
                let node = self.text(text, call)?;
                self.made(call, Does::Lower(Box::new(node)), Type::Text)
            }
            (None, "int" | "string" | "timestamp" | "duration") => self.convert(call),
            (Some(time), name) => match date_part(name) {
                Some(part) => self.date(call, time, part),
                None => self.unknown(call),
            },
            (None, _) => self.unknown(call),
        }
    }

    fn made(&self, call: &Call<'_>, does: Does, kind: Type) -> Checked {
        Some((Node { at: call.at, does }, kind))
    }

    /// The arguments, where there are as many as there should be.
    fn arguments<'a, const N: usize>(&mut self, call: &Call<'a>) -> Option<&'a [Ast; N]> {
        let arguments: Option<&'a [Ast; N]> = call.arguments.try_into().ok();
        if arguments.is_none() {
            let (name, given) = (call.name, call.arguments.len());
            let fix = match (N, name, call.receiver) {
                (0, name, _) => format!("write `….{name}()`"),
                (_, "has" | "size" | "int" | "string" | "timestamp" | "duration", _) => format!("write `{name}(…)`"),
                (2, "matches", _) => "write `….matches('^…$')`".to_owned(),
                (2, name, _) => format!("write `….{name}(x, …)`, with a name of your own for `x`"),
                (_, name, _) => format!("write `….{name}('…')`"),
            };
            return self.problem(call.at, format!("`{name}` does not take {given} arguments here"), fix);
        }
        arguments
    }

    fn unknown(&mut self, call: &Call<'_>) -> Checked {
        let name = call.name;
        let (known, others): (&[&str], &[&str]) =
            if call.receiver.is_some() { (&METHODS, &PLAIN) } else { (&PLAIN, &METHODS) };
        let shown = |known: &str| {
            if METHODS.contains(&known) && known != "size" {
                format!("….{known}(…)")
            } else {
                format!("{known}(…)")
            }
        };
        let foreign = FOREIGN.iter().find(|(foreign, _)| foreign.eq_ignore_ascii_case(name));
        let fix = if let Some((_, ours)) = foreign {
            format!("write `{ours}`")
        } else if let Some(likely) = closest(name, known.iter().chain(others).copied()) {
            format!("did you mean `{}`?", shown(likely))
        } else {
            let all: Vec<String> = known.iter().map(|known| format!("`{known}`")).collect();
            format!("known are {}", all.join(", "))
        };
        self.problem(call.name_at, format!("there is no function `{name}`"), fix)
    }

    /// Something that is a string.
    fn text(&mut self, ast: &Ast, call: &Call<'_>) -> Option<Node> {
        let (node, kind) = self.check(ast)?;
        if matches!(kind, Type::Text | Type::Dynamic) {
            return Some(node);
        }
        let name = call.name;
        let fix = match kind {
            Type::Texts if name == "contains" => "ask whether it is in the list: `'…' in …`".to_owned(),
            Type::Texts | Type::Ints => format!("write `….exists(x, x.{name}(…))` for one of them"),
            Type::Members | Type::Claims => "name what is in it: `query.page`".to_owned(),
            _ => "write a string".to_owned(),
        };
        self.problem(node.at, format!("`{name}` is for strings, and this is {kind}"), fix)
    }

    fn find(&mut self, call: &Call<'_>, text: &Ast, how: Where) -> Checked {
        let [wanted] = self.arguments::<1>(call)?;
        let (text, wanted) = (self.text(text, call), self.text(wanted, call));
        self.made(call, Does::Find { how, sides: Box::new([text?, wanted?]) }, Type::Bool)
    }

    fn matches(&mut self, call: &Call<'_>, text: &Ast, pattern: &Ast) -> Checked {
        let node = self.text(text, call);
        let Is::Text(written) = &pattern.is else {
            let fix = "write the pattern in quotes: it is compiled when the policy is read";
            return self.problem(pattern.at, "a pattern cannot come from a request", fix);
        };
        let compiled = constants::pattern(written, pattern.at).map_err(|problem| self.problems.push(problem)).ok();
        let (regex, whole) = compiled?;
        if !whole {
            let fix = "write `^…$` (`^(?:a|b)$` for alternatives) if the whole text is meant";
            self.warnings.push(Problem::new(pattern.at, "`matches` finds this anywhere in the text", fix));
        }
        let does = Does::Matches { text: Box::new(node?), pattern: Box::new(regex) };
        self.made(call, does, Type::Bool)
    }

    fn in_network(&mut self, call: &Call<'_>, text: &Ast) -> Checked {
        let [network] = self.arguments::<1>(call)?;
        let node = self.text(text, call);
        let Is::Text(written) = &network.is else {
            let fix = "write the network in quotes: `address.inNetwork('10.0.0.0/8')`";
            return self.problem(network.at, "a network cannot come from a request", fix);
        };
        let network = match written.parse::<Cidr>() {
            Ok(network) => network,
            Err(why) => return self.problem(network.at, why.to_string(), "write it as `'10.0.0.0/8'`"),
        };
        self.made(call, Does::InNetwork { text: Box::new(node?), network }, Type::Bool)
    }

    fn size(&mut self, call: &Call<'_>, of: &Ast) -> Checked {
        let (node, kind) = self.check(of)?;
        if !matches!(kind, Type::Text | Type::Texts | Type::Ints | Type::Dynamic) {
            return self.problem(node.at, format!("{kind} has no size"), "it is for strings and lists");
        }
        self.made(call, Does::Size(Box::new(node)), Type::Int)
    }

    fn convert(&mut self, call: &Call<'_>) -> Checked {
        let [argument] = self.arguments::<1>(call)?;
        let (node, from) = self.check(argument)?;
        let to = match call.name {
            "int" => Type::Int,
            "string" => Type::Text,
            "timestamp" => Type::Time,
            _ => Type::Span,
        };
        if from == to {
            return Some((node, to));
        }
        if let (Does::Text(text), Type::Time | Type::Span) = (&node.does, to) {
            let does = constants::literal(text, to, node.at).map_err(|problem| self.problems.push(problem)).ok()?;
            return self.made(call, does, to);
        }
        let inner = Box::new(node.clone());
        let does = match (to, from) {
            (Type::Int, Type::Text | Type::Dynamic | Type::Time) => Does::ToInt(inner),
            (Type::Text, Type::Int | Type::Bool | Type::Dynamic) => Does::ToText(inner),
            (Type::Time, Type::Text | Type::Dynamic) => Does::ToTime(inner),
            (Type::Span, Type::Text | Type::Dynamic) => Does::ToSpan(inner),
            _ => return self.problem(node.at, format!("{from} cannot become {to}"), "leave the conversion out"),
        };
        self.made(call, does, to)
    }

    fn date(&mut self, call: &Call<'_>, time: &Ast, part: DatePart) -> Checked {
        let (node, kind) = self.check(time)?;
        if kind != Type::Time {
            let fix = "it is for points in time, such as `now`";
            return self.problem(node.at, format!("`{}` of {kind}", call.name), fix);
        }
        if let Some(zone) = call.arguments.first()
            && !matches!(&zone.is, Is::Text(zone) if zone == "UTC")
        {
            let fix = "leave the zone out, and write the times of this condition in UTC";
            return self.problem(zone.at, "times are in UTC here", fix);
        }
        self.made(call, Does::Date { part, of: Box::new(node) }, Type::Int)
    }

    fn each(&mut self, call: &Call<'_>, list: &Ast, how: Each) -> Checked {
        let [variable, body] = self.arguments::<2>(call)?;
        let (over, kind) = self.check(list)?;
        let item = match kind {
            Type::Texts | Type::Dynamic => Type::Text,
            Type::Ints => Type::Int,
            _ => {
                let message = format!("`{}` is for lists, and this is {kind}", call.name);
                return self.problem(over.at, message, "write a list, such as `user.roles`");
            }
        };
        let Is::Name(name) = &variable.is else {
            let fix = "write a name of your own: `user.roles.exists(role, role.startsWith('team-'))`";
            return self.problem(variable.at, "a name was expected here", fix);
        };
        if self.variables.len() >= MAX_VARIABLES {
            let message = format!("loops lie in each other at most {MAX_VARIABLES} deep");
            return self.problem(call.at, message, "split the condition");
        }
        let taken =
            self.variables.iter().any(|(own, _)| own == name) || self.environment.members("").contains(&name.as_str());
        if taken {
            let fix = "choose another one";
            return self.problem(variable.at, format!("`{name}` is the name of something else"), fix);
        }
        let place = self.variables.len();
        self.variables.push((name.clone(), item));
        let body = self.condition(body);
        self.variables.pop();
        let does = Does::Each { how, over: Box::new(over), variable: place, body: Box::new(body?) };
        self.made(call, does, Type::Bool)
    }
}

fn date_part(name: &str) -> Option<DatePart> {
    Some(match name {
        "getFullYear" => DatePart::Year,
        "getMonth" => DatePart::Month,
        "getDate" => DatePart::Date,
        "getDayOfMonth" => DatePart::DayOfMonth,
        "getDayOfWeek" => DatePart::DayOfWeek,
        "getDayOfYear" => DatePart::DayOfYear,
        "getHours" => DatePart::Hours,
        "getMinutes" => DatePart::Minutes,
        "getSeconds" => DatePart::Seconds,
        _ => return None,
    })
}
