//! The examples that people start from, run as they stand there.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_test::{Need, Palisade, Process, browser, need, paths, provision};
use serde_json::{Value, json};

const PASSWORD: &str = "vier alte Kutschen im Nebel";

/// The example of FastAPI's side, with its own tests: `pytest` as a developer runs it, the binary on the path.
#[tokio::test]
async fn the_fastapi_example_passes_its_own_tests() -> Result<()> {
    need(Need::PythonExample)?;
    let mut path = vec![paths::binary()?.parent().context("a folder")?.to_owned(), provision::venv().join("bin")];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut pytest = Command::new(provision::python_program("python"));
    // Nothing is written beside the sources.
    pytest.args(["-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-rA"]).env("PYTHONDONTWRITEBYTECODE", "1");
    pytest.current_dir(paths::workspace().join("examples/fastapi")).env("PATH", std::env::join_paths(path)?);
    let folder = tempfile::Builder::new().prefix("palisade-test-").tempdir()?;
    pytest.env("TMPDIR", folder.path()).env_remove("PALISADE_ISSUER").env_remove("PALISADE_JWKS");
    let process = Process::spawn(pytest)?;
    let status = process.wait(Duration::from_secs(240)).await?;
    process.output().closed(Duration::from_secs(10)).await?;
    ensure!(status.success(), "{status}: {}", process.output().everything()?);
    let passed = process.output().everything()?.lines().filter(|line| line.starts_with("PASSED ")).count();
    ensure!(passed >= 10, "only {passed} ran: {}", process.output().tail());
    ensure!(process.descendants().is_empty(), "the fixture left something running");
    Ok(())
}

/// The page shows what is run here, and nothing else.
#[test]
fn the_fixture_of_the_page_is_the_one_that_runs() -> Result<()> {
    let read = |file: &str| std::fs::read_to_string(paths::workspace().join(file));
    let (page, conftest) = (read("docs/src/01-auth/fastapi.md")?, read("examples/fastapi/tests/conftest.py")?);
    let code = |text: &str| {
        let lines =
            text.lines().skip_while(|line| !line.starts_with("@pytest.fixture")).take_while(|line| *line != "```");
        let lines: Vec<String> = lines.filter(|line| !line.contains("\"\"\"")).map(str::to_owned).collect();
        lines
    };
    assert_eq!(code(&page), code(&conftest));
    ensure!(code(&page).len() <= 11, "ten lines under the decorator");
    Ok(())
}

/// FastAPI's own page: the scopes are shown, the token comes from the gateway, and the handler knows who asks.
#[tokio::test]
async fn the_authorize_button_of_the_example_works() -> Result<()> {
    need(Need::PythonExample)?;
    let example = paths::workspace().join("examples/fastapi");
    let policy = std::fs::read_to_string(example.join("palisade.toml"))?;
    let folder = example.to_string_lossy();
    let gateway = Palisade::serve()
        .policy(&policy)
        .app(&["uvicorn", "main:app", "--uds", "{socket}", "--app-dir", &*folder])
        .start()
        .await?;
    let account = json!({ "username": "ann", "email": "ann@example.com", "password": PASSWORD });
    let made = gateway.http()?.post("/auth/register").json(&account).send().await?;
    ensure!(made.status() == 201, "{}", made.status());
    let seen = browser::run("authorize_button.mjs", &[&gateway.url("http")?, "ann", PASSWORD]).await?;
    assert_eq!((&seen["before"], &seen["after"], &seen["name"]), (&json!(401), &json!(200), &json!("ann")), "{seen}");
    Ok(())
}

/// What a script learns of the ports, for `serve` and `demo`; and that a supervised application is told whom to believe.
#[tokio::test]
async fn a_ready_file_says_where_it_listens() -> Result<()> {
    let gateway = Palisade::demo().file("ready.json", "left by an earlier one").arg("--ready-file").arg("ready.json");
    let gateway = gateway.start().await?;
    let file = gateway.directory().join("ready.json");
    let read = || {
        let told = std::fs::read(&file).ok()?;
        serde_json::from_slice::<Value>(&told).ok()
    };
    let told = palisade_test::eventually(Duration::from_secs(20), "the file", async || read()).await?;
    for listener in ["http", "https", "admin"] {
        assert_eq!(told[listener], gateway.url(listener)?, "{listener}");
    }
    assert_eq!(told["pid"], gateway.process().id());
    ensure!(told["ca"].as_str().is_some_and(|ca| std::path::Path::new(ca).is_file()), "{told}");
    assert_eq!(gateway.terminate().await?.code(), Some(0), "{}", gateway.output().tail());
    ensure!(!file.exists(), "it is there only while the gateway is");
    let development = Palisade::serve().policy("[server]\nmode = \"development\"\n");
    let refused = development.arg("--ready-file").arg("no/such/folder/ready.json").refused().await?;
    ensure!(refused.code == Some(1) && refused.err.contains("--ready-file no/such"), "{refused:?}");
    Ok(())
}
