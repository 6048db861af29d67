//! Tokens in the forms of a page, so that an application needs no template of its own for them.
//!
//! A token that gets into a form of somebody else's is that visitor's session given away (threat 44): forms are told
//! apart as a browser tells them apart, and where two readings are possible, the page stays as it is. Whoever can write
//! into the page can keep a token out of a form, but not get one into another.
//! Source: HTML standard §13.2.6 ("form element pointer"), §4.10.21 (form submission), URL standard.

use crate::html::{MAX_ATTRIBUTES, closing, tag};

/// A larger page stays as it is, in bytes.
pub(super) const MAX_PAGE: usize = 1 << 20;
/// No page has more forms.
const MAX_FORMS: usize = 256;

/// Elements whose content is text to a browser, whatever it looks like.
const TEXT: [&str; 9] = ["script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes", "noscript"];

/// A form that posts.
#[derive(Debug)]
struct Form<'p> {
    /// Where its first child begins.
    inside: usize,
    id: Option<&'p str>,
    own: bool,
}

/// The page with the token in each form that posts to `origin`; none where no form does, or where it is not certain which
/// form is whose.
pub(super) fn inject(page: &str, token: &str, origin: &str) -> Option<String> {
    let forms = forms(page, origin)?;
    let mut out = String::with_capacity(page.len() + forms.len() * 128);
    let mut from = 0;
    for form in forms.iter().filter(|form| form.own) {
        out.push_str(page.get(from..form.inside)?);
        out.push_str("<input type=\"hidden\" name=\"csrf_token\" value=\"");
        out.push_str(token);
        out.push_str("\">");
        from = form.inside;
    }
    out.push_str(page.get(from..)?);
    (from > 0).then_some(out)
}

/// The forms of a page, in order; none where a browser might see others.
fn forms<'p>(page: &'p str, origin: &str) -> Option<Vec<Form<'p>>> {
    let mut forms: Vec<Form<'p>> = Vec::new();
    // Buttons that stand elsewhere and send a form by its id.
    let mut sent_elsewhere: Vec<&str> = Vec::new();
    let (mut open, mut in_select, mut foreign_depth) = (false, false, 0_u32);
    let mut rest = page;
    while let Some(place) = rest.find('<') {
        rest = &rest[place + 1..];
        let (closes, behind) = rest.strip_prefix('/').map_or((false, rest), |behind| (true, behind));
        if !behind.starts_with(|c: char| c.is_ascii_alphabetic()) {
            rest = past_comment(rest);
            continue;
        }
        let (name, attributes, after) = tag(behind);
        rest = after;
        if attributes.len() >= MAX_ATTRIBUTES {
            return None;
        }
        let attribute =
            |wanted: &str| attributes.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value);
        let name = name.to_ascii_lowercase();
        match (name.as_str(), closes) {
            ("form", _) if in_select => return None,
            ("form", true) => open = false,
            // A form in a form is none: a browser ignores its tag, and what is in it belongs to the outer one.
            ("form", false) if open => {}
            ("form", false) => {
                open = true;
                let posts = attribute("method").is_some_and(|method| method.eq_ignore_ascii_case("post"));
                let own = posts && is_own(attribute("action").unwrap_or_default(), origin);
                forms.push(Form { inside: page.len() - rest.len(), id: attribute("id"), own });
                if forms.len() > MAX_FORMS {
                    return None;
                }
            }
            ("select", closes) => in_select = !closes,
            // What a template closes is not what is open outside of it.
            ("template", false) if open => return None,
            ("svg" | "math", closes) => {
                foreign_depth = if closes { foreign_depth.saturating_sub(1) } else { foreign_depth.saturating_add(1) };
            }
            ("base", false) if attribute("href").is_some_and(|href| !is_own(href, origin)) => return None,
            ("frameset" | "plaintext", false) => return None,
            (text, false) if TEXT.contains(&text) => {
                let end = closing(rest, text);
                // In drawings a title has elements, and without scripts `noscript` has.
                if (foreign_depth > 0 || text == "noscript") && speaks_of_forms(&rest[..end]) {
                    return None;
                }
                rest = &rest[end..];
            }
            _ => {}
        }
        if !closes && attribute("formaction").is_some_and(|action| !is_own(action, origin)) {
            match attribute("form") {
                Some(id) if id.contains('&') => return None,
                Some(id) => sent_elsewhere.push(id),
                None => {}
            }
            if open && let Some(form) = forms.last_mut() {
                form.own = false;
            }
        }
    }
    for form in &mut forms {
        let by_id = |id: &str| id.contains('&') && !sent_elsewhere.is_empty() || sent_elsewhere.contains(&id);
        form.own &= !form.id.is_some_and(by_id);
    }
    Some(forms)
}

