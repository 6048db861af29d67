//! The type checker: a tree into nodes, or every problem that there is.

use crate::constants;
use crate::environment::{Environment, Name, Type};
use crate::functions;
use crate::node::{Arithmetic, Does, Node, Order};
use crate::parse::{Ast, Is};
use crate::problem::{Problem, Span, closest};

/// What checking an expression gathers.
pub(crate) struct Checker<'e> {
    pub(crate) environment: &'e Environment,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
    /// The names in a query and the like that the expression speaks of, each with the key of what they are looked up in.
    pub(crate) mentioned: Vec<(u16, Box<str>)>,
    /// The keys that it asks for.
    pub(crate) asked: Vec<u16>,
    pub(crate) variables: Vec<(String, Type)>,
}

/// A checked part and its type; none where a problem was reported.
pub(crate) type Checked = Option<(Node, Type)>;

impl<'e> Checker<'e> {
    pub(crate) fn new(environment: &'e Environment) -> Self {
        Self {
            environment,
            problems: Vec::new(),
            warnings: Vec::new(),
            mentioned: Vec::new(),
            asked: Vec::new(),
            variables: Vec::new(),
        }
    }

    pub(crate) fn problem<T>(&mut self, at: Span, message: impl Into<String>, fix: impl Into<String>) -> Option<T> {
        self.problems.push(Problem::new(at, message, fix));
        None
    }

    /// A whole expression: it must be true or false.
    pub(crate) fn condition(&mut self, ast: &Ast) -> Option<Node> {
        let (node, kind) = self.check(ast)?;
        self.must_be_bool(&node, kind)?;
        Some(node)
    }

    pub(crate) fn must_be_bool(&mut self, node: &Node, kind: Type) -> Option<()> {
        let fix = match kind {
            Type::Bool => return Some(()),
            Type::Texts | Type::Ints => "ask for what is in it: `'admin' in user.roles`, or `size(…) > 0`",
            _ => "compare it with something: `… == '…'`",
        };
        self.problem(node.at, format!("a condition is true or false, and this is {kind}"), fix)
    }

    pub(crate) fn check(&mut self, ast: &Ast) -> Checked {
        let at = ast.at;
        let made = |does: Does, kind: Type| Some((Node { at, does }, kind));
        match &ast.is {
            Is::Bool(value) => made(Does::Bool(*value), Type::Bool),
            Is::Int(value) => made(Does::Int(*value), Type::Int),
            Is::Text(value) => made(Does::Text(value.as_str().into()), Type::Text),
            Is::List(items) => self.list(at, items),
            Is::Name(_) | Is::Select { .. } => self.name(ast),
            Is::Index { of, index } => self.index(ast, of, index),
            Is::Call { receiver, name, name_at, arguments } => {
                let call = functions::Call { at, receiver: receiver.as_deref(), name, name_at: *name_at, arguments };
                self.call(&call)
            }
            Is::Not(inner) => {
                let (node, kind) = self.check(inner)?;
                self.must_be_bool(&node, kind)?;
                made(Does::Not(Box::new(node)), Type::Bool)
            }
            Is::Negative(inner) => {
                let (node, kind) = self.check(inner)?;
                if !matches!(kind, Type::Int | Type::Span) {
                    return self.problem(at, format!("`-` before {kind}"), "it stands before numbers");
                }
                made(Does::Negative(Box::new(node)), kind)
            }
            Is::And(parts) => {
                let nodes = self.all(parts)?;
                made(Does::And(nodes), Type::Bool)
            }
            Is::Or(parts) => {
                let nodes = self.all(parts)?;
                made(Does::Or(nodes), Type::Bool)
            }
            Is::Binary { sign, sign_at, left, right } => {
                let (left, right) = (self.check(left), self.check(right));
                self.binary(at, sign, *sign_at, left?, right?)
            }
            Is::If { when, then, otherwise } => self.choice(at, when, then, otherwise),
        }
    }

    fn all(&mut self, parts: &[Ast]) -> Option<Box<[Node]>> {
        // Every part is looked at, so that all problems show at once.
        let nodes: Vec<Option<Node>> = parts.iter().map(|part| self.condition(part)).collect();
        nodes.into_iter().collect::<Option<Vec<Node>>>().map(Vec::into_boxed_slice)
    }

