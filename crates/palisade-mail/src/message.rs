//! What mail is about.

use std::time::Duration;

use palisade_base::Timestamp;

use crate::{Address, Link};

/// The longest value of one field that is shown, in characters. A device names itself, and may lie at length.
const MAX_SHOWN: usize = 200;

/// The sorts of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Somebody registered with this address, or changed theirs to it: a link that confirms it.
    Verification,
    /// Somebody registered with an address that has an account. The answer to them looks like that to anybody else.
    AlreadyRegistered,
    /// Somebody asked for a new password: a link that sets one.
    Reset,
    /// The address of the account was changed; to the old one.
    EmailChanged,
    /// A login from a device that was not seen before.
    NewDevice,
    /// Too many wrong passwords: the account is locked for a while.
    LockOut,
    /// The password was changed.
    PasswordChanged,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Verification,
        Self::AlreadyRegistered,
        Self::Reset,
        Self::EmailChanged,
        Self::NewDevice,
        Self::LockOut,
        Self::PasswordChanged,
    ];

    /// Its name: that of the template's files, and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verification => "verification",
            Self::AlreadyRegistered => "already-registered",
            Self::Reset => "reset",
            Self::EmailChanged => "email-changed",
            Self::NewDevice => "new-device",
            Self::LockOut => "lock-out",
            Self::PasswordChanged => "password-changed",
        }
    }

    /// What its template may hold besides `service`. Before an address is verified its owner may be a stranger, and a mail
    /// to them holds nothing that whoever registered could choose.
    pub const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Verification => &["link", "valid_for"],
            Self::AlreadyRegistered => &["time"],
            Self::Reset => &["name", "link", "valid_for", "time", "address"],
            Self::EmailChanged | Self::LockOut | Self::PasswordChanged => &["name", "time", "address"],
            Self::NewDevice => &["name", "time", "address", "device"],
        }
    }
}

/// One mail, before it has a text.
#[derive(Debug, Clone)]
pub struct Mail {
    pub(crate) kind: Kind,
    pub(crate) to: Address,
    pub(crate) about: String,
    pub(crate) fields: Vec<(&'static str, Value)>,
}

/// The value of a field.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Plain(String),
    Link(Link),
}

impl Mail {
    /// Mail of a kind for an address. `about` is what logs may call it: the id of the account, never the address.
    pub fn new(kind: Kind, to: Address, about: impl Into<String>) -> Self {
        Self { kind, to, about: about.into(), fields: Vec::new() }
    }

    /// With the name of the account.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.plain("name", name)
    }

    /// With a link, and how long it can be used.
    #[must_use]
    pub fn link(mut self, link: Link, valid_for: Duration) -> Self {
        self.fields.push(("link", Value::Link(link)));
        self.plain("valid_for", &said(valid_for))
    }

    /// With the time at which it happened.
    #[must_use]
    pub fn time(self, time: Timestamp) -> Self {
        let date = time.date();
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        self.plain("time", &format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", date.hour(), date.minute()))
    }

    /// With the network address from which it happened.
    #[must_use]
    pub fn address(self, address: std::net::IpAddr) -> Self {
        self.plain("address", &address.to_string())
    }

    /// With the device, as it names itself.
    #[must_use]
    pub fn device(self, device: &str) -> Self {
        self.plain("device", device)
    }

    /// A value of one line: what a stranger chose adds no lines, and says nothing in invisible or reversed letters.
    fn plain(mut self, name: &'static str, value: &str) -> Self {
        let clean = |c: char| if c.is_control() || is_invisible(c) { ' ' } else { c };
        self.fields.push((name, Value::Plain(value.chars().take(MAX_SHOWN).map(clean).collect())));
        self
    }
}

/// Line and paragraph separators, directions, zero widths, and marks of byte order.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
}

fn said(time: Duration) -> String {
    let (count, unit) = match time.as_secs() {
        seconds if seconds >= 172_800 => (seconds / 86_400, "day"),
        seconds if seconds >= 7200 => (seconds / 3600, "hour"),
        seconds => (seconds.div_ceil(60), "minute"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_say_them() {
        for (seconds, text) in
            [(20, "1 minute"), (900, "15 minutes"), (3600, "60 minutes"), (86_400, "24 hours"), (604_800, "7 days")]
        {
            assert_eq!(said(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn what_a_stranger_chose_stays_on_its_line() {
        let mail = Mail::new(Kind::NewDevice, "a@example.com".parse().unwrap(), "u1");
        let mail = mail.device(&format!("a\r\n\r\nb\u{202e}c{}", "x".repeat(500)));
        let Value::Plain(device) = &mail.fields[0].1 else { panic!("plain") };
        assert!(device.starts_with("a    b c") && device.chars().count() == MAX_SHOWN, "{device}");
    }
}
