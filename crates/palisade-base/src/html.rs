//! Text inside HTML.

/// A text as HTML shows it: harmless between tags and in a quoted attribute, whatever somebody put into it.
///
/// ```
/// assert_eq!(palisade_base::html::escape("<b a='\"'>&é"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;é");
/// ```
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_is_markup(text in "\\PC{0,40}|[<>&\"'a-z;]{0,40}") {
            let escaped = super::escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            let back = escaped.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
            prop_assert_eq!(back.replace("&amp;", "&"), text);
        }
    }
}
