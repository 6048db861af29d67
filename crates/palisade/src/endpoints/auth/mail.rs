//! Mails that carry a link: the one seam to whatever sends them.
//!
//! In development each becomes a file under `server.state`. Where nothing sends mails the log says that one was not sent:
//! the link itself is a secret, and stands in no log.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use palisade_identity::service::Account;

use crate::context::Context;
use crate::observe::event;

/// What a mail is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// A new password.
    Reset,
    /// Proving an address.
    Verify,
}

impl Subject {
    const fn line(self) -> &'static str {
        match self {
            Self::Reset => "Set a new password",
            Self::Verify => "Confirm your e-mail address",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Reset => {
                "somebody, probably you, wants to set a new password for this account. This link works once, within an hour:"
            }
            Self::Verify => {
                "somebody, probably you, made an account with this e-mail address. This link confirms it, once, within a day:"
            }
        }
    }
}

/// Sends a mail with a link.
pub(super) fn post(ctx: &Context, to: &str, account: &Account, subject: Subject, link: &str) {
    let policy = &ctx.policy;
    if !policy.env().is_development() {
        not_sent(ctx, subject, &account.id.to_string(), "nothing is configured that sends mails");
        return;
    }
    let text = format!(
        "To: {to}\r\nFrom: palisade@{}\r\nSubject: {}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
         Hello {},\r\n\r\n{}\r\n\r\n{link}\r\n\r\nIf it was not you, do nothing.\r\n",
        ctx.host(),
        subject.line(),
        account.name,
        subject.text()
    );
    let folder = policy.state_dir().join("mail");
    if let Err(error) = write(&folder, &palisade_store::Uuid::now_v7().to_string(), &text) {
        not_sent(ctx, subject, &account.id.to_string(), &error.to_string());
    }
}

/// Says that a mail was not sent: nothing is lost silently.
pub(super) fn not_sent(ctx: &Context, subject: Subject, user: &str, reason: &str) {
    event::MAIL
        .line(&ctx.policy.env().log)
        .str("subject", subject.line())
        .str("user", user)
        .str("reason", reason)
        .str("request_id", ctx.request_id().as_str());
}

fn write(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let file = folder.join(format!("{name}.eml"));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())
}
