//! `palisade set`: the switch for three in the morning.

use palisade::control::Mode;
use palisade::control_socket::Request;
use palisade::operate::Switch;
use serde_json::Value;

use super::output::{items, json, print, table};
use super::running;
use super::status::switch as columns;
use crate::args::{Global, Set};
use crate::exit::{Done, Usage};

/// Puts a control into another mode, takes that back, or shows what is in force.
pub(crate) fn run(global: &Global, set: &Set) -> anyhow::Result<Done> {
    let request = request(set)?;
    let answer = running::ask(global, &request)?;
    if global.json {
        json(&answer)?;
        return Ok(Done::Ok);
    }
    let said = match request {
        Request::Clear { .. } => format!("taken back:\n{}", shown(items(&answer))),
        Request::Overrides if items(&answer).is_empty() => "no switch is in force\n".to_owned(),
        Request::Overrides => shown(items(&answer)),
        _ => format!("in force:\n{}", shown(std::slice::from_ref(&answer))),
    };
    print(&said);
    Ok(Done::Ok)
}

fn shown(switches: &[Value]) -> String {
    table(&switches.iter().map(columns).collect::<Vec<_>>(), 2)
}

fn request(set: &Set) -> Result<Request, Usage> {
    let Some(what) = &set.what else { return Ok(Request::Overrides) };
    if set.clear {
        if what.contains('=') {
            return Err(Usage("`--clear` takes the control alone, such as `palisade set limits --clear`".into()));
        }
        return Ok(Request::Clear { control: what.clone(), route: set.route.clone() });
    }
    let example = "such as `palisade set limits=detect --for 1h --reason \"…\"`";
    let (control, mode) =
        what.split_once('=').ok_or_else(|| Usage(format!("`{what}` names no mode: write CONTROL=MODE, {example}")))?;
    let mode = match mode {
        "block" => Mode::Block,
        "detect" => Mode::Detect,
        "off" => Mode::Off,
        _ => return Err(Usage(format!("`{mode}` is no mode: `block`, `detect` or `off`"))),
    };
    // Before the rest: whoever mistypes it at night learns it first.
    let known = || palisade::controls::INFOS.iter().filter(|info| info.judges).map(|info| info.name);
    if !palisade::controls::INFOS.iter().any(|info| info.name == control) {
        let names: Vec<String> = known().map(|name| format!("`{name}`")).collect();
        return Err(Usage(format!("there is no control `{control}`: {} can be switched", names.join(", "))));
    }
    let time = set.time.ok_or_else(|| Usage(format!("`--for` says for how long, {example}")))?;
    let reason = set.reason.clone().ok_or_else(|| Usage(format!("`--reason` says why, {example}")))?;
    Ok(Request::Set(Switch {
        control: control.to_owned(),
        mode,
        route: set.route.clone(),
        seconds: time.duration().as_secs(),
        reason,
    }))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};

    fn asked(line: &str) -> Result<Request, String> {
        let args = Args::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        let Command::Set(set) = args.command else { panic!("not `set`") };
        request(&set).map_err(|usage| usage.0)
    }

    #[test]
    fn a_switch_needs_mode_time_and_reason() {
        assert!(matches!(
            asked("palisade set limits=detect --for 1h --reason why --route /a/*"),
            Ok(Request::Set(Switch { seconds: 3600, mode: Mode::Detect, .. }))
        ));
        assert!(matches!(asked("palisade set --list"), Ok(Request::Overrides)));
        assert!(matches!(asked("palisade set limits --clear"), Ok(Request::Clear { .. })));
        for (line, said) in [
            ("palisade set limits --for 1h --reason why", "names no mode"),
            ("palisade set limits=on --for 1h --reason why", "is no mode"),
            ("palisade set limts=off", "there is no control `limts`: `rate_limit`"),
            ("palisade set limits=off --reason why", "--for"),
            ("palisade set limits=off --for 1h", "--reason"),
            ("palisade set limits=off --clear", "the control alone"),
            ("palisade set limits=off --for 1 --reason why", "the unit is one of"),
            ("palisade set", "CONTROL=MODE"),
        ] {
            let error = asked(line).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
