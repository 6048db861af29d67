//! FastAPI's documentation pages: whether they are served, and the policy under which they work.
//!
//! They load a script and a style from a CDN and start it with a script of their own. Exactly those pages get a policy
//! that names exactly these files and the hashes of exactly those scripts. Source: W3C CSP Level 3 §2.3.1, §8.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64;
use http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;
use crate::context::Context;
use crate::html::{closing, tag};
use crate::policy::values::OriginPattern;

/// Who may read the documentation pages and the OpenAPI document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Docs {
    /// Everybody.
    Open,
    /// Users with the role `admin`. Needs `[auth]`.
    Admin,
    /// Nobody.
    Closed,
}

/// Whether a request asks for documentation that these may read.
pub(crate) fn is_for(whom: Docs, ctx: &Context) -> bool {
    let config = &ctx.policy.config().headers.config;
    config.docs(ctx.policy.env().is_development()) == whom && is_docs(config, ctx, ctx.rule().id, ctx.app_path())
}

/// Whether a path of an application is one of documentation that not everybody may read. For a request whose rule is not
/// settled yet.
pub(crate) fn is_guarded(ctx: &Context, rule: u16, path: &str) -> bool {
    let config = &ctx.policy.config().headers.config;
    config.docs(ctx.policy.env().is_development()) != Docs::Open && is_docs(config, ctx, rule, path)
}

/// Whether the path is one of the documentation's: a page, or the document itself.
fn is_docs(config: &Config, ctx: &Context, rule: u16, path: &str) -> bool {
    is_page(&config.docs_pages, path) || {
        let openapi = &ctx.policy.upstream(rule).openapi;
        openapi.starts_with('/') && without_slash(path) == without_slash(openapi)
    }
}

/// A larger page keeps the usual policy.
pub(super) const MAX_PAGE: usize = 256 << 10;
/// No page of documentation has more.
const MAX_FOUND: usize = 32;

/// Whether a path is one of the pages, or what belongs to them.
pub(super) fn is_page(pages: &[String], path: &str) -> bool {
    let path = without_slash(path);
    pages.iter().any(|page| {
        path.strip_prefix(without_slash(page)).is_some_and(|rest| rest.is_empty() || rest == "/oauth2-redirect")
    })
}

/// The same path with and without a final slash is one: applications redirect from one to the other.
pub(super) fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// The policy for a page of documentation, by what it loads; `origins` are those it may load from.
pub(super) fn policy(page: &str, origins: &[OriginPattern]) -> Option<HeaderValue> {
    let found = scan(page);
    let allowed = |urls: &[&str]| -> Vec<String> {
        let mut sources: Vec<String> = urls.iter().filter_map(|url| source(url, origins)).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    };
    let mut scripts = allowed(&found.scripts);
    scripts.extend(found.inline_scripts.iter().map(|text| hash(text)));
    let mut styles = allowed(&found.styles);
    if found.redoc {
        // Its styles are made at run time (styled-components); hashes beside it would switch this off.
        styles.push("'unsafe-inline'".into());
    } else {
        styles.extend(found.inline_styles.iter().map(|text| hash(text)));
    }
    let mut images = allowed(&found.icons);
    images.extend(["'self'".into(), "data:".into()]);
    let mut fonts = vec!["'self'".to_owned(), "data:".to_owned()];
    if styles.iter().any(|style| style.starts_with("https://fonts.googleapis.com/")) {
        fonts.push("https://fonts.gstatic.com".into());
    }
    let mut text = String::from(
        "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; connect-src 'self'",
    );
    if found.redoc {
        // Its search runs in a worker made from its own script, and its maker's mark stands below the menu.
        text.push_str("; worker-src blob:");
        images.push("https://cdn.redoc.ly".into());
    }
    for (name, sources) in [("script-src", scripts), ("style-src", styles), ("img-src", images), ("font-src", fonts)] {
        text.push_str("; ");
        text.push_str(name);
        if sources.is_empty() {
            text.push_str(" 'none'");
        }
        for source in sources {
            text.push(' ');
            text.push_str(&source);
        }
    }
    HeaderValue::from_str(&text).ok()
}

