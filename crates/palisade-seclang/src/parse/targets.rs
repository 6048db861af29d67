//! The variables of a rule: `ARGS|!ARGS:/x/|&REQUEST_HEADERS:Host`.

use crate::names::TxNames;
use crate::problem::did_you_mean;
use crate::regex::Regex;
use crate::rule::{Exclusion, Select, Target};
use crate::variable::{Kind, Var};

/// Reads a list of variables; returns those to look at and those to leave out.
///
/// # Errors
/// Message and help.
pub(crate) fn targets(text: &str, names: &mut TxNames) -> Result<(Vec<Target>, Vec<Exclusion>), (String, String)> {
    let mut wanted = Vec::new();
    let mut excluded = Vec::new();
    for piece in split(text) {
        let (negated, rest) = match piece.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, piece),
        };
        let (count, rest) = match rest.strip_prefix('&') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if negated {
            excluded.push(exclusion(rest)?);
        } else {
            let (var, select) = variable(rest, Some(&mut *names))?;
            wanted.push(Target { var, select, count });
        }
    }
    Ok((wanted, excluded))
}

/// Splits at `|` and `,` outside of patterns and quotes.
fn split(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut start = 0;
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'|' | b',' => {
                out.push(text[start..i].trim());
                start = i + 1;
            }
            b':' if bytes.get(i + 1) == Some(&b'\'') => {
                i += 2;
                while i < bytes.len() && bytes[i] != b'\'' {
                    i += 1;
                }
            }
            // A pattern runs to a slash that a separator or the end follows; `XML:/*` has no such slash.
            b':' if bytes.get(i + 1) == Some(&b'/') => {
                let close = (i + 2..bytes.len()).find(|&j| {
                    bytes[j] == b'/' && bytes[j - 1] != b'\\' && matches!(bytes.get(j + 1), None | Some(b'|' | b','))
                });
                let xml = text[start..i].trim_start_matches(['!', '&']).eq_ignore_ascii_case("XML");
                if let Some(close) = close.filter(|_| !xml) {
                    i = close;
                }
            }
            _ => {}
        }
        i += 1;
    }
    out.push(text[start..].trim());
    out.retain(|p| !p.is_empty());
    out
}

/// Reads one variable that is left out. One of `TX` is told by its name, too: rules make some whose names they do not
/// write out.
///
/// # Errors
/// Message and help.
pub(crate) fn exclusion(text: &str) -> Result<Exclusion, (String, String)> {
    let (var, select) = variable(text, None)?;
    Ok(Exclusion { var, select })
}

/// Reads one variable with its selection; with `names`, a variable of `TX` gets its slot.
fn variable(text: &str, names: Option<&mut TxNames>) -> Result<(Var, Select), (String, String)> {
    let (name, key) = match text.split_once([':', '.']) {
        Some((name, key)) => (name, Some(key)),
        None => (text, None),
    };
    if ["SESSIONID", "USERID"].iter().any(|unset| unset.eq_ignore_ascii_case(name)) {
        let help = "nothing sets it, for `setsid` and `setuid` are not supported; open a collection with `initcol`";
        return Err((format!("the variable `{name}` is not supported"), help.to_owned()));
    }
    let var = Var::find(name)
        .ok_or_else(|| (format!("unknown variable `{name}`"), did_you_mean(name, Var::ALL.iter().map(|v| v.name()))))?;
    let Some(key) = key else {
        if var == Var::Xml {
            return Ok((var, Select::XmlText));
        }
        return Ok((var, Select::All));
    };
    let key = key.strip_prefix('\'').and_then(|k| k.strip_suffix('\'')).unwrap_or(key);
    if var == Var::Xml {
        return match key {
            "/*" => Ok((var, Select::XmlText)),
            "//@*" => Ok((var, Select::XmlAttributes)),
            _ => Err((
                format!("`XML:{key}` is not supported"),
                "of XML, `XML:/*` (all text) and `XML://@*` (all attributes) can be inspected".into(),
            )),
        };
    }
    if var.kind() == Kind::Scalar {
        return Err((format!("`{name}` is one value and has no `:{key}`"), format!("write `{name}` alone")));
    }
    if let Some(pattern) = key.strip_prefix('/').and_then(|k| k.strip_suffix('/')).filter(|_| key.len() > 1) {
        let regex = Regex::new(pattern, false, true)
            .map_err(|e| (format!("the pattern `{pattern}` cannot be compiled: {e}"), String::new()))?;
        return Ok((var, Select::Pattern(regex)));
    }
    if let (Var::Tx, Some(names)) = (var, names) {
        return Ok((var, Select::Slot(names.slot(key))));
    }
    Ok((var, Select::Key(key.to_ascii_lowercase().into_bytes().into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces() {
        for (text, want) in [
            ("ARGS|!ARGS:/a|b/|XML:/*", vec!["ARGS", "!ARGS:/a|b/", "XML:/*"]),
            ("TX:'/A|B/'|&ARGS", vec!["TX:'/A|B/'", "&ARGS"]),
            ("XML:/*|XML://@*|ARGS:/x/", vec!["XML:/*", "XML://@*", "ARGS:/x/"]),
            ("!ARGS:a,!ARGS:b", vec!["!ARGS:a", "!ARGS:b"]),
        ] {
            assert_eq!(split(text), want);
        }
    }

    #[test]
    fn wrong_variables_say_so() {
        let mut names = TxNames::new();
        for text in ["ARG", "REQUEST_URI:x", "XML:/a/b", "ARGS:/(/"] {
            assert!(targets(text, &mut names).is_err(), "{text}");
        }
        assert_eq!(targets("ARGZ", &mut names).unwrap_err().1, "did you mean `ARGS`?");
    }
}
