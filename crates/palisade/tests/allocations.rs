//! What is switched off costs nothing: neither a stage in the list nor an allocation for a request.

use allocation_counter::measure;
use http::Method;
use palisade::controls::INFOS;
use palisade::testing::Harness;

/// The stages of a policy, and the allocations of a request under it.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    stages: Vec<&'static str>,
    allocations: u64,
}

impl Cost {
    fn of(policy: &str) -> Cost {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let app = Harness::policy(policy);
        let ask = || {
            let headers = [("origin", "https://app.example.com"), ("accept", "application/json")];
            let answer = runtime.block_on(app.send(Method::GET, "/notes?page=2", &headers, ""));
            assert_eq!(answer.status(), 200, "{policy}");
        };
        // What is made once: tables of clients, buffers of the log.
        (0..20).for_each(|_| ask());
        // The least of some: what another thread lets go of is not this request's.
        let allocations = (0..20).map(|_| measure(ask).count_total).min().unwrap_or_default();
        Cost { stages: app.handle().live().controls(), allocations }
    }

    fn has(&self, control: &str) -> bool {
        self.stages.contains(&control)
    }
}

/// For each control that has a mode: lines of its section that a request passes through, when it is on.
fn written(rules: &std::path::Path) -> [(&'static str, String); 5] {
    [
        ("csrf", "exempt = [\"/callback\"]".to_owned()),
        ("headers", "hsts_subdomains = true\ncsp = \"script-src 'nonce-{nonce}'\"\ncsp_reports = true".to_owned()),
        ("limits", "url_bytes = \"4KiB\"".to_owned()),
        ("rate_limit", "default = [\"10000/second\", \"600000/minute\"]".to_owned()),
        ("waf", format!("rules = \"{}\"", rules.display())),
    ]
}

#[test]
fn a_control_that_is_off_costs_as_much_as_one_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.conf");
    std::fs::write(&rules, "SecRuleEngine On\nSecRule ARGS \"@contains attack\" \"id:1,phase:1,deny,status:403\"\n")
        .unwrap();
    let written = written(&rules);
    let plain = Cost::of("");
    assert!(plain.allocations > 0, "nothing was counted");
    let mut judging: Vec<&str> = INFOS.iter().filter(|info| info.judges).map(|info| info.name).collect();
    judging.sort_unstable();
    assert_eq!(written.each_ref().map(|(name, _)| *name).as_slice(), judging, "every control with a mode is looked at");
    for (name, lines) in &written {
        let off = Cost::of(&format!("[{name}]\nmode = \"off\""));
        let both = Cost::of(&format!("[{name}]\nmode = \"off\"\n{lines}"));
        assert_eq!(both, off, "{name}: what is written in a section that is off is paid for");
        let mut rest = plain.stages.clone();
        rest.retain(|stage| stage != name);
        assert_eq!(off.stages, rest, "{name}");
        let on = Cost::of(&format!("[{name}]\nmode = \"block\"\n{lines}"));
        assert!(on.has(name), "{name} is not seen by this test when it is on: {on:?}");
        assert!(off.allocations <= on.allocations, "{name}: off {off:?}, on {on:?}");
        // The test can tell: rules, a nonce and two limits are paid for.
        if matches!(*name, "headers" | "rate_limit" | "waf") {
            assert!(off.allocations < on.allocations, "{name}: off {off:?}, on {on:?}");
        }
        if !plain.has(name) {
            assert_eq!(off, plain, "{name}: a section that is off, and none");
        }
    }
}

/// Those without a mode are off where their section is absent; a section that only repeats a default adds nothing.
#[test]
fn a_section_that_says_nothing_new_costs_as_much_as_none() {
    let plain = Cost::of("");
    for (name, section) in [
        ("static", "[[static]]\npath = \"/static\"\nroot = \"/usr/share\""),
        ("auth", "[auth]\n[[route]]\npath = \"/*\"\npublic = true"),
    ] {
        assert!(!plain.has(name), "{name}: {plain:?}");
        assert!(Cost::of(section).has(name), "{name} is not seen by this test when it is on");
    }
    for section in ["[csrf]\nexempt = []", "[rate_limit]\nexempt = []", "[headers]\nhsts_preload = false", "[limits]"] {
        assert_eq!(Cost::of(section), plain, "{section}");
    }
}