/// How a policy names a URL of the page: the file itself where its origin is allowed, `'self'` for one of our own.
fn source(url: &str, origins: &[OriginPattern]) -> Option<String> {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let absolute = if url.starts_with("//") { format!("https:{url}") } else { url.to_owned() };
    let Some((scheme, rest)) = absolute.split_once("://") else {
        return (!url.contains(':')).then(|| "'self'".to_owned());
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let clean = |b: u8| b.is_ascii_graphic() && !matches!(b, b';' | b',' | b'\'' | b'"' | b'*' | b'\\');
    let origin = format!("{scheme}://{authority}");
    (absolute.bytes().all(clean) && origins.iter().any(|pattern| pattern.matches(&origin))).then_some(absolute)
}

/// As browsers compute it: line ends are `\n` by then.
fn hash(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    format!("'sha256-{}'", BASE64.encode(digest(&SHA256, text.as_bytes()).as_ref()))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found<'p> {
    scripts: Vec<&'p str>,
    inline_scripts: Vec<&'p str>,
    styles: Vec<&'p str>,
    inline_styles: Vec<&'p str>,
    icons: Vec<&'p str>,
    redoc: bool,
}

/// What a page loads. A page that this reads otherwise than a browser loads less than it wants to, never more than the
/// allowed origins have.
fn scan(page: &str) -> Found<'_> {
    let mut found = Found::default();
    let mut rest = page;
    while let Some(open) = rest.find('<') {
        rest = &rest[open + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            continue;
        }
        let (name, attributes, behind) = tag(rest);
        rest = behind;
        let attribute =
            |wanted: &str| attributes.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted)).map(|(_, v)| *v);
        let raw = name.eq_ignore_ascii_case("script") || name.eq_ignore_ascii_case("style");
        let text = if raw {
            let end = closing(rest, name);
            let text = &rest[..end];
            rest = &rest[end..];
            text
        } else {
            ""
        };
        let list = match name.to_ascii_lowercase().as_str() {
            "script" => match attribute("src") {
                Some(src) => (&mut found.scripts, src),
                None => (&mut found.inline_scripts, text),
            },
            "style" => (&mut found.inline_styles, text),
            "link" => match (attribute("rel").unwrap_or_default().to_ascii_lowercase(), attribute("href")) {
                (rel, Some(href)) if rel.contains("stylesheet") => (&mut found.styles, href),
                (rel, Some(href)) if rel.contains("icon") => (&mut found.icons, href),
                _ => continue,
            },
            "redoc" => {
                found.redoc = true;
                continue;
            }
            _ => continue,
        };
        if list.0.len() < MAX_FOUND {
            list.0.push(list.1);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWAGGER: &str = r#"<!DOCTYPE html><html><head>
        <link type="text/css" rel="stylesheet" href="https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui.css">
        <link rel="shortcut icon" href=https://fastapi.tiangolo.com/img/favicon.png>
        <!-- <script>not()</script> --></head><body><div id="swagger-ui"></div>
        <SCRIPT src='https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui-bundle.js'></script>
        <script src="https://evil.example/x.js"></script><script src="https://cdn.jsdelivr.net/a;b.js"></script>
        <script>alert(1)</SCRIPT ></body>"#;

    fn origins() -> Vec<OriginPattern> {
        ["https://cdn.jsdelivr.net", "https://fastapi.tiangolo.com"].map(|origin| origin.parse().unwrap()).to_vec()
    }

    #[test]
    fn the_policy_names_the_files_and_hashes_of_the_page() {
        let policy = policy(SWAGGER, &origins()).unwrap();
        let policy = policy.to_str().unwrap();
        // The hash of `alert(1)`, known from many a page on CSP.
        let scripts = "script-src https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui-bundle.js \
                       'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI=';";
        assert!(policy.contains(scripts), "{policy}");
        assert!(
            policy.contains("style-src https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui.css;"),
            "{policy}"
        );
        assert!(policy.contains("img-src https://fastapi.tiangolo.com/img/favicon.png 'self' data:;"), "{policy}");
        for never in ["evil", "unsafe", "a;b", "blob", "*"] {
            assert!(!policy.contains(never), "{never}: {policy}");
        }
    }

    #[test]
    fn own_files_are_self_and_redoc_gets_what_it_needs() {
        let page = "<redoc spec-url=/o></redoc><style>a{}</style><script src=/static/redoc.js></script><script src=javascript:x>";
        let policy = policy(page, &origins()).unwrap();
        let policy = policy.to_str().unwrap();
        assert!(policy.contains("script-src 'self'; style-src 'unsafe-inline';"), "{policy}");
        assert!(policy.contains("worker-src blob:"), "{policy}");
    }

    #[test]
    fn hashes_are_of_what_the_browser_sees() {
        assert_eq!(hash("a\r\nb\rc"), hash("a\nb\nc"));
    }

    #[test]
    fn broken_pages_are_read_to_their_end() {
        for page in [
            "<",
            "<script",
            "<script src",
            "<script src=",
            "<script src='",
            "<a b='c",
            "<!--",
            "<é é=é>",
            "<script>x</scrip",
            "<style>\u{e9}</",
        ] {
            let _ = scan(page);
            for end in (0..SWAGGER.len()).filter(|end| SWAGGER.is_char_boundary(*end)) {
                let _ = scan(&SWAGGER[end..]);
                let _ = scan(&SWAGGER[..end]);
            }
        }
        assert_eq!(scan("<script>a</scripty>b</script>").inline_scripts, ["a</scripty>b"]);
    }

    #[test]
    fn pages_and_what_belongs_to_them() {
        let pages = ["/docs".to_owned(), "/redoc".to_owned()];
        for path in ["/docs", "/docs/", "/redoc", "/docs/oauth2-redirect"] {
            assert!(is_page(&pages, path), "{path}");
        }
        for path in ["/", "/docs2", "/docs/7", "/x/docs", "/Docs"] {
            assert!(!is_page(&pages, path), "{path}");
        }
    }
}