    fn list(&mut self, at: Span, items: &[Ast]) -> Checked {
        let checked: Vec<Checked> = items.iter().map(|item| self.check(item)).collect();
        let checked: Vec<(Node, Type)> = checked.into_iter().collect::<Option<_>>()?;
        let kind = match checked.first() {
            Some((_, Type::Int)) => Type::Ints,
            _ => Type::Texts,
        };
        for (node, item) in &checked {
            let fits = match kind {
                Type::Ints => *item == Type::Int,
                _ => matches!(item, Type::Text | Type::Dynamic),
            };
            if !fits {
                let fix = "a list holds strings or numbers, not both, and no lists";
                return self.problem(node.at, format!("{item} in {kind}"), fix);
            }
        }
        let nodes = checked.into_iter().map(|(node, _)| node).collect();
        Some((Node { at, does: Does::List(nodes) }, kind))
    }

    fn choice(&mut self, at: Span, when: &Ast, then: &Ast, otherwise: &Ast) -> Checked {
        let when = self.condition(when);
        let (then, otherwise) = (self.check(then), self.check(otherwise));
        let (when, (then, kind), (otherwise, other)) = (when?, then?, otherwise?);
        let whole = match (kind, other) {
            (a, b) if a == b => a,
            (Type::Dynamic, Type::Text | Type::Texts) | (Type::Text | Type::Texts, Type::Dynamic) => Type::Dynamic,
            (a, b) => {
                let message = format!("one side of `:` is {a}, the other {b}");
                return self.problem(at, message, "both sides must be of one kind");
            }
        };
        Some((Node { at, does: Does::If(Box::new([when, then, otherwise])) }, whole))
    }

    fn is_variable(&self, name: &str) -> bool {
        self.variables.iter().any(|(own, _)| own == name)
    }

    /// The dotted name that this is, where it begins with none of the loops' variables.
    fn dotted(&self, ast: &Ast) -> Option<String> {
        let join = |of: &Ast, name: &str| self.dotted(of).map(|group| format!("{group}.{name}"));
        match &ast.is {
            Is::Name(name) => (!self.is_variable(name)).then(|| name.clone()),
            Is::Select { of, name, .. } => join(of, name),
            Is::Index { of, index } => match &index.is {
                Is::Text(name) => join(of, name),
                _ => None,
            },
            _ => None,
        }
    }

    /// The group of names that this is, such as `user`.
    fn group(&self, ast: &Ast) -> Option<String> {
        self.dotted(ast).filter(|name| self.environment.find(name) == Name::Group)
    }

    fn name(&mut self, ast: &Ast) -> Checked {
        match &ast.is {
            Is::Name(name) => {
                if let Some(place) = self.variables.iter().rposition(|(own, _)| own == name) {
                    let kind = self.variables[place].1;
                    return Some((Node { at: ast.at, does: Does::Variable(place) }, kind));
                }
                self.named(ast.at, ast.at, "", name)
            }
            Is::Select { of, name, name_at } => match self.group(of) {
                Some(group) => self.named(ast.at, *name_at, &group, name),
                None => self.member(ast.at, of, name, *name_at),
            },
            _ => None,
        }
    }

    /// A declared name.
    fn named(&mut self, at: Span, name_at: Span, group: &str, name: &str) -> Checked {
        let full = if group.is_empty() { name.to_owned() } else { format!("{group}.{name}") };
        match self.environment.find(&full) {
            Name::Value(kind, key) => {
                if !self.asked.contains(&key) {
                    self.asked.push(key);
                }
                Some((Node { at, does: Does::Ask(key) }, kind))
            }
            Name::Group => {
                let known: Vec<String> =
                    self.environment.members(&full).iter().map(|member| format!("`{full}.{member}`")).collect();
                let fix = format!("name a member: {}", known.join(", "));
                self.problem(at, format!("`{full}` is not a value"), fix)
            }
            Name::Unknown => {
                if group.is_empty() && functions::is_function(name) {
                    return self.problem(at, format!("`{name}` is a function"), format!("write `{name}(…)`"));
                }
                let message = match group {
                    "" => format!("there is no `{name}`"),
                    group => format!("`{group}` has no `{name}`"),
                };
                let fix = self.environment.instead_of(group, name);
                self.problem(name_at, message, fix)
            }
        }
    }

    /// A member of a value.
    fn member(&mut self, at: Span, of: &Ast, name: &str, name_at: Span) -> Checked {
        let (node, kind) = self.check(of)?;
        let literal = Node { at: name_at, does: Does::Text(name.into()) };
        self.looked_up(at, node, kind, literal)
            .map_err(|kind| {
                let likely = closest(name, functions::METHODS.iter().copied());
                let fix = match likely {
                    Some(likely) => format!("did you mean `.{likely}(…)`?"),
                    None => "take the member away".to_owned(),
                };
                self.problem::<()>(name_at, format!("{kind} has no member `{name}`"), fix);
            })
            .ok()
    }

