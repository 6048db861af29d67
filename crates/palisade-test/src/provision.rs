//! What the tests need from a machine that has a Rust toolchain, Python 3 and apt, and how it gets there.
//!
//! Each need is installed on its own and once; asking again costs a look at a stamp. It says what it installs and why,
//! asks nothing, works as root or with `sudo`, starts no service, and keeps what is not a Debian package under
//! `target/palisade-test`.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs::{self, File};
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::shell::{first_line, has, run, say, which};
use crate::{apt, paths};

/// Something a test may need. [`need`] makes sure that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// `cargo fmt` and `cargo clippy`, which the smallest installation of Rust leaves out.
    RustComponents,
    /// A virtual environment with FastAPI, uvicorn and what they use, pinned in `tests/apps/requirements.txt`.
    Python,
    /// The same environment with what the guide's own app imports, pinned in `tests/apps/guide/requirements.txt`.
    PythonGuide,
    /// The same environment with pytest, pinned in `examples/fastapi/requirements-test.txt`.
    PythonExample,
    /// The same environment with a mail server, pinned in `tests/apps/smtp/requirements.txt`.
    PythonSmtp,
    /// `node` and the packages pinned in `tests/node/package-lock.json`.
    Node,
    /// Debian's Chromium.
    Chromium,
    /// `promtool`, which judges the metrics. From Debian's `prometheus`, unpacked and not installed.
    Promtool,
    /// The OWASP Core Rule Set of Debian's `modsecurity-crs`, unpacked and not installed.
    CoreRuleSet,
    /// `curl`: the lines that `palisade demo` prints are run as printed.
    Curl,
    /// `openssl`, the other side in TLS tests.
    Openssl,
    /// `slowhttptest`, a thousand slow clients, and `ip`, which says where they come from.
    Slowhttptest,
    /// Debian's PostgreSQL: the programs only. Its own service is not started and its own cluster not used.
    Postgres,
    /// Debian's Redis: the programs only, as above.
    Redis,
}

impl Need {
    /// All of them, in the order `cargo xtask test` installs them.
    pub const ALL: [Need; 14] = [
        Need::RustComponents,
        Need::Python,
        Need::PythonGuide,
        Need::PythonExample,
        Need::PythonSmtp,
        Need::Node,
        Need::Chromium,
        Need::Promtool,
        Need::CoreRuleSet,
        Need::Curl,
        Need::Openssl,
        Need::Slowhttptest,
        Need::Postgres,
        Need::Redis,
    ];

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Need::RustComponents => "rustfmt and clippy",
            Need::Python => "python packages",
            Need::PythonGuide => "python packages of the guide",
            Need::PythonExample => "pytest",
            Need::PythonSmtp => "python's mail server",
            Need::Node => "node packages",
            Need::Chromium => "chromium",
            Need::Promtool => "promtool",
            Need::CoreRuleSet => "core rule set",
            Need::Curl => "curl",
            Need::Openssl => "openssl",
            Need::Slowhttptest => "slowhttptest",
            Need::Postgres => "postgresql",
            Need::Redis => "redis",
        }
    }

    fn is_met(self) -> bool {
        match self {
            Need::RustComponents => ["fmt", "clippy"].iter().all(|component| has_component(component)),
            Need::Python => stamp_matches(&venv(), &requirements()),
            Need::PythonGuide => stamp_matches(&venv().join("guide"), &guide_requirements()),
            Need::PythonExample => stamp_matches(&venv().join("example"), &example_requirements()),
            Need::PythonSmtp => stamp_matches(&venv().join("smtp"), &smtp_requirements()),
            Need::Node => has("node") && stamp_matches(&node(), &node_lock()),
            Need::Chromium => chromium().is_file(),
            Need::Promtool => promtool().is_file(),
            Need::CoreRuleSet => core_rule_set().join("usr/share/modsecurity-crs/rules").is_dir(),
            Need::Curl => has("curl"),
            Need::Openssl => has("openssl"),
            Need::Slowhttptest => has("slowhttptest") && has("ip"),
            Need::Postgres => postgres("initdb").is_file() && postgres("psql").is_file(),
            Need::Redis => has("redis-server") && has("redis-cli"),
        }
    }

    fn install(self) -> Result<()> {
        match self {
            Need::RustComponents => install_rust_components(),
            Need::Python => install_python(),
            Need::PythonGuide => install_python_guide(),
            Need::PythonExample => install_python_example(),
            Need::PythonSmtp => install_python_smtp(),
            Need::Node => install_node(),
            Need::Chromium => apt::install(&["chromium"], "tests open the app's /docs in a browser"),
            Need::Promtool => install_promtool(),
            Need::CoreRuleSet => {
                apt::unpack("modsecurity-crs", &core_rule_set(), "the rules that the WAF engine runs unchanged")
            }
            Need::Curl => apt::install(&["curl"], "tests run the lines that `palisade demo` prints"),
            Need::Openssl => apt::install(&["openssl"], "tests speak TLS with a second implementation"),
            Need::Slowhttptest => {
                apt::install(&["slowhttptest", "iproute2"], "tests and the bench hold a thousand slow connections")
            }
            Need::Postgres => apt::install(
                &["postgresql"],
                "what several instances share is tested on it, by servers of the tests' own; Debian's is not started",
            ),
            Need::Redis => apt::install(
                &["redis-server"],
                "limits and signals between instances are tested on it, by servers of the tests' own; Debian's is not started",
            ),
        }
    }
}

