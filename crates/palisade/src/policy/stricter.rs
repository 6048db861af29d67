//! Routes that ask for less than one around or beside them: found when the policy is read.
//!
//! Threat 1: `/admin/+` with a role and `/admin` without, since it falls to `/*`; `/admin/export` above `/admin/*`. Some of
//! it is meant, so it is a warning, with both lines.

use palisade_base::Cidr;
use palisade_policy::Problems;

use super::rules::{Rule, Rules};

/// Warns of them. `logins`: what a route asks of its callers counts too.
pub(super) fn check(rules: &Rules, logins: bool, problems: &mut Problems) {
    let less = |rule: &Rule, stricter: &Rule| less(rule, stricter, logins);
    let written: Vec<&Rule> = rules.iter().skip(1).filter(|rule| !rule.implied).collect();
    for (place, rule) in written.iter().enumerate() {
        let (before, after) = (written.get(..place).unwrap_or_default(), written.get(place + 1..).unwrap_or_default());
        let around = after.iter().find(|wider| {
            wider.path().covers(rule.path())
                && hosts_meet(rule, wider)
                && methods_meet(rule, wider)
                && less(rule, wider)
        });
        let beside = || {
            before
                .iter()
                .chain(after)
                .find(|other| rule.path().begins_where(other.path()) && hosts_meet(rule, other) && less(rule, other))
        };
        if let Some(stricter) = around.copied().or_else(|| beside().copied()) {
            warn(rule, stricter, problems);
        }
        root(rules, rule, less, problems);
    }
}

/// What `/admin/+` leaves out.
fn root(rules: &Rules, rule: &Rule, less: impl Fn(&Rule, &Rule) -> bool, problems: &mut Problems) {
    let Some(root) = rule.path().root_of_below() else { return };
    let claims = |other: &&Rule| other.path().covers(&root) && hosts_meet(other, rule);
    let by = rules.iter().skip(1).find(claims).or_else(|| rules.iter().next());
    // A route that begins there itself was warned of where it stands.
    let Some(by) = by.filter(|by| less(by, rule) && !(by.id > 0 && by.path().begins_where(rule.path()))) else {
        return;
    };
    let mut whole = rule.path().as_str().to_owned();
    whole.pop();
    problems.warn(
        &format!("route[{}].path", rule.id.saturating_sub(1)),
        format!("`{}` itself is not in this route, and `{}` ({}) asks for less", root.as_str(), by.label, by.line),
        format!("write `{whole}*`, which covers it too"),
    );
}

fn warn(rule: &Rule, stricter: &Rule, problems: &mut Problems) {
    problems.warn(
        &format!("route[{}].path", rule.id.saturating_sub(1)),
        format!("this asks for less than `{}` ({})", stricter.label, stricter.line),
        "give it what the other one asks for, if that was not meant",
    );
}

/// Whether there is a host that both are for.
fn hosts_meet(rule: &Rule, other: &Rule) -> bool {
    match (rule.host(), other.host()) {
        (Some(one), Some(other)) => one.covers(other) || other.covers(one),
        _ => true,
    }
}

fn methods_meet(rule: &Rule, other: &Rule) -> bool {
    rule.methods().is_empty()
        || other.methods().is_empty()
        || rule.methods().iter().any(|method| other.methods().contains(method))
}

/// Whether somebody whom `stricter` refuses may pass `rule`.
fn less(rule: &Rule, stricter: &Rule, logins: bool) -> bool {
    let no_condition = stricter.when.is_some() && rule.when.is_none() && !stricter.needs.public;
    less_address(&rule.address, &stricter.address)
        || (logins && (rule.needs.is_laxer_than(&stricter.needs) || no_condition))
}

fn less_address(mine: &[Cidr], strict: &[Cidr]) -> bool {
    let inside = |network: &Cidr| {
        strict.iter().any(|wider| wider.contains(network.network()) && wider.prefix_len() <= network.prefix_len())
    };
    !strict.is_empty() && (mine.is_empty() || !mine.iter().all(inside))
}