    /// What stands in a value under a name.
    fn looked_up(&mut self, at: Span, of: Node, kind: Type, name: Node) -> Result<(Node, Type), Type> {
        let found = match kind {
            Type::Members => Type::Text,
            Type::Claims | Type::Dynamic => Type::Dynamic,
            other => return Err(other),
        };
        if let (Does::Ask(key), Does::Text(text), Type::Members) = (&of.does, &name.does, kind) {
            self.mentioned.push((*key, text.clone()));
        }
        Ok((Node { at, does: Does::Member { of: Box::new(of), name: Box::new(name) } }, found))
    }

    fn index(&mut self, ast: &Ast, of: &Ast, index: &Ast) -> Checked {
        if let Some(group) = self.group(of) {
            let Is::Text(name) = &index.is else {
                let fix = "write the name as it is: `path.id`, or `path['id']`";
                return self.problem(index.at, format!("which member of `{group}` this is must be known"), fix);
            };
            return self.named(ast.at, index.at, &group, name);
        }
        let (of, place) = (self.check(of), self.check(index));
        let ((of, kind), (place, by)) = (of?, place?);
        match (kind, by) {
            (Type::Texts | Type::Dynamic, Type::Int) => {
                let does = Does::Item { of: Box::new(of), place: Box::new(place) };
                Some((Node { at: ast.at, does }, Type::Text))
            }
            (Type::Ints, Type::Int) => {
                let does = Does::Item { of: Box::new(of), place: Box::new(place) };
                Some((Node { at: ast.at, does }, Type::Int))
            }
            (_, Type::Text) => match self.looked_up(ast.at, of, kind, place) {
                Ok(found) => Some(found),
                Err(kind) => {
                    let fix = "a list is asked by number: `…[0]`";
                    self.problem(index.at, format!("{kind} has no members by name"), fix)
                }
            },
            (kind, by) => {
                self.problem(index.at, format!("{kind} cannot be asked for {by}"), "write a name or a number")
            }
        }
    }

    /// The argument of `has`: a name or member that may be missing.
    pub(crate) fn may_be_missing(&mut self, ast: &Ast) -> Option<Node> {
        let (node, _) = self.check(ast)?;
        if matches!(node.does, Does::Ask(_) | Does::Member { .. }) && !matches!(ast.is, Is::Name(_)) {
            return Some(node);
        }
        self.problem(ast.at, "`has` asks about a member", "write `has(user.email)`, `has(query.page)`")
    }

    fn binary(
        &mut self,
        at: Span,
        sign: &str,
        sign_at: Span,
        (left, left_kind): (Node, Type),
        (right, right_kind): (Node, Type),
    ) -> Checked {
        let order = match sign {
            "<" => Order::Less,
            "<=" => Order::LessOrEqual,
            ">" => Order::Greater,
            ">=" => Order::GreaterOrEqual,
            "==" | "!=" => {
                let sides = self.alike(at, left, left_kind, right, right_kind, false)?;
                return Some((Node { at, does: Does::Equal { negated: sign == "!=", sides } }, Type::Bool));
            }
            "in" => return self.contained(at, left, left_kind, right, right_kind),
            _ => return self.arithmetic(at, sign, sign_at, (left, left_kind), (right, right_kind)),
        };
        let sides = self.alike(at, left, left_kind, right, right_kind, true)?;
        if sides.iter().any(|side| matches!(&side.does, Does::Text(text) if constants::is_number(text))) {
            let fix = "write `int(…)` round the value, and the number without quotes";
            self.warnings.push(Problem::new(at, "this compares text, in which `9` comes after `18`", fix));
        }
        Some((Node { at, does: Does::Compare { how: order, sides } }, Type::Bool))
    }