/// Makes sure that something is there, installing it when it is not.
///
/// Safe to call from any number of tests and processes at once: one installs, the others wait.
///
/// # Errors
/// When it can't be installed, or may not be: `PALISADE_PROVISION=never`.
pub fn need(what: Need) -> Result<()> {
    // Within a process by the mutex, between processes by the file's lock.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if what.is_met() {
        return Ok(());
    }
    if is_forbidden() {
        bail!("{} missing, and `PALISADE_PROVISION=never`: run `cargo xtask test --only provision`", what.name());
    }
    fs::create_dir_all(paths::cache())?;
    let lock = File::create(paths::cache().join("lock"))?;
    lock.lock().context("waiting for another process that installs")?;
    if what.is_met() {
        return Ok(());
    }
    what.install().with_context(|| format!("cannot install {}", what.name()))?;
    if !what.is_met() {
        bail!("{} installed without an error, yet not found afterwards", what.name());
    }
    Ok(())
}

/// Whether nothing may be installed: `PALISADE_PROVISION=never`, which `cargo xtask test --no-provision` says to all it starts.
pub fn is_forbidden() -> bool {
    env::var("PALISADE_PROVISION").as_deref() == Ok("never")
}

/// The virtual environment of [`Need::Python`].
pub fn venv() -> PathBuf {
    paths::cache().join("venv")
}

/// A program of the virtual environment, such as `uvicorn`.
pub fn python_program(name: &str) -> PathBuf {
    venv().join("bin").join(name)
}

/// The folder that holds `node_modules` of [`Need::Node`].
pub fn node() -> PathBuf {
    paths::cache().join("node")
}

/// The browser of [`Need::Chromium`].
pub fn chromium() -> PathBuf {
    which("chromium").unwrap_or_else(|| PathBuf::from("/usr/bin/chromium"))
}

/// The program of [`Need::Promtool`].
pub fn promtool() -> PathBuf {
    which("promtool").unwrap_or_else(|| paths::cache().join("prometheus/usr/bin/promtool"))
}

/// The root below which [`Need::CoreRuleSet`] lies as in Debian: `usr/share/modsecurity-crs`.
pub fn core_rule_set() -> PathBuf {
    paths::cache().join("modsecurity-crs")
}

/// A program of [`Need::Postgres`], such as `initdb`. Debian keeps one folder a version and puts few of them on the path.
pub fn postgres(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|version| installed(*version, program).is_file())
        .max();
    match newest {
        Some(version) => installed(version, program),
        None => which(program).unwrap_or_else(|| PathBuf::from(program)),
    }
}

fn installed(version: u32, program: &str) -> PathBuf {
    PathBuf::from(format!("/usr/lib/postgresql/{version}/bin/{program}"))
}

fn requirements() -> PathBuf {
    paths::tests("apps/requirements.txt")
}

fn guide_requirements() -> PathBuf {
    paths::tests("apps/guide/requirements.txt")
}

fn example_requirements() -> PathBuf {
    paths::workspace().join("examples/fastapi/requirements-test.txt")
}

fn smtp_requirements() -> PathBuf {
    paths::tests("apps/smtp/requirements.txt")
}

fn node_lock() -> PathBuf {
    paths::tests("node/package-lock.json")
}

