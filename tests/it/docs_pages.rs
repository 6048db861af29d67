//! FastAPI's documentation pages in a browser, through the gateway.

use anyhow::{Result, ensure};
use palisade_test::python::App;
use palisade_test::{Palisade, browser};
use serde_json::{Value, json};

use crate::support::{starter, written};

/// Both pages load without a complaint, and "Try it out" shows the app's answer.
async fn pages_work(gateway: &Palisade) -> Result<Value> {
    let url = gateway.url("https")?;
    let seen = browser::run("docs_page.mjs", &[&url]).await?;
    let (docs, redoc) = (&seen["docs"], &seen["redoc"]);
    assert_eq!((&docs["error"], &redoc["error"]), (&Value::Null, &Value::Null), "{seen}");
    assert_eq!((&docs["status"], &redoc["status"]), (&json!(200), &json!(200)));
    assert_eq!(docs["title"], "Plausible - Swagger UI");
    assert_eq!((&docs["status_seen"], &docs["body_seen"]), (&json!("200"), &json!("[]")));
    assert_eq!(docs["request_url"], format!("{url}/notes?limit=20"));
    assert_eq!(redoc["heading"], "Plausible (1.0.0)");
    for page in [docs, redoc] {
        for complaint in ["csp_violations", "console_errors", "page_errors", "unanswered"] {
            assert_eq!(page[complaint], json!([]), "{complaint}");
        }
    }
    Ok(seen)
}

#[tokio::test]
async fn the_documentation_pages_work_under_the_starter_policy() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    pages_work(&gateway).await?;
    gateway.access(|line| line["path"] == "/notes" && line["protocol"] == "HTTP/2").await?;
    Ok(())
}

/// Under the strict policy, in force: the pages get what they need and nothing else does.
#[tokio::test]
async fn the_documentation_pages_work_under_the_strict_csp() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = written(&app.url(), "[headers]\nmode = \"block\"\n").await?;
    let seen = pages_work(&gateway).await?;
    for page in ["docs", "redoc"] {
        let csp = seen[page]["csp"].as_str().unwrap_or_default();
        ensure!(csp.contains("script-src") && !csp.contains("'unsafe-eval'"), "{page}: {csp}");
    }
    let plain = gateway.https()?.get("/form").send().await?;
    let csp = plain.header("content-security-policy").unwrap_or_default();
    ensure!(csp.contains("default-src") && !csp.contains("'unsafe-inline'") && !csp.contains("jsdelivr"), "{csp}");
    Ok(())
}
