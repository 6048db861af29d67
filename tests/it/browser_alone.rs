//! The browser and its script against the app without a gateway.

use anyhow::Result;
use palisade_test::browser;
use palisade_test::python::App;
use serde_json::json;

#[tokio::test]
async fn the_documentation_pages_work_by_themselves() -> Result<()> {
    let app = App::plausible().await?;
    let seen = browser::run("docs_page.mjs", &[&app.url()]).await?;
    let docs = &seen["docs"];
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
