//! The command line: definitions only.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

mod identity;

pub(crate) use self::identity::*;

/// Makes an HTTP API safe to put on the internet.
#[derive(Debug, Parser)]
#[command(
    name = "palisade",
    version,
    about = "Makes an HTTP API safe to put on the internet.",
    arg_required_else_help = true,
    after_help = "Start with `palisade demo`, or `palisade serve -- uvicorn main:app --uds {socket}` in front of your own."
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The same error, with what was probably meant where that is not the flag that looks most like it: the command of an
/// application stands behind `--`.
pub(crate) fn explain(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let word = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if !word.starts_with('-') => word.clone(),
        _ => return error,
    };
    let of_serve = matches!(error.get(ContextKind::Usage), Some(ContextValue::StyledStr(usage))
        if usage.to_string().contains("palisade serve"));
    if error.kind() == ErrorKind::UnknownArgument && of_serve {
        let tip = format!("the command that starts the application stands behind `--`: `palisade serve -- {word} …`");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// What every command takes.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Global {
    /// The policy; several lie over each other, later wins. Default: `palisade.toml`, then
    /// `/etc/palisade/palisade.toml`.
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        env = "PALISADE_POLICY",
        hide_env_values = true,
        help_heading = "For every command"
    )]
    pub(crate) policy: Vec<PathBuf>,
    /// Print data as JSON.
    #[arg(long, global = true, help_heading = "For every command")]
    pub(crate) json: bool,
    /// When to use colours: `auto` (on a terminal, unless `NO_COLOR` is set), `always` or `never`.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        hide_possible_values = true,
        help_heading = "For every command"
    )]
    pub(crate) color: Color,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Global {
    /// Whether messages on standard error are coloured.
    pub(crate) fn color(&self) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Try it: a built-in sample API behind the whole gateway, on loopback, with nothing to install or configure.
    Demo(Demo),
    /// Protect an API: the one behind `--upstream`, or one that is started and supervised.
    Serve(Serve),
    /// Write a policy for the application in this directory, from what was found and seen.
    Init(Init),
    /// Read the policy and say what is wrong with it.
    Check(Check),
    /// Show how the running gateway is doing.
    Status,
    /// Show what was refused, or would have been, and the lines of policy that would allow it.
    Report(Report),
    /// Say what was decided about one request, by which rule, and what would allow it.
    Explain(Explain),
    /// Put a control of the running gateway into another mode, for a while.
    Set(Set),
    /// Store secrets, read them, list them, and replace the keys that Palisade makes for itself.
    #[command(subcommand)]
    Secret(Secret),
    /// Try the rules of the WAF: on one request, or with the regression tests of a rule set.
    #[command(subcommand)]
    Waf(Waf),
    /// What the application's OpenAPI document says of who may do what.
    #[command(subcommand)]
    Openapi(Openapi),
    /// Manage accounts.
    #[command(subcommand)]
    User(User),
    /// Manage roles and what they permit.
    #[command(subcommand)]
    Role(Role),
    /// Manage API keys.
    #[command(subcommand)]
    Key(Key),
    /// Manage clients of OAuth.
    #[command(subcommand)]
    Client(Client),
    /// List and end sessions.
    #[command(subcommand)]
    Session(Session),
    /// Manage the database.
    #[command(subcommand)]
    Db(Db),
    /// Print the JSON Schema of the policy file.
    Schema,
    /// Make this machine trust the local authority, whose certificates development uses.
    Trust(Trust),
    /// Print the completions of a shell.
    Completions(Completions),
    /// Print the version.
    Version,
}

/// Ports and modes that `serve` and `demo` share. Flags beat the environment, which beats the file.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct Listening {
    /// The port for HTTPS; 0 lets the system choose.
    #[arg(long, value_name = "PORT", overrides_with = "https_port")]
    pub(crate) https_port: Option<u16>,
    /// The port for plain HTTP; 0 lets the system choose.
    #[arg(long, value_name = "PORT", overrides_with = "http_port")]
    pub(crate) http_port: Option<u16>,
    /// The port of the admin listener; 0 lets the system choose.
    #[arg(long, value_name = "PORT", overrides_with = "admin_port")]
    pub(crate) admin_port: Option<u16>,
    /// Start the controls that judge content or amount in `detect`: they log and change nothing.
    #[arg(long)]
    pub(crate) detect: bool,
    /// Write this file once requests are served: JSON with the URL of every listener. For scripts that let the system choose
    /// the ports; it is removed at the end.
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

/// `palisade demo`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Demo {
    #[command(flatten)]
    pub(crate) listening: Listening,
}

/// `palisade openapi`.
#[derive(Debug, Subcommand)]
pub(crate) enum Openapi {
    /// Print whom each operation is for, and what waits to be accepted. Exit code 1 when something does.
    Access,
    /// Accept what a changed document opens.
    Accept(OpenapiAccept),
}

/// `palisade openapi accept`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct OpenapiAccept {
    /// Of which application: a name of `[upstreams.NAME]`. Default: `[upstream]`.
    #[arg(long, value_name = "NAME")]
    pub(crate) upstream: Option<String>,
    /// The operations, as `palisade openapi access` prints them: `"GET /items/{id}"`. Default: all that wait.
    #[arg(value_name = "OPERATION")]
    pub(crate) operations: Vec<String>,
}

