//! Rules of the WAF that change a thousand times leave memory where it was. In a process of its own, which it measures.

use http::Method;
use palisade::testing::Harness;

const RELOADS: usize = 1000;
/// Until caches, pools and the allocator have what they keep.
const WARM: usize = 200;
/// What the rest may add, in KiB: less than 16 for each reload.
const GROWTH: usize = 12 << 10;

/// Rules that are others each time, with patterns and a list of words.
fn rules(edition: usize) -> String {
    let mut text =
        format!("SecRequestBodyAccess On\nSecRule ARGS \"@streq edition-{edition}\" \"id:1,phase:2,deny\"\n");
    for id in 2..8 {
        let rule = format!("@rx (?i)attack{id}\\s+(?:union|select|insert)\\W{{1,8}}{edition}");
        text.push_str(&format!(
            "SecRule ARGS|REQUEST_HEADERS \"{rule}\" \"id:{id},phase:2,deny,t:none,t:urlDecodeUni\"\n"
        ));
    }
    let words: Vec<String> = (0..200).map(|word| format!("word{edition}x{word}")).collect();
    text.push_str(&format!("SecRule ARGS \"@pm {}\" \"id:60,phase:2,deny\"\n", words.join(" ")));
    text
}

/// Resident memory of this process, in KiB.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn a_thousand_reloads_leave_memory_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.conf");
    std::fs::write(&file, rules(0)).unwrap();
    let app = Harness::policy(&format!("[rate_limit]\ndefault = \"off\"\n[waf]\nrules = \"{}\"\n", file.display()));
    let mut before = 0;
    for edition in 1..=RELOADS {
        std::fs::write(&file, rules(edition)).unwrap();
        app.handle().reload().unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let json = format!("{{\"a\":\"edition-{edition}\"}}");
        let refused = app.send(Method::POST, "/", &[("content-type", "application/json")], json).await;
        assert_eq!(refused.status(), 403, "the rules of edition {edition} are in force");
        assert_eq!(app.get(&format!("/?a=edition-{}", edition - 1)).await.status(), 200);
        if edition == WARM {
            before = memory();
        }
    }
    let after = memory();
    assert!(after < before + GROWTH, "{before} KiB after {WARM} reloads, {after} KiB after {RELOADS}");
}
