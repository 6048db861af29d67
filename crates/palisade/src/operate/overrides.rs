//! `palisade set`: a mode for a control, at once, until a time, with a reason. Survives a restart.

use std::fs;
use std::path::Path;
use std::time::Duration;

use palisade_base::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rfc3339;
use crate::control::{ControlId, Mode};
use crate::live::Handle;
use crate::observe::event;
use crate::policy::Override;
use crate::policy::values::PathPattern;

/// The longest that a switch may hold: what is needed for longer belongs into the policy.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
const MAX_REASON: usize = 500;
/// Switches at once.
const MAX_OVERRIDES: usize = 100;
const FILE: &str = "overrides.json";

/// A switch as it is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Switch {
    /// The control.
    pub control: String,
    /// Its mode.
    pub mode: Mode,
    /// For which paths; all where absent.
    #[serde(default)]
    pub route: Option<String>,
    /// For how long, in seconds.
    pub seconds: u64,
    /// Why.
    pub reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    control: String,
    mode: Mode,
    route: Option<String>,
    until_ms: i64,
    reason: String,
}

/// The number of a control that a switch may name.
fn control(name: &str) -> Result<ControlId, String> {
    let place = crate::controls::INFOS.iter().position(|info| info.name == name).ok_or_else(|| {
        let known: Vec<&str> = crate::controls::INFOS.iter().filter(|info| info.judges).map(|info| info.name).collect();
        format!("there is no control `{name}`; those that can be switched are `{}`", known.join("`, `"))
    })?;
    if !crate::controls::INFOS[place].judges {
        return Err(format!(
            "`{name}` always enforces: only controls that judge content or amount, and so can refuse a legitimate \
             request by mistake, can be switched"
        ));
    }
    u8::try_from(place).map(ControlId).map_err(|_| "too many controls".into())
}

/// Puts a switch in force, at once. `by` says who asked, for the log.
///
/// # Errors
/// What is wrong with the switch, for people.
pub fn switch(handle: &Handle, asked: &Switch, by: &str) -> Result<Value, String> {
    let id = control(&asked.control)?;
    let route = asked
        .route
        .as_deref()
        .map(|route| route.parse::<PathPattern>().map_err(|error| format!("`--route {route}`: {error}")))
        .transpose()?;
    let length = Duration::from_secs(asked.seconds);
    if length.is_zero() || length > LONGEST {
        return Err("`--for` is between a second and 30 days; what is needed for longer belongs into the policy".into());
    }
    let reason = asked.reason.trim();
    if reason.is_empty() || reason.len() > MAX_REASON {
        return Err(format!("`--reason` says why, in 1 to {MAX_REASON} bytes"));
    }
    if handle.overrides().len() >= MAX_OVERRIDES {
        return Err(format!("{MAX_OVERRIDES} switches are in force already; write what stays into the policy"));
    }
    let until = handle.clock().now().plus(length);
    let over = Override { control: id, mode: asked.mode, route, until, reason: reason.to_owned() };
    let shown = value(&over);
    handle.switch(over.clone()).map_err(|problems| problems.render(false))?;
    log(handle, &over, by, Some(until));
    save(handle);
    Ok(shown)
}

/// Takes switches of a control back: the one of a route, or all.
///
/// # Errors
/// When there is none.
pub fn clear(handle: &Handle, name: &str, route: Option<&str>, by: &str) -> Result<Value, String> {
    let id = control(name)?;
    let gone = handle
        .unswitch(|over| {
            over.control == id && route.is_none_or(|route| over.route.as_ref().is_some_and(|r| r.as_str() == route))
        })
        .map_err(|problems| problems.render(false))?;
    if gone.is_empty() {
        return Err(format!("no switch of `{name}` is in force"));
    }
    for over in &gone {
        log(handle, over, by, None);
    }
    save(handle);
    Ok(gone.iter().map(value).collect())
}

/// The switches in force.
pub fn list(handle: &Handle) -> Value {
    handle.overrides().iter().map(value).collect()
}

fn value(over: &Override) -> Value {
    json!({
        "control": over.control.info().name, "mode": over.mode.as_str(),
        "route": over.route.as_ref().map(PathPattern::as_str),
        "until": rfc3339(over.until), "reason": over.reason,
    })
}

fn log(handle: &Handle, over: &Override, by: &str, until: Option<Timestamp>) {
    event::SWITCHED
        .line(handle.log())
        .str("control", over.control.info().name)
        .str("mode", if until.is_some() { over.mode.as_str() } else { "as written" })
        .str("route", over.route.as_ref().map_or("all", PathPattern::as_str))
        .str("until", &until.map_or_else(String::new, rfc3339))
        .str("reason", &over.reason)
        .str("by", by);
}

/// Writes the switches in force to the state directory. A failure is logged: the switch itself holds.
fn save(handle: &Handle) {
    let saved: Vec<Saved> = handle
        .overrides()
        .into_iter()
        .map(|over| Saved {
            control: over.control.info().name.to_owned(),
            mode: over.mode,
            route: over.route.as_ref().map(ToString::to_string),
            until_ms: over.until.0,
            reason: over.reason,
        })
        .collect();
    let path = handle.live().policy.state_dir().join(FILE);
    let text = serde_json::to_vec_pretty(&saved).unwrap_or_default();
    if let Err(error) = crate::control_socket::write_private(&path, &text) {
        event::STATE.line(handle.log()).show("path", path.display()).show("reason", error);
    }
}

/// Puts the switches of an earlier run in force again; those that have expired, or name what no longer exists, are
/// dropped. Returns how many hold.
pub fn restore(handle: &Handle) -> usize {
    let path = handle.live().policy.state_dir().join(FILE);
    let now = handle.clock().now();
    let overs: Vec<Override> = read(&path)
        .into_iter()
        .filter(|saved| saved.until_ms > now.0 && saved.until_ms <= now.plus(LONGEST).0)
        .take(MAX_OVERRIDES)
        .filter_map(|saved| {
            let route = saved.route.map(|route| route.parse()).transpose().ok()?;
            let control = control(&saved.control).ok()?;
            Some(Override { control, mode: saved.mode, route, until: Timestamp(saved.until_ms), reason: saved.reason })
        })
        .collect();
    for over in &overs {
        if handle.switch(over.clone()).is_ok() {
            log(handle, over, "restart", Some(over.until));
        }
    }
    overs.len()
}

fn read(path: &Path) -> Vec<Saved> {
    let small = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() < 1 << 20);
    if !small {
        return Vec::new();
    }
    fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}
