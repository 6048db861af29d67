//! The commands, one file each.

mod check;
mod completions;
mod db;
mod demo;
mod explain;
mod identity;
mod init;
mod openapi;
pub(crate) mod output;
mod policy;
mod prompt;
mod ready_file;
mod report;
mod running;
mod schema;
mod secret;
mod serve;
mod set;
mod status;
mod trust;
mod version;
mod waf;

use crate::args::{Args, Command};
use crate::exit::Done;

/// Runs what was asked for.
pub(crate) fn run(args: Args) -> anyhow::Result<Done> {
    match args.command {
        Command::Demo(demo) => demo::run(&args.global, &demo),
        Command::Serve(serve) => serve::run(&args.global, &serve),
        Command::Init(init) => init::run(&args.global, &init),
        Command::Check(check) => check::run(&args.global, &check),
        Command::Status => status::run(&args.global),
        Command::Report(report) => report::run(&args.global, &report),
        Command::Explain(explain) => explain::run(&args.global, &explain),
        Command::Set(set) => set::run(&args.global, &set),
        Command::Secret(secret) => secret::run(&args.global, &secret),
        Command::Waf(waf) => waf::run(&args.global, &waf),
        Command::Openapi(openapi) => openapi::run(&args.global, &openapi),
        Command::User(user) => identity::user::run(&args.global, &user),
        Command::Role(role) => identity::role::run(&args.global, &role),
        Command::Key(key) => identity::key::run(&args.global, &key),
        Command::Client(client) => identity::client::run(&args.global, &client),
        Command::Session(session) => identity::session::run(&args.global, &session),
        Command::Db(db) => db::run(&args.global, &db),
        Command::Schema => schema::run(),
        Command::Trust(trust) => trust::run(&args.global, &trust),
        Command::Completions(completions) => completions::run(&completions),
        Command::Version => version::run(&args.global),
    }
}