/// Behind `<`, where no tag begins: past a comment or a declaration.
fn past_comment(rest: &str) -> &str {
    let Some(comment) = rest.strip_prefix("!--") else {
        let declares = rest.starts_with(['!', '?', '/']);
        return if declares { rest.find('>').map_or("", |end| &rest[end + 1..]) } else { rest };
    };
    // `<!-->` and `<!--->` end where they begin.
    if let Some(behind) = comment.strip_prefix('>').or_else(|| comment.strip_prefix("->")) {
        return behind;
    }
    let ends = ["-->", "--!>"].into_iter().filter_map(|end| comment.find(end).map(|at| at + end.len()));
    ends.min().map_or("", |end| &comment[end..])
}

fn speaks_of_forms(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("<form") || text.contains("</form") || text.contains("formaction")
}

/// Whether a URL as an attribute has it leads to this origin. `&` begins a character reference, which may be anything.
fn is_own(url: &str, origin: &str) -> bool {
    let url: String = url.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
    let url = url.trim_matches(|c: char| c <= ' ');
    let leads = &url[..url.find('?').unwrap_or(url.len())];
    if leads.contains(['&', '\\']) {
        return false;
    }
    let leads = leads.split('#').next().unwrap_or_default();
    let authority = origin.split_once("//").map_or(origin, |(_, authority)| authority);
    let is = |wanted: &str, given: &str| given.eq_ignore_ascii_case(wanted);
    if let Some(rest) = leads.strip_prefix("//") {
        return is(authority, rest.split('/').next().unwrap_or_default());
    }
    if let Some((scheme, rest)) = leads.split_once("://") {
        let given = format!("{scheme}://{}", rest.split('/').next().unwrap_or_default());
        return is(origin, &given);
    }
    // `javascript:`, `https:/path` and whatever else has a scheme.
    let first = leads.split('/').next().unwrap_or_default();
    !first.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "https://api.example.com";

    fn tokens(page: &str) -> usize {
        inject(page, "TOKEN", ORIGIN).map_or(0, |page| page.matches("value=\"TOKEN\"").count())
    }

    #[test]
    fn ten_forms_four_get_a_token() {
        let page = r#"<!doctype html><body>
            <form method="post" action="/notes"><input name=a></form>
            <form method=POST><button>own</button></form>
            <form method="post" action="https://api.example.com/x?y=1&amp;z=2"></form>
            <FORM METHOD='post' ACTION='notes/new' id=four><button formaction="/other">own too</button></FORM>
            <form method="post" action="https://evil.example/x"></form>
            <form method="post" action="//evil.example/x"></form>
            <form action="/search"><input name=q></form>
            <form method="post" action="/a"><button formaction="https://evil.example/">x</button></form>
            <form method="post" action="javascript:alert(1)"></form>
            <form method="post" action="http://api.example.com/plain"></form>"#;
        let out = inject(page, "TOKEN", ORIGIN).unwrap();
        assert_eq!(out.matches("TOKEN").count(), 4, "{out}");
        let hidden = "<input type=\"hidden\" name=\"csrf_token\" value=\"TOKEN\">";
        for form in ["action=\"/notes\">", "<form method=POST>", "z=2\">", "id=four>"] {
            assert!(out.contains(&format!("{form}{hidden}")), "{form}: {out}");
        }
        assert_eq!(out.replace(hidden, ""), page, "nothing else changed");
    }

    #[test]
    fn no_token_gets_into_a_foreign_form() {
        let own = r#"<form method="post" action="/own"><input name=a></form>"#;
        assert_eq!(tokens(own), 1);
        for before in [
            // An open form takes what follows it.
            r#"<form method=post action="https://evil.example">"#,
            r#"<form method=post action="https://evil.example"><!-- </form> -->"#,
            r#"<form method=post action="https://evil.example"><script>"</form>"</script>"#,
            r#"<form method=post action="https://evil.example"><textarea></form></textarea>"#,
            r#"<form method=post action="https://evil.example"><a title="</form>">"#,
            r#"<form method=post action="https://evil.example"><template></form></template>"#,
            r#"<form method=post action="https://evil.example"><select></form>"#,
            r#"<form method=post action="https://evil.example"><noscript></form></noscript>"#,
            r#"<!--><form method=post action="https://evil.example"><!-- -->"#,
            r#"<!---><form method=post action="https://evil.example"><!-- -->"#,
            r#"<!-- --!><form method=post action="https://evil.example"><!-- -->"#,
            r#"<svg><title><form method=post action="https://evil.example"></title></svg>"#,
            r#"<? x><form method=post action="https://evil.example">"#,
            // What hides the form from the browser.
            "<textarea>",
            "<!--",
            "<img src='https://evil.example/?",
            "<a href=\"https://evil.example/?",
            "<plaintext>",
            "<frameset>",
            // What leads relative addresses elsewhere.
            "<base href=\"https://evil.example/\">",
            "<base href=//evil.example>",
            "<base href='https&#58;//evil.example/'>",
            "<base href='\\\\evil.example'>",
        ] {
            assert_eq!(tokens(&format!("{before}{own}'\" -->")), 0, "{before}");
        }
        for form in [
            r#"<form method=post action="ht&#116;ps://evil.example"></form>"#,
            "<form method=post action='\thttps://evil.example'></form>",
            "<form method=post action='ht\ntps://evil.example'></form>",
            "<form method=post action='\\\\evil.example'></form>",
            "<form method=post action='/\\evil.example'></form>",
            "<form method=post action='/\n/evil.example'></form>",
            "<form method=post action='https:evil.example'></form>",
            "<form method=post action='https:/evil.example'></form>",
            "<form method=post action='https://api.example.com.evil.example/'></form>",
            "<form method=post action='https://api.example.com@evil.example/'></form>",
            "<form method=post action='https://api.example.com:8443/'></form>",
            "<form method=post action='https://evil.example?https://api.example.com'></form>",
            "<form method=post action=/a action2 formaction=https://evil.example></form>",
            "<form method=post action=https://evil.example action=/a></form>",
            "<form method=post action=/a id=f></form><button form=f formaction=//evil.example>",
            "<button form=f formaction=//evil.example></button><form method=post action=/a id=f></form>",
            "<form method=post action=/a id=f></form><button form='&#102;' formaction=//evil.example>",
            "<form method=post action=/a id='&#102;'></form><button form=f formaction=//evil.example>",
            "<form method=dialog action=/a></form>",
            "<form method=get action=/a></form>",
        ] {
            assert_eq!(tokens(form), 0, "{form}");
        }
        let many = format!("<form {} method=post action=/a formaction=//evil.example>", "a ".repeat(40));
        assert_eq!(tokens(&many), 0);
    }

    #[test]
    fn what_is_harmless_does_not_prevent_tokens() {
        let own = r#"<form method="post" action="/own"></form>"#;
        for around in [
            "<svg><title>icon</title><path d=''/></svg>",
            "<base href=\"/app/\">",
            "<script>var form = '<form action=\"https://evil.example\">'</script>",
            "<style>form { }</style><textarea><form></textarea>",
            "<template><form method=post action=/x></form></template>",
            "<select><option>1</select>",
            "<a href=https://other.example>x</a> 1 < 2 <",
            "<noscript>no scripts</noscript>",
        ] {
            assert!(tokens(&format!("{around}{own}")) >= 1, "{around}");
        }
    }

    #[test]
    fn broken_pages_are_read_to_their_end() {
        let page = "<form é method=post action='/é'><svg><title></form><!-- é --!><select><base href=é><button form=é>";
        for end in (0..=page.len()).filter(|end| page.is_char_boundary(*end)) {
            let _ = (inject(&page[end..], "T", ORIGIN), inject(&page[..end], "T", ORIGIN));
        }
    }
}
