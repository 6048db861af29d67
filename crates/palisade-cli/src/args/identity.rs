//! The commands that manage users, roles, keys, clients and sessions: definitions only.
//!
//! No secret is ever an argument (threats, 42): a password comes from a prompt or from standard input.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use palisade_base::{Interval, Rate};

/// `palisade user`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum User {
    /// Make an account. Its password is asked for, or read from standard input.
    Add(UserAdd),
    /// List accounts.
    List(UserList),
    /// Show an account.
    Show(UserName),
    /// Change an account: name, address, roles. In force at once, also in open sessions.
    Set(UserSet),
    /// Keep an account from everything, and end all that it is logged in by.
    Disable(UserName),
    /// Let a disabled account in again. What was ended stays so.
    Enable(UserName),
    /// Delete an account with all that belongs to it. Its id is never given again.
    Delete(UserDelete),
    /// Import accounts of another application with the hashes of their passwords: CSV with a header, or JSON lines.
    Import(UserImport),
    /// Print all that is stored about an account, as JSON.
    Export(UserName),
    /// Print a link by which the first administrator is made in a browser, at the admin listener: it works once, for 15
    /// minutes, and as long as there is no administrator.
    SetupLink,
}

/// An account by its name, e-mail address, id, or the application's id.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct UserName {
    /// Its name, e-mail address, id, or the id that the application gave it.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// `palisade user add`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct UserAdd {
    /// Its name.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Its e-mail address.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) email: Option<String>,
    /// You know that the address is theirs.
    #[arg(long, requires = "email")]
    pub(crate) email_verified: bool,
    /// A role; may be given more than once.
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<String>,
    /// Read the password from standard input: one line.
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

/// `palisade user list`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct UserList {
    /// Only those with this role.
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<String>,
}

/// `palisade user set`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct UserSet {
    #[command(flatten)]
    pub(crate) user: UserName,
    /// Another name.
    #[arg(long = "rename", value_name = "NAME")]
    pub(crate) rename: Option<String>,
    /// Another e-mail address.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "no_email")]
    pub(crate) email: Option<String>,
    /// No e-mail address.
    #[arg(long)]
    pub(crate) no_email: bool,
    /// Whether you know that the address is theirs.
    #[arg(long, value_name = "YES", value_parser = clap::value_parser!(bool))]
    pub(crate) email_verified: Option<bool>,
    /// All its roles; may be given more than once.
    #[arg(long = "role", value_name = "ROLE", conflicts_with = "no_roles")]
    pub(crate) roles: Vec<String>,
    /// No role.
    #[arg(long)]
    pub(crate) no_roles: bool,
}

/// `palisade user delete`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct UserDelete {
    #[command(flatten)]
    pub(crate) user: UserName,
    /// Do not ask.
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// How a file of accounts is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// `palisade user import`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct UserImport {
    /// The file; `-` for standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// How it is written. Default: by the end of its name, `.csv`, `.jsonl` or `.ndjson`.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// A column whose name does not tell: `login_mail=email`. Fields are `id`, `username`, `email`, `password`, `roles`,
    /// `is_superuser`, `is_active`, `disabled`, `is_verified`.
    #[arg(long = "column", value_name = "NAME=FIELD")]
    pub(crate) columns: Vec<String>,
    /// A role that every account gets; may be given more than once.
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<String>,
    /// The role of accounts that the file calls superusers. Default: none.
    #[arg(long, value_name = "ROLE")]
    pub(crate) superuser_role: Option<String>,
    /// Where to write what failed and why, as JSON lines. Default: standard error.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Look at everything and store nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `palisade role`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Role {
    /// Make a role.
    Add(RolePermissions),
    /// List roles and what they permit.
    List,
    /// Set all that a role permits. In force at once, for everybody who has it.
    Set(RolePermissions),
    /// Delete a role; nobody has it any more.
    Delete(RoleName),
}

/// A role.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct RoleName {
    /// Its name, as the policy writes it.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// A role and what it permits.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct RolePermissions {
    /// Its name, as the policy writes it.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// A permission, such as `notes:write`; may be given more than once.
    #[arg(long = "permission", value_name = "PERMISSION")]
    pub(crate) permissions: Vec<String>,
}

/// `palisade key`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Key {
    /// Make an API key. It is printed once and cannot be had again.
    Create(KeyCreate),
    /// List API keys.
    List(KeyList),
    /// Revoke an API key: refused from now on.
    Revoke(KeyId),
    /// Make a key that takes the place of another, which goes on for a day.
    Rotate(KeyId),
}

/// `palisade key create`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct KeyCreate {
    /// Whose.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: String,
    /// What to call it.
    #[arg(long, value_name = "TEXT", default_value = "command line")]
    pub(crate) name: String,
    /// What it may be used for; may be given more than once.
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    pub(crate) scopes: Vec<String>,
    /// How long it lives, such as `90d`. Default: until it is revoked.
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<Interval>,
    /// Its own rate limit, such as `60/minute`.
    #[arg(long, value_name = "RATE")]
    pub(crate) rate: Option<Rate>,
}

/// `palisade key list`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct KeyList {
    /// Of this account only.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}

/// A key.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct KeyId {
    /// Its id: the third part of its text, which `palisade key list` shows.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `palisade client`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Client {
    /// Register a client of OAuth. Its secret, where it has one, is printed once.
    Add(ClientAdd),
    /// List clients.
    List,
    /// Revoke a client: its tokens are refused, its refresh tokens end.
    Revoke(ClientId),
}

/// `palisade client add`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ClientAdd {
    /// What people call it, as the consent page shows it.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// How it proves who it is: `none`, `client_secret_basic`, `client_secret_post` or `private_key_jwt`.
    #[arg(long, value_name = "METHOD", default_value = "none")]
    pub(crate) method: String,
    /// Its public keys (a JWK set), for `private_key_jwt`.
    #[arg(long, value_name = "FILE")]
    pub(crate) jwks: Option<PathBuf>,
    /// Where it may be sent back to, exactly; may be given more than once.
    #[arg(long = "redirect", value_name = "URI")]
    pub(crate) redirects: Vec<String>,
    /// A grant: `authorization_code`, `refresh_token`, `client_credentials` or `password`; may be given more than once.
    /// Default: `authorization_code` and `refresh_token`.
    #[arg(long = "grant", value_name = "GRANT")]
    pub(crate) grants: Vec<String>,
    /// What it may ask for; may be given more than once.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// A resource that its tokens may be for; may be given more than once. Default: the API.
    #[arg(long = "audience", value_name = "URI")]
    pub(crate) audience: Vec<String>,
    /// It is your own: its users are not asked for consent.
    #[arg(long)]
    pub(crate) trusted: bool,
}

/// A client.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ClientId {
    /// Its id, which `palisade client list` shows.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `palisade session`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Session {
    /// List sessions, and logins that go on by refresh tokens.
    List(SessionList),
    /// End a session, or all of an account: refused from now on, everywhere.
    End(SessionEnd),
}

/// `palisade session list`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct SessionList {
    /// Of this account only.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}

/// `palisade session end`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct SessionEnd {
    /// Its id, which `palisade session list` shows.
    #[arg(value_name = "ID", required_unless_present = "user", conflicts_with = "user")]
    pub(crate) id: Option<String>,
    /// All of this account.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}

/// `palisade db`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Db {
    /// Bring the tables to this version. SQLite does this by itself; on PostgreSQL run it with the owner's URL.
    Migrate,
}
