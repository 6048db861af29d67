//! Tokens into a tree, after the grammar of the language definition ("Syntax"). What is left out of the language is
//! named when it is met, with what to write instead.

use crate::lexer::{Kind, Token, tokens};
use crate::problem::{Problem, Span};

/// The longest expression, in bytes.
pub const MAX_BYTES: usize = 4096;
/// How deep expressions may lie in each other. Everything that walks a tree recurses, so this bounds the stack.
pub const MAX_DEPTH: usize = 40;

/// A part of an expression, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Ast {
    pub(crate) at: Span,
    pub(crate) is: Is,
    height: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Is {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Ast>),
    Name(String),
    Select {
        of: Box<Ast>,
        name: String,
        name_at: Span,
    },
    Index {
        of: Box<Ast>,
        index: Box<Ast>,
    },
    Call {
        receiver: Option<Box<Ast>>,
        name: String,
        name_at: Span,
        arguments: Vec<Ast>,
    },
    Not(Box<Ast>),
    Negative(Box<Ast>),
    /// `&&` of all of them.
    And(Vec<Ast>),
    /// `||` of all of them.
    Or(Vec<Ast>),
    Binary {
        sign: &'static str,
        sign_at: Span,
        left: Box<Ast>,
        right: Box<Ast>,
    },
    If {
        when: Box<Ast>,
        then: Box<Ast>,
        otherwise: Box<Ast>,
    },
}

impl Ast {
    fn children(is: &Is) -> Vec<&Ast> {
        match is {
            Is::Bool(_) | Is::Int(_) | Is::Text(_) | Is::Name(_) => Vec::new(),
            Is::List(all) | Is::And(all) | Is::Or(all) => all.iter().collect(),
            Is::Select { of, .. } | Is::Not(of) | Is::Negative(of) => vec![of],
            Is::Index { of, index } => vec![of, index],
            Is::Call { receiver, arguments, .. } => receiver.iter().map(AsRef::as_ref).chain(arguments).collect(),
            Is::Binary { left, right, .. } => vec![left, right],
            Is::If { when, then, otherwise } => vec![when, then, otherwise],
        }
    }

    fn new(at: Span, is: Is) -> Result<Self, Problem> {
        let height = Self::children(&is).iter().map(|child| child.height).max().unwrap_or(0).saturating_add(1);
        if height > MAX_DEPTH {
            return Err(too_deep(at));
        }
        Ok(Self { at, is, height })
    }
}

fn too_deep(at: Span) -> Problem {
    Problem::new(at, "this is nested too deeply", "split it: several routes, or fewer parentheses")
}

/// Reads an expression.
pub(crate) fn parse(text: &str) -> Result<Ast, Problem> {
    if text.len() > MAX_BYTES {
        let at = Span::new(0, text.len());
        return Err(Problem::new(at, format!("longer than {MAX_BYTES} bytes"), "split it over several routes"));
    }
    let mut parser = Parser { tokens: tokens(text)?, place: 0, depth: 0 };
    if parser.is_end() {
        let at = Span::new(0, text.len());
        return Err(Problem::new(at, "there is no condition", "write one, such as `'admin' in user.roles`"));
    }
    let whole = parser.expression()?;
    if parser.is_end() {
        return Ok(whole);
    }
    Err(parser.unexpected())
}

/// Words that CEL keeps for itself.
const RESERVED: [&str; 18] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "namespace",
    "package",
    "return",
    "var",
    "void",
    "while",
    "in",
];

/// Binary operators but for `&&` and `||`, with how tightly they bind.
const BINARY: [(&str, u8); 11] =
    [("==", 1), ("!=", 1), ("<", 1), ("<=", 1), (">", 1), (">=", 1), ("+", 2), ("-", 2), ("*", 3), ("/", 3), ("%", 3)];

struct Parser {
    tokens: Vec<Token>,
    place: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        // The last token is the end, and nothing goes past it.
        &self.tokens[self.place.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.place = self.place.saturating_add(1);
        token
    }

    fn is_end(&self) -> bool {
        self.peek().kind == Kind::End
    }

    fn is(&self, sign: &str) -> bool {
        matches!(&self.peek().kind, Kind::Sign(own) if *own == sign)
    }