    /// Two sides of a comparison, of one kind.
    fn alike(
        &mut self,
        at: Span,
        mut left: Node,
        left_kind: Type,
        mut right: Node,
        right_kind: Type,
        ordered: bool,
    ) -> Option<Box<[Node; 2]>> {
        use Type::{Claims, Dynamic, Int, Ints, Members, Span, Text, Texts, Time};
        let fits = match (left_kind, right_kind) {
            (Members | Claims, _) | (_, Members | Claims) => false,
            (Type::Bool | Texts | Ints, _) | (_, Type::Bool | Texts | Ints) if ordered => false,
            (Dynamic, Text | Texts | Dynamic) | (Text | Texts, Dynamic) => true,
            (Time | Span, Text) => {
                right = constants::as_kind(right, left_kind).map_err(|problem| self.problems.push(problem)).ok()?;
                true
            }
            (Text, Time | Span) => {
                left = constants::as_kind(left, right_kind).map_err(|problem| self.problems.push(problem)).ok()?;
                true
            }
            (a, b) => a == b,
        };
        if fits {
            return Some(Box::new([left, right]));
        }
        let number = [&left, &right].into_iter().find_map(|side| match side.does {
            Does::Int(number) => Some(number),
            _ => None,
        });
        let fix = match (left_kind, right_kind) {
            (Text | Dynamic, Int) | (Int, Text | Dynamic) => match number {
                Some(number) if !ordered => format!("values of a request are text: write `'{number}'`"),
                _ => "values of a request are text: write `int(…)` round it".to_owned(),
            },
            (Texts, Text) | (Text, Texts) if !ordered => "ask whether it is in the list: `'…' in …`".to_owned(),
            (Type::Bool, Text) | (Text, Type::Bool) => "leave the comparison out, or compare two strings".to_owned(),
            (Members | Claims, _) | (_, Members | Claims) => "name what is in it: `query.page`".to_owned(),
            (Time, Dynamic) | (Dynamic, Time) => "write `timestamp(…)` round the claim".to_owned(),
            (Span, Dynamic) | (Dynamic, Span) => "write `duration(…)` round the claim".to_owned(),
            _ if ordered => "what has an order is strings, numbers and times, each among themselves".to_owned(),
            _ => "compare values of one kind".to_owned(),
        };
        self.problem(at, format!("{left_kind} and {right_kind} cannot be compared"), fix)
    }

    fn contained(&mut self, at: Span, left: Node, left_kind: Type, right: Node, right_kind: Type) -> Checked {
        use Type::{Claims, Dynamic, Int, Ints, Members, Text, Texts};
        let fits = match (left_kind, right_kind) {
            (Text | Dynamic, Texts | Dynamic | Members | Claims) | (Int, Ints) => true,
            // An empty list may hold anything.
            (Int, Texts) => matches!(&right.does, Does::List(items) if items.is_empty()),
            _ => false,
        };
        if let (Does::Ask(key), Does::Text(name), Members) = (&right.does, &left.does, right_kind) {
            self.mentioned.push((*key, name.clone()));
        }
        if fits {
            return Some((Node { at, does: Does::In(Box::new([left, right])) }, Type::Bool));
        }
        let fix = match (left_kind, right_kind) {
            (Text, Text) => "for a piece of a text write `….contains(…)`, for equality `==`",
            (Texts, Texts) => "write `….exists(x, x in …)` for one of them, `….all(x, x in …)` for every one",
            (Int, Texts | Dynamic) => "values of a request are text: put the number into quotes",
            _ => "`in` asks for a string in a list of strings",
        };
        self.problem(at, format!("{left_kind} cannot be in {right_kind}"), fix)
    }

    fn arithmetic(
        &mut self,
        at: Span,
        sign: &str,
        sign_at: Span,
        (left, left_kind): (Node, Type),
        (right, right_kind): (Node, Type),
    ) -> Checked {
        use Type::{Dynamic, Int, Span, Text, Time};
        let (how, kind) = match (sign, left_kind, right_kind) {
            ("+", Int, Int) => (Arithmetic::Add, Int),
            ("+", Text | Dynamic, Text | Dynamic) => (Arithmetic::Add, Text),
            ("+", Time, Span) | ("+", Span, Time) => (Arithmetic::Add, Time),
            ("+", Span, Span) => (Arithmetic::Add, Span),
            ("-", Int, Int) => (Arithmetic::Subtract, Int),
            ("-", Time, Time) | ("-", Span, Span) => (Arithmetic::Subtract, Span),
            ("-", Time, Span) => (Arithmetic::Subtract, Time),
            ("*", Int, Int) => (Arithmetic::Multiply, Int),
            ("/", Int, Int) => (Arithmetic::Divide, Int),
            ("%", Int, Int) => (Arithmetic::Remainder, Int),
            _ => {
                let hyphen = sign == "-" && matches!((&left.does, &right.does), (Does::Ask(_), Does::Ask(_)));
                let fix = if hyphen { "a name with a hyphen is written `path['a-b']`" } else { "compare them instead" };
                let message = format!("`{sign}` between {left_kind} and {right_kind}");
                return self.problem(sign_at, message, fix);
            }
        };
        Some((Node { at, does: Does::Compute { how, sides: Box::new([left, right]) } }, kind))
    }
}
