//! What is switched off costs nothing: neither a stage in the list nor an allocation for a request.

use allocation_counter::measure;
use http::{HeaderMap, Method};
use palisade::testing::Harness;

/// The stages of a policy, and the allocations of a request under it.
fn cost(policy: &str) -> (Vec<&'static str>, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let app = Harness::policy(policy);
    let ask = || {
        let headers = [("origin", "https://app.example.com"), ("accept", "application/json")];
        let answer = runtime.block_on(app.send(Method::GET, "/notes?page=2", &headers, ""));
        assert_eq!(answer.status(), 200, "{policy}");
        let _: &HeaderMap = answer.headers();
    };
    // What is made once: tables of clients, buffers of the log.
    (0..20).for_each(|_| ask());
    // The least of some: what another thread lets go of is not this request's.
    let least = (0..20).map(|_| measure(ask).count_total).min().unwrap();
    (app.handle().live().controls(), least)
}

#[test]
fn a_control_that_is_off_costs_as_much_as_one_that_is_not_written() {
    let plain = cost("");
    assert!(plain.1 > 0, "nothing was counted");
    for (name, off, on) in [
        ("cors", "mode = \"off\"\norigins = [\"https://app.example.com\"]", "origins = [\"https://app.example.com\"]"),
        ("rate_limit", "mode = \"off\"\ndefault = \"600/minute\"", "default = \"600/minute\""),
    ] {
        let off = cost(&format!("[{name}]\n{off}"));
        assert_eq!(off, plain, "{name}");
        let on = cost(&format!("[{name}]\n{on}"));
        assert!(on.0.len() > plain.0.len() && on.1 > plain.1, "{name} is seen by this test when it is on: {on:?}");
    }
    // Those that are on without a section: what else is written in one costs nothing either.
    for (name, more) in [("headers", "hsts_subdomains = true"), ("limits", "url_bytes = \"4KiB\"")] {
        let off = cost(&format!("[{name}]\nmode = \"off\""));
        assert_eq!(cost(&format!("[{name}]\nmode = \"off\"\n{more}")), off, "{name}");
        assert!(off.0.len() < plain.0.len() && off.1 <= plain.1, "{name}: {off:?}");
    }
}