    fn eats(&mut self, sign: &str) -> bool {
        let is = self.is(sign);
        self.place += usize::from(is);
        is
    }

    fn expect(&mut self, sign: &str, opened: Span) -> Result<Span, Problem> {
        if self.is(sign) {
            return Ok(self.next().at);
        }
        if self.is_end() {
            return Err(Problem::new(opened, "this is not closed", format!("close it with `{sign}`")));
        }
        Err(self.unexpected())
    }

    fn unexpected(&self) -> Problem {
        let token = self.peek();
        match &token.kind {
            Kind::End => Problem::new(token.at, "the expression ends too early", "write what follows here"),
            Kind::Name(word) if word == "and" => Problem::new(token.at, "`and` is not an operator", "write `&&`"),
            Kind::Name(word) if word == "or" => Problem::new(token.at, "`or` is not an operator", "write `||`"),
            Kind::Name(word) if word == "not" => {
                Problem::new(token.at, "`not` is not an operator", "write `!(… in …)`, or `!` before what is negated")
            }
            Kind::Name(word) => Problem::new(
                token.at,
                format!("`{word}` was not expected here"),
                "join conditions with `&&` or `||`, and put text into quotes",
            ),
            Kind::Sign(sign) => Problem::new(token.at, format!("`{sign}` was not expected here"), "take it away"),
            Kind::Int(_) | Kind::Text(_) => {
                Problem::new(token.at, "a value was not expected here", "write an operator before it")
            }
        }
    }

