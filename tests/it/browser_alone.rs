//! The browser and its script against the app without a gateway.

use anyhow::Result;
use palisade_test::python::App;
use palisade_test::upstream::Reply;
use palisade_test::{Upstream, browser};
use serde_json::{Value, json};

#[tokio::test]
async fn the_documentation_pages_work_by_themselves() -> Result<()> {
    let app = App::plausible().await?;
    let seen = browser::run("docs_page.mjs", &[&app.url()]).await?;
    let docs = &seen["docs"];
    assert_eq!((&docs["error"], &seen["redoc"]["error"]), (&Value::Null, &Value::Null));
    assert_eq!(docs["title"], "Plausible - Swagger UI");
    assert_eq!((&docs["status_seen"], &docs["body_seen"]), (&json!("200"), &json!("[]")));
    assert_eq!(seen["redoc"]["heading"], "Plausible (1.0.0)");
    for page in ["docs", "redoc"] {
        for complaint in ["csp_violations", "console_errors", "page_errors", "unanswered"] {
            assert_eq!(seen[page][complaint], json!([]), "{page}: {complaint}");
        }
    }
    Ok(())
}

/// FastAPI's page under the guide's own CSP, which breaks it: the script must notice, or it would prove nothing of ours.
#[tokio::test]
async fn a_policy_that_breaks_the_page_is_noticed() -> Result<()> {
    let upstream = Upstream::answering(|_| {
        let page = r#"<!doctype html><title>Plausible</title><div id="swagger-ui"></div>
            <script src="https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui-bundle.js"></script><script>start()</script>"#;
        let length = page.len();
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Security-Policy: default-src 'self'\r\n\
             Content-Length: {length}\r\n\r\n{page}"
        ))
    });
    let seen = browser::run("docs_page.mjs", &[&upstream.await?.url(), "get", "/notes", "1000"]).await?;
    for page in ["docs", "redoc"] {
        let seen = &seen[page];
        assert!(seen["error"].is_string(), "{seen}");
        let blocked: Vec<_> =
            seen["csp_violations"].as_array().into_iter().flatten().map(|seen| &seen["blocked"]).collect();
        let expected =
            [&json!("https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui-bundle.js"), &json!("inline")];
        assert!(expected.iter().all(|expected| blocked.contains(expected)), "{seen}");
        assert_eq!(seen["outside"], json!([]), "the browser asked for what the policy forbids");
    }
    Ok(())
}
