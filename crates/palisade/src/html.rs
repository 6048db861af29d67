//! Just enough of HTML to find tags as a browser does (HTML standard §13.2.5), without making a tree of them.

/// No tag of an honest page has more attributes.
pub(crate) const MAX_ATTRIBUTES: usize = 32;

/// Name and attributes of a tag, and what is behind it. Values are as written, with their character references. Of
/// attributes beyond [`MAX_ATTRIBUTES`] nothing is known.
pub(crate) fn tag(text: &str) -> (&str, Vec<(&str, &str)>, &str) {
    let blank = |c: char| c.is_ascii_whitespace() || c == '/';
    let end = text.find(|c: char| blank(c) || c == '>').unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start_matches(blank);
        if rest.is_empty() {
            return (name, attributes, rest);
        }
        if let Some(behind) = rest.strip_prefix('>') {
            return (name, attributes, behind);
        }
        // The first character of a name may be anything, a `=` too.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest[first..].find(|c: char| blank(c) || c == '=' || c == '>').map_or(rest.len(), |end| end + first);
        let key = &rest[..end];
        rest = rest[end..].trim_start_matches(|c: char| c.is_ascii_whitespace());
        let mut value = "";
        if let Some(behind) = rest.strip_prefix('=') {
            let behind = behind.trim_start_matches(|c: char| c.is_ascii_whitespace());
            let quote = behind.chars().next().filter(|c| matches!(c, '"' | '\''));
            let (text, end) = match quote {
                Some(quote) => {
                    let end = behind[1..].find(quote).map_or(behind.len(), |end| end + 1);
                    (&behind[1..end], (end + 1).min(behind.len()))
                }
                None => {
                    let end = behind.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(behind.len());
                    (&behind[..end], end)
                }
            };
            value = text;
            rest = &behind[end..];
        }
        if attributes.len() < MAX_ATTRIBUTES {
            attributes.push((key, value));
        }
    }
}

/// Where the text of a `script`, `style` or the like ends: at its closing tag.
pub(crate) fn closing(text: &str, name: &str) -> usize {
    let mut from = 0;
    while let Some(place) = text[from..].find("</") {
        let at = from + place;
        let behind = &text.as_bytes()[at + 2..];
        let is_name = behind.get(..name.len()).is_some_and(|b| b.eq_ignore_ascii_case(name.as_bytes()));
        let ends = behind.get(name.len()).is_none_or(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>'));
        if is_name && ends {
            return at;
        }
        from = at + 2;
    }
    text.len()
}
