//! The host: one, valid, and ours, wherever it is said. Threats 8, 20 and 24; RFC 9110 §7.2, RFC 9112 §3.2.

use anyhow::{Result, ensure};

use palisade_test::{Palisade, Upstream};

use super::{Case, Field, ROUTES, echo_target, framing, passed, refused, run};
use crate::support::written_policy;

fn asked(target: &str, hosts: &[&str]) -> String {
    let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
    format!("GET {target} HTTP/1.1\r\n{hosts}\r\n")
}

#[tokio::test]
async fn one_host_that_is_ours() -> Result<()> {
    let wrong = |target: &str, hosts: &[&str]| refused(asked(target, hosts), 400, "integrity.host");
    let foreign = |target: &str, hosts: &[&str]| refused(asked(target, hosts), 421, "hosts.unknown");
    let mut cases: Vec<Case> = vec![
        wrong("/x", &[]),
        wrong("/x", &["localhost", "localhost"]),
        wrong("/x", &["localhost", "evil.example"]),
        wrong("/x", &["evil.example", "localhost"]),
        refused("GET /x HTTP/1.0\r\n\r\n", 400, "integrity.host"),
        framing("GET /x HTTP/1.1\r\nHost : localhost\r\n\r\n"),
        framing("GET /x HTTP/1.1\r\n Host: localhost\r\n\r\n"),
        framing("GET /x HTTP/1.1\r\nHost: localhost\r\n evil.example\r\n\r\n"),
        framing("GET /x HTTP/1.1\r\nHost: local\0host\r\n\r\n"),
    ];
    for host in [
        "",
        "localhost/health?",
        "localhost/../admin",
        "localhost?x",
        "localhost#x",
        "localhost\\x",
        "user@localhost",
        "localhost@evil.example",
        "localhost,evil.example",
        "localhost, evil.example",
        "localhost evil.example",
        "localhost;x",
        "localhost:80:80",
        "localhost:",
        "localhost:x",
        "localhost:-1",
        "localhost:99999",
        ":80",
        "[::1%25eth0]",
        "[::1%eth0]",
        "[::1",
        "::1",
        "[localhost]",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "local%68ost",
        "loc\u{e4}lhost",
        "localhost..",
        ".localhost",
        "local..host",
        "*",
        "http://localhost",
    ] {
        cases.push(wrong("/x", &[host]));
    }
    for host in
        ["evil.example", "localhost.evil.example", "evillocalhost", "10.0.0.1", "[::2]", "192.0.2.1:80", "0.0.0.0"]
    {
        cases.push(foreign("/x", &[host]));
    }
    for host in [
        "localhost",
        "LOCALHOST",
        "localhost:8443",
        "localhost.",
        "a.localhost",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:80",
    ] {
        cases.push(passed(asked("/x", &[host]), &["GET /x"]));
    }
    // Absolute form: equal to `Host`, which is there all the same.
    for (target, host) in [
        ("http://localhost/x", "localhost"),
        ("https://localhost/x", "localhost"),
        ("http://LocalHost:80/x", "localhost:80"),
        ("http://localhost/x?", "LOCALHOST"),
    ] {
        let reached = if target.ends_with('?') { "GET /x?" } else { "GET /x" };
        cases.push(passed(asked(target, &[host]), &[reached]));
    }
    for (target, host) in [
        ("http://evil.example/x", "localhost"),
        ("http://localhost/x", "evil.example"),
        ("http://localhost:80/x", "localhost"),
        ("http://localhost/x", "localhost:80"),
        ("http://user@localhost/x", "localhost"),
        ("http://localhost/x", ""),
    ] {
        cases.push(wrong(target, &[host]));
    }
    cases.push(wrong("http://localhost/x", &[]));
    cases.push(foreign("http://evil.example/x", &["evil.example"]));
    cases.push(refused(asked("http://localhost/admin/x", &["localhost"]), 403, "access.address"));
    cases.push(refused(asked("http://localhost/x/../admin", &["localhost"]), 403, "access.address"));
    // A rule for a host is for that host in each of its spellings.
    for host in ["tenant.localhost", "TENANT.localhost", "tenant.localhost.", "tenant.localhost:8443"] {
        cases.push(refused(asked("/tenant/x", &[host]), 403, "access.address"));
    }
    run(&cases).await
}

/// As [`Field::start`], with a client that is a trusted proxy.
async fn behind_a_proxy(mode: &'static str) -> Result<Field> {
    let upstream = Upstream::answering(echo_target).await?;
    let policy = written_policy(&upstream.url(), ROUTES);
    let policy = policy.replacen("[server]\n", "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n", 1);
    let setup = Palisade::serve().policy(&policy);
    let setup = if mode == "detect" { setup.arg("--detect") } else { setup };
    Ok(Field { mode, gateway: setup.start().await?, upstream })
}

/// What is said of hosts elsewhere changes nothing, neither the verdict, nor what the application is told: not by clients,
/// and not by a trusted proxy either, whose word counts for the client's address.
#[tokio::test]
async fn forwarded_hosts_count_for_nothing() -> Result<()> {
    let [block, detect] = Field::both(ROUTES).await?;
    let proxied = [behind_a_proxy("block").await?, behind_a_proxy("detect").await?];
    for (field, trusted) in
        [block, detect].into_iter().map(|field| (field, false)).chain(proxied.map(|field| (field, true)))
    {
        for name in
            ["X-Forwarded-Host", "X-Host", "X-Original-Host", "X-HTTP-Host-Override", "Forwarded", "X-Forwarded-Server"]
        {
            for (host, status) in [("localhost", 200), ("evil.example", 421)] {
                let value = if name == "Forwarded" { "host=localhost;proto=https" } else { "localhost" };
                let other = if host == "localhost" { "evil.example" } else { value };
                let request = format!(
                    "GET /x HTTP/1.1\r\nHost: {host}\r\n{name}: {other}\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
                );
                let answer = field.gateway.wire_http().await?.ask(request).await?;
                ensure!(answer.status() == status, "{name} {host}: {}", answer.start);
                let reached = field.reached();
                ensure!(reached.len() == usize::from(status == 200), "{name} {host}");
                for request in reached {
                    let client = if trusted { "203.0.113.9" } else { "127.0.0.1" };
                    ensure!(request.header("x-forwarded-for") == Some(client), "{name}: {:?}", request.headers);
                    for told in ["host", "x-forwarded-host"] {
                        ensure!(
                            request.all(told).collect::<Vec<_>>() == ["localhost"],
                            "{name}: {:?}",
                            request.headers
                        );
                    }
                    for gone in ["forwarded", "x-original-host", "x-forwarded-server"] {
                        ensure!(request.header(gone).is_none(), "{name}: {:?}", request.headers);
                    }
                }
            }
        }
        // What arrives is the matched name in lower case, with the client's port.
        let answer = field.gateway.wire_http().await?.ask("GET /x HTTP/1.1\r\nHost: LOCALHOST:1234\r\n\r\n").await?;
        ensure!(answer.status() == 200);
        let reached = field.reached();
        ensure!(reached[0].header("host") == Some("localhost:1234"), "{:?}", reached[0].headers);
        ensure!(reached[0].header("x-forwarded-host") == Some("localhost:1234"), "{:?}", reached[0].headers);
    }
    Ok(())
}
