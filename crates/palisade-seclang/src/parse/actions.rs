//! The action list of a rule: `id:1,phase:2,setvar:'tx.a=+1'`.

/// One action as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Action {
    /// In lower case.
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

/// Splits a list of actions.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn actions(text: &str) -> Result<Vec<Action>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find([',', ':']).unwrap_or(rest.len());
        let name = rest[..end].trim().to_ascii_lowercase();
        if name.is_empty() {
            if rest.starts_with(',') {
                rest = rest[1..].trim_start();
                continue;
            }
            return Err("an action without a name".to_owned());
        }
        rest = &rest[end..];
        let mut value = None;
        if let Some(after) = rest.strip_prefix(':') {
            let after = after.trim_start();
            let (text, tail) = if after.starts_with('\'') { quoted(after)? } else { bare(after) };
            value = Some(text);
            rest = tail.trim_start();
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(format!("unexpected text after the value of `{name}`"));
            }
        }
        out.push(Action { name, value });
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Ok(out)
}

fn bare(text: &str) -> (String, &str) {
    // `setvar:tx.a='b c'` quotes only a part; commas inside do not separate.
    let mut inside = false;
    for (i, c) in text.char_indices() {
        match c {
            '\'' => inside = !inside,
            ',' if !inside => return (text[..i].trim_end().to_owned(), &text[i..]),
            _ => {}
        }
    }
    let end = if inside { text.find(',').unwrap_or(text.len()) } else { text.len() };
    (text[..end].trim_end().to_owned(), &text[end..])
}

fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((i, c)) = chars.next() {
        match c {
            '\'' => return Ok((out, &text[i + 1..])),
            '\\' if chars.peek().is_some_and(|(_, n)| *n == '\'') => {
                out.push('\'');
                chars.next();
            }
            c => out.push(c),
        }
    }
    Err("a quote `'` that does not end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let got = actions(r"id:1, phase:2,deny ,msg:'a, \'b\'',t:none,setvar:tx.x=1,ctl:ruleRemoveTargetById=1;ARGS:a")
            .unwrap();
        let flat: Vec<(&str, Option<&str>)> = got.iter().map(|a| (a.name.as_str(), a.value.as_deref())).collect();
        assert_eq!(
            flat,
            [
                ("id", Some("1")),
                ("phase", Some("2")),
                ("deny", None),
                ("msg", Some("a, 'b'")),
                ("t", Some("none")),
                ("setvar", Some("tx.x=1")),
                ("ctl", Some("ruleRemoveTargetById=1;ARGS:a")),
            ]
        );
        assert!(actions("msg:'a").is_err());
        assert!(actions(":a").is_err());
        assert!(actions("").unwrap().is_empty());
    }
}