/// Asked rather than looked for: `rustup` leaves a `cargo-fmt` on the path also where the component is missing.
fn has_component(name: &str) -> bool {
    first_line(Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args([name, "--version"])).is_some()
}

fn install_rust_components() -> Result<()> {
    if !has("rustup") {
        bail!("there is no `rustup` here: install `rustfmt` and `clippy` the way this Rust was installed");
    }
    say("installing: rustfmt and clippy (the tests begin with them)");
    run(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]).current_dir(paths::workspace()))
}

fn install_python() -> Result<()> {
    say("installing: FastAPI and uvicorn into target/palisade-test/venv (the apps behind the gateway run on them)");
    let venv = venv();
    // From the start: a half-made or outdated environment has no state worth keeping.
    let _ = fs::remove_dir_all(&venv);
    // Debian splits the module that fills an environment with pip off into a package of its own.
    if first_line(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_none() {
        apt::install(&["python3", "python3-venv"], "python packages live in a virtual environment")?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    pip_install(&requirements())?;
    write_stamp(&venv, &requirements())
}

fn install_python_guide() -> Result<()> {
    if !Need::Python.is_met() {
        install_python()?;
    }
    say("installing: what the guide's own app imports into target/palisade-test/venv (it runs behind the gateway too)");
    // python-magic reads the type of a file with libmagic.
    if first_line(
        Command::new("python3").args(["-c", "import ctypes.util as u; exit(u.find_library('magic') is None)"]),
    )
    .is_none()
    {
        apt::install(&["libmagic1"], "the guide's upload handler reads file types with it")?;
    }
    pip_install(&guide_requirements())?;
    write_stamp(&venv().join("guide"), &guide_requirements())
}

fn install_python_example() -> Result<()> {
    if !Need::Python.is_met() {
        install_python()?;
    }
    say("installing: pytest into target/palisade-test/venv (the FastAPI example has tests of its own)");
    pip_install(&example_requirements())?;
    write_stamp(&venv().join("example"), &example_requirements())
}

fn install_python_smtp() -> Result<()> {
    if !Need::Python.is_met() {
        install_python()?;
    }
    say("installing: aiosmtpd into target/palisade-test/venv (the mail server that tests send to)");
    pip_install(&smtp_requirements())?;
    write_stamp(&venv().join("smtp"), &smtp_requirements())
}

fn pip_install(requirements: &Path) -> Result<()> {
    run(Command::new(python_program("python"))
        .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet", "--requirement"])
        .arg(requirements))
}

fn install_node() -> Result<()> {
    if !has("node") || !has("npm") {
        apt::install(&["nodejs", "npm"], "the browser is driven by a script")?;
    }
    say(
        "installing: playwright-core, swagger-ui-dist, redoc into target/palisade-test/node (the browser's driver, and the \
         scripts that /docs and /redoc load from a CDN)",
    );
    let folder = node();
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(paths::tests("node").join(file), folder.join(file)).with_context(|| format!("tests/node/{file}"))?;
    }
    // No scripts of packages run: nothing here needs building.
    run(Command::new("npm")
        .args(["ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(&folder))?;
    write_stamp(&folder, &node_lock())
}

fn install_promtool() -> Result<()> {
    let folder = paths::cache().join("prometheus");
    apt::unpack("prometheus", &folder, "promtool judges the metrics; the server itself is not installed")
}

/// A stamp holds a hash of the file that says what is to be installed, so that changing a pin installs anew.
fn stamp_matches(folder: &Path, source: &Path) -> bool {
    let Ok(stamp) = fs::read_to_string(folder.join("palisade-stamp")) else { return false };
    stamp_of(source).is_ok_and(|wanted| wanted == stamp)
}

fn write_stamp(folder: &Path, source: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("palisade-stamp"), stamp_of(source)?).context("stamp")
}

fn stamp_of(source: &Path) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    fs::read(source).with_context(|| source.display().to_string())?.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_until_its_source_changes() {
        let folder = paths::cache().join(format!("stamp-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let source = folder.join("pins");
        fs::write(&source, "a==1").unwrap();
        assert!(!stamp_matches(&folder, &source));
        write_stamp(&folder, &source).unwrap();
        assert!(stamp_matches(&folder, &source));
        fs::write(&source, "a==2").unwrap();
        assert!(!stamp_matches(&folder, &source));
        fs::remove_dir_all(&folder).unwrap();
    }
}