    /// `a ? b : c`, or anything that binds more tightly.
    fn expression(&mut self) -> Result<Ast, Problem> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(too_deep(self.peek().at));
        }
        let when = self.any_of()?;
        let whole = if self.eats("?") {
            let then = self.any_of()?;
            self.expect(":", when.at)?;
            let otherwise = self.expression()?;
            let at = when.at.to(otherwise.at);
            let is = Is::If { when: Box::new(when), then: Box::new(then), otherwise: Box::new(otherwise) };
            Ast::new(at, is)?
        } else {
            when
        };
        self.depth -= 1;
        Ok(whole)
    }

    fn any_of(&mut self) -> Result<Ast, Problem> {
        self.joined("||", Self::all_of, Is::Or)
    }

    fn all_of(&mut self) -> Result<Ast, Problem> {
        self.joined("&&", |parser| parser.binary(1), Is::And)
    }

    fn joined(
        &mut self,
        sign: &str,
        part: impl Fn(&mut Self) -> Result<Ast, Problem>,
        make: impl FnOnce(Vec<Ast>) -> Is,
    ) -> Result<Ast, Problem> {
        let first = part(self)?;
        if !self.is(sign) {
            return Ok(first);
        }
        let mut at = first.at;
        let mut parts = vec![first];
        while self.eats(sign) {
            let next = part(self)?;
            at = at.to(next.at);
            parts.push(next);
        }
        Ast::new(at, make(parts))
    }

    fn operator(&self) -> Option<(&'static str, u8)> {
        match &self.peek().kind {
            Kind::Sign(sign) => BINARY.iter().find(|(own, _)| own == sign).copied(),
            Kind::Name(word) if word == "in" => Some(("in", 1)),
            _ => None,
        }
    }

    fn binary(&mut self, least: u8) -> Result<Ast, Problem> {
        let mut left = self.unary()?;
        while let Some((sign, binds)) = self.operator().filter(|(_, binds)| *binds >= least) {
            let sign_at = self.next().at;
            let right = self.binary(binds + 1)?;
            let at = left.at.to(right.at);
            left = Ast::new(at, Is::Binary { sign, sign_at, left: Box::new(left), right: Box::new(right) })?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Ast, Problem> {
        let mut signs = Vec::new();
        while self.is("!") || self.is("-") {
            let negates = self.is("!");
            signs.push((negates, self.next().at));
        }
        let mut whole = self.member()?;
        for (negates, sign_at) in signs.into_iter().rev() {
            let at = sign_at.to(whole.at);
            whole = match (negates, whole.is) {
                (false, Is::Int(number)) => Ast::new(at, Is::Int(number.saturating_neg()))?,
                (negates, is) => {
                    let inner = Box::new(Ast { is, ..whole });
                    Ast::new(at, if negates { Is::Not(inner) } else { Is::Negative(inner) })?
                }
            };
        }
        Ok(whole)
    }

    fn member(&mut self) -> Result<Ast, Problem> {
        let mut whole = self.primary()?;
        loop {
            if self.eats(".") {
                let token = self.next();
                let Kind::Name(name) = token.kind else {
                    let fix = "write the name of a member, such as `user.id`";
                    return Err(Problem::new(token.at, "a name must follow the dot", fix));
                };
                if self.is("(") {
                    let (arguments, end) = self.arguments()?;
                    let at = whole.at.to(end);
                    let receiver = Some(Box::new(whole));
                    whole = Ast::new(at, Is::Call { receiver, name, name_at: token.at, arguments })?;
                } else {
                    let at = whole.at.to(token.at);
                    whole = Ast::new(at, Is::Select { of: Box::new(whole), name, name_at: token.at })?;
                }
            } else if self.is("[") {
                let opened = self.next().at;
                let index = self.expression()?;
                let end = self.expect("]", opened)?;
                let at = whole.at.to(end);
                whole = Ast::new(at, Is::Index { of: Box::new(whole), index: Box::new(index) })?;
            } else {
                return Ok(whole);
            }
        }
    }

    fn arguments(&mut self) -> Result<(Vec<Ast>, Span), Problem> {
        let opened = self.next().at;
        self.items(")", opened)
    }

    /// Behind the opening bracket: what stands between commas, to the closing one.
    fn items(&mut self, close: &str, opened: Span) -> Result<(Vec<Ast>, Span), Problem> {
        let mut items = Vec::new();
        if !self.is(close) {
            items.push(self.expression()?);
            while self.eats(",") {
                if close == "]" && self.is(close) {
                    break;
                }
                items.push(self.expression()?);
            }
        }
        Ok((items, self.expect(close, opened)?))
    }

    fn primary(&mut self) -> Result<Ast, Problem> {
        let token = self.peek().clone();
        match token.kind {
            Kind::Int(number) => {
                self.next();
                Ast::new(token.at, Is::Int(number))
            }
            Kind::Text(text) => {
                self.next();
                Ast::new(token.at, Is::Text(text))
            }
            Kind::Sign("(") => {
                let opened = self.next().at;
                let inner = self.expression()?;
                let end = self.expect(")", opened)?;
                Ok(Ast { at: opened.to(end), ..inner })
            }
            Kind::Sign("[") => {
                let opened = self.next().at;
                let (items, end) = self.items("]", opened)?;
                Ast::new(opened.to(end), Is::List(items))
            }
            Kind::Name(name) => self.name(name, token.at),
            Kind::Sign(_) | Kind::End => Err(self.unexpected()),
        }
    }

    fn name(&mut self, name: String, at: Span) -> Result<Ast, Problem> {
        match &*name {
            "true" | "false" => {
                self.next();
                return Ast::new(at, Is::Bool(name == "true"));
            }
            "True" | "TRUE" | "False" | "FALSE" => {
                let fix = format!("write `{}`", name.to_ascii_lowercase());
                return Err(Problem::new(at, format!("`{name}` is not a value"), fix));
            }
            "null" | "None" | "nil" => {
                // Threat 10: `null == null` is true for whoever has nothing.
                let fix = "ask whether a member is there with `has(user.email)`";
                return Err(Problem::new(at, "there is no `null`: a member that is missing refuses", fix));
            }
            "and" | "or" | "not" => return Err(self.unexpected()),
            word if RESERVED.contains(&word) => {
                let fix = "names that a condition knows are in the documentation";
                return Err(Problem::new(at, format!("`{word}` is a reserved word"), fix));
            }
            _ => {}
        }
        self.next();
        if self.is("(") {
            let (arguments, end) = self.arguments()?;
            return Ast::new(at.to(end), Is::Call { receiver: None, name, name_at: at, arguments });
        }
        Ast::new(at, Is::Name(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree with every operation in parentheses.
    fn show(ast: &Ast) -> String {
        let all = |parts: &[Ast]| parts.iter().map(show).collect::<Vec<_>>();
        match &ast.is {
            Is::Bool(value) => value.to_string(),
            Is::Int(value) => value.to_string(),
            Is::Text(value) => format!("{value:?}"),
            Is::List(parts) => format!("[{}]", all(parts).join(",")),
            Is::Name(name) => name.clone(),
            Is::Select { of, name, .. } => format!("{}.{name}", show(of)),
            Is::Index { of, index } => format!("{}[{}]", show(of), show(index)),
            Is::Call { receiver, name, arguments, .. } => {
                let of = receiver.as_ref().map(|of| show(of) + ".").unwrap_or_default();
                format!("{of}{name}({})", all(arguments).join(","))
            }
            Is::Not(of) => format!("!{}", show(of)),
            Is::Negative(of) => format!("-{}", show(of)),
            Is::And(parts) => format!("({})", all(parts).join("&&")),
            Is::Or(parts) => format!("({})", all(parts).join("||")),
            Is::Binary { sign, left, right, .. } => format!("({} {sign} {})", show(left), show(right)),
            Is::If { when, then, otherwise } => format!("({}?{}:{})", show(when), show(then), show(otherwise)),
        }
    }

    #[test]
    fn precedence_is_that_of_the_language() {
        for (text, shown) in [
            ("a || b && c || d", "(a||(b&&c)||d)"),
            ("a && b == c in d", "(a&&((b == c) in d))"),
            ("!a.b(c)[0] == -1 + 2 * x - 3", "(!a.b(c)[0] == ((-1 + (2 * x)) - 3))"),
            ("a ? b : c ? d : e", "(a?b:(c?d:e))"),
            ("(a || b) && !(c)", "((a||b)&&!c)"),
            ("x in ['a', 'b',]", "(x in [\"a\",\"b\"])"),
            ("a.exists(r, r.startsWith('x'))", "a.exists(r,r.startsWith(\"x\"))"),
            ("1 + 2 < 3 * 4 % 5", "((1 + 2) < ((3 * 4) % 5))"),
            ("--x", "--x"),
        ] {
            assert_eq!(show(&parse(text).unwrap()), shown, "{text}");
        }
    }

    #[test]
    fn mistakes_point_at_the_offending_text() {
        for (text, at, fix) in [
            ("", "", "write one"),
            ("a ==", "", "write what follows here"),
            ("(a == b", "(", "close it with `)`"),
            ("a in [b", "[", "close it with `]`"),
            ("a == b)", ")", "take it away"),
            ("a and b", "and", "write `&&`"),
            ("a or b", "or", "write `||`"),
            ("not a", "not", "write `!"),
            ("a not in b", "not", "write `!(… in …)`"),
            ("a == null", "null", "has("),
            ("a == True", "True", "write `true`"),
            ("a.", "", "write the name of a member"),
            ("a b", "b", "join conditions"),
            ("a ? b", "a", "close it with `:`"),
            ("for", "for", "documentation"),
            ("a 'b'", "'b'", "write an operator"),
            ("f(a,)", ")", "take it away"),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.at.of(text), at, "{text}: {problem}");
            assert!(problem.fix.contains(fix), "{text}: {problem}");
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let deep = |open: &str, close: &str, times: usize| format!("{}a{}", open.repeat(times), close.repeat(times));
        assert!(parse(&deep("(", ")", MAX_DEPTH - 2)).is_ok());
        for text in [
            deep("(", ")", MAX_DEPTH + 1),
            deep("(", ")", MAX_BYTES / 2 - 1),
            deep("[", "]", MAX_DEPTH + 1),
            deep("f(", ")", MAX_DEPTH + 1),
            deep("!", "", MAX_DEPTH + 1),
            deep("", ".b", MAX_DEPTH + 1),
            deep("", "[0]", MAX_DEPTH + 1),
            deep("", " + a", MAX_DEPTH + 1),
            deep("a ? b : ", "", MAX_DEPTH + 1),
        ] {
            assert_eq!(parse(&text).unwrap_err().message, "this is nested too deeply", "{text}");
        }
        assert!(parse(&"x".repeat(MAX_BYTES + 1)).unwrap_err().message.starts_with("longer than"));
        assert!(parse(&vec!["a"; 800].join("||")).is_ok(), "side by side is not deep");
    }
}