/// `palisade serve`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Serve {
    /// The application: `http://127.0.0.1:8000` or `unix:/run/app.sock`. Overrides `upstream.url`.
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    pub(crate) upstream: Option<String>,
    #[command(flatten)]
    pub(crate) listening: Listening,
    /// Share the ports that an older Palisade of this user still serves, so that it can leave without a refused
    /// connection: start the new one, wait until it is ready, end the old one.
    #[arg(long)]
    pub(crate) takeover: bool,
    /// The command that starts the application, behind `--`: `uvicorn main:app --uds {socket}`, or with `{port}`.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `palisade check`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Check {
    /// Print what is in force, line by line, with where it comes from.
    #[arg(long)]
    pub(crate) effective: bool,
}

/// `palisade init`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Init {
    /// Print the starter policy, which `palisade serve` runs without a file.
    #[arg(long, conflicts_with_all = ["yes", "force", "production", "host", "upstream"])]
    pub(crate) starter: bool,
    /// Ask nothing: take what was found, and the defaults.
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Overwrite a file that is there.
    #[arg(long)]
    pub(crate) force: bool,
    /// Write a policy for production. Needs `--host`.
    #[arg(long, requires = "host")]
    pub(crate) production: bool,
    /// A host that the gateway serves, such as `api.example.com`; may be given more than once.
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Vec<String>,
    /// The application: `http://127.0.0.1:8000` or `unix:/run/app.sock`.
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<String>,
    /// Where to write it.
    #[arg(long, short, value_name = "FILE", default_value = "palisade.toml")]
    pub(crate) output: PathBuf,
}

/// `palisade report`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Report {
    /// Of this control only.
    #[arg(long, value_name = "NAME")]
    pub(crate) control: Option<String>,
}

/// `palisade explain`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Explain {
    /// The request's id: `X-Request-Id` of the answer, `request_id` of the problem document and of the logs.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `palisade set`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Set {
    /// The control and its mode, such as `limits=detect`; with `--clear` the control alone.
    #[arg(value_name = "CONTROL=MODE", required_unless_present = "list")]
    pub(crate) what: Option<String>,
    /// For these paths only, such as `/articles/*`.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) route: Option<String>,
    /// For how long: `15m`, `1h`, at most `30d`.
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) time: Option<palisade_base::Interval>,
    /// Why; it stands in status and logs.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Show the switches in force.
    #[arg(long, conflicts_with_all = ["what", "route", "time", "reason", "clear"])]
    pub(crate) list: bool,
    /// Take the control's switches back.
    #[arg(long, conflicts_with_all = ["time", "reason"])]
    pub(crate) clear: bool,
}

/// `palisade secret`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Secret {
    /// Store a secret, over an older one of that name. The value is typed at a prompt, or read from standard input.
    Set(SecretName),
    /// Print a secret.
    Get(SecretName),
    /// List the names of all secrets and when they were set.
    List,
    /// Remove a secret.
    Remove(SecretName),
    /// Replace a key that Palisade makes for itself: `signing-key`, `assertion-key`, `mac-key`, `pepper`. Running servers
    /// take the new one without a refused request.
    Rotate(SecretRotate),
    /// Make the key that the file of secrets is encrypted with, where `PALISADE_SECRETS_KEY_FILE` names it.
    Init,
}

/// A secret by its name.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct SecretName {
    /// Its name, as `{ secret = "NAME" }` in the policy.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// `palisade secret rotate`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct SecretRotate {
    /// `signing-key`, `assertion-key`, `mac-key` or `pepper`.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// How long the new key is published before it is used. Default: `secrets.lead`.
    #[arg(long, value_name = "TIME", conflicts_with = "revoke")]
    pub(crate) lead: Option<palisade_base::Interval>,
    /// The old key was stolen: it goes at once, with everything that it made, and the new one is used at once.
    #[arg(long)]
    pub(crate) revoke: bool,
}

/// `palisade waf`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Waf {
    /// Show which rules one request matches, and whether it would be refused.
    Test(WafTest),
    /// Run the regression tests of the OWASP Core Rule Set (YAML) through a gateway with these rules.
    CrsTest(CrsTest),
}

/// `palisade waf test`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct WafTest {
    /// Path and query, such as `/search?q=1`.
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// The method; `POST` with `--data`, else `GET`.
    #[arg(long, short = 'X', value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// A header, such as `Content-Type: application/json`; may be given more than once.
    #[arg(long, short = 'H', value_name = "HEADER")]
    pub(crate) header: Vec<String>,
    /// The body, or `@FILE`.
    #[arg(long, short, value_name = "BODY")]
    pub(crate) data: Option<String>,
}

/// `palisade waf crs-test`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct CrsTest {
    /// The folder of the tests.
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// The rules, as in `waf.rules`; may be given more than once. Default: those of the policy.
    #[arg(long, value_name = "PATH")]
    pub(crate) rules: Vec<PathBuf>,
}

/// `palisade trust`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Trust {
    /// Print the authority's certificate (PEM) and change nothing.
    #[arg(long)]
    pub(crate) print: bool,
    /// The system below this directory instead of this machine's, such as an image that is being built.
    #[arg(long, value_name = "DIR", conflicts_with = "print")]
    pub(crate) root: Option<PathBuf>,
}

/// `palisade completions`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_probably_meant() {
        let said = |line: &str| explain(Args::try_parse_from(line.split(' ')).unwrap_err()).to_string();
        let command = said("palisade serve uvicorn main:app");
        assert!(command.contains("stands behind `--`: `palisade serve -- uvicorn …`"), "{command}");
        for line in ["palisade serve --upstraem x", "palisade check uvicorn", "palisade srve"] {
            assert!(!said(line).contains("stands behind"), "{line}");
        }
        assert!(said("palisade serve --upstraem x").contains("--upstream"));
    }
}