#[cfg(test)]
mod tests {
    use crate::testing_local::App;

    #[test]
    fn routes_that_ask_for_less_are_reported_with_both_lines() {
        const INNER: &str = "address = [\"10.0.0.0/8\"]\n";
        let route = |path: &str, more: &str| format!("[[route]]\npath = \"{path}\"\n{more}");
        let on = |path: &str, host: &str, more: &str| route(path, &format!("host = \"{host}\"\n{more}"));
        let warned = |routes: &[String]| {
            let text = App::problems(&routes.concat());
            let about: Vec<&str> = text.lines().filter(|line| line.contains("asks for less")).collect();
            about.join("\n")
        };
        // Around it.
        let text = warned(&[route("/admin/export", ""), route("/admin/*", INNER)]);
        assert!(text.contains("than `/admin/*`") && text.contains("palisade.toml:"), "{text}");
        // Beside it.
        let text = warned(&[route("/admin/+", INNER), route("/admin", "")]);
        assert!(text.contains("than `/admin/+`"), "{text}");
        let text = warned(&[route("/users/{id}", INNER), route("/users/{user}/*", "")]);
        assert!(text.contains("than `/users/{id}`"), "{text}");
        // What it leaves out, to a wider route and to none.
        let text = warned(&[route("/admin/+", INNER), route("/*", "")]);
        assert!(text.contains("`/admin` itself") && text.contains("`/*`"), "{text}");
        let text = warned(&[route("/admin/+", INNER)]);
        assert!(text.contains("`/admin` itself") && text.contains("`default`"), "{text}");
        let text = warned(&[route("/admin/*", INNER), route("/admin2/+", INNER), route("/admin2", INNER)]);
        assert_eq!(text, "");
        for fine in [
            &[route("/admin/*", INNER), route("/*", "")][..],
            &[route("/health", ""), route("/admin/*", INNER)],
            &[route("/admin/x", "address = [\"10.1.0.0/16\"]\n"), route("/admin/*", INNER)],
            &[
                route("/admin/x", "methods = [\"GET\"]\n"),
                route("/admin/*", "methods = [\"POST\"]\naddress = [\"10.0.0.0/8\"]\n"),
            ],
            &[on("/admin/x", "b.example.com", ""), on("/admin/*", "a.example.com", INNER)],
            &[on("/admin/x", "example.com", ""), on("/admin/*", "*.example.com", INNER)],
            &[on("/admin/x", "*.example.com", ""), on("/admin/*", "*.example.org", INNER)],
            &[
                on("/admin/+", "a.example.com", INNER),
                on("/admin", "b.example.com", ""),
                on("/admin", "a.example.com", INNER),
            ],
        ] {
            assert_eq!(warned(fine), "", "{fine:?}");
        }
        // Around it and beside it, wherever there is a host that both are for.
        for met in [
            [route("/admin/x", ""), on("/admin/*", "localhost", INNER)],
            [on("/admin/x", "localhost", ""), route("/admin/*", INNER)],
            [on("/admin/x", "a.example.com", ""), on("/admin/*", "a.example.com", INNER)],
            [on("/admin/x", "a.example.com", ""), on("/admin/*", "*.example.com", INNER)],
            [on("/admin/x", "*.example.com", ""), on("/admin/*", "a.example.com", INNER)],
            [on("/admin/x", "*.a.example.com", ""), on("/admin/*", "*.example.com", INNER)],
        ] {
            let text = warned(&met);
            assert!(text.contains("than `/admin/*`"), "{met:?}: {text}");
        }
        let text = warned(&[on("/admin/+", "a.example.com", INNER), route("/admin", "")]);
        assert!(text.contains("than `/admin/+`"), "{text}");
        let wider =
            warned(&[route("/admin/x", "address = [\"10.1.0.0/16\", \"192.0.2.0/24\"]\n"), route("/admin/*", INNER)]);
        assert!(wider.contains("than `/admin/*`"), "{wider}");
    }
}
