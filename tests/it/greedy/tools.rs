//! `slowhttptest` in its four modes, a thousand connections each. It cannot choose its address: where root is there, the way
//! to the gateway has one for it.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use anyhow::{Result, ensure};
use palisade_test::ways::Ways;
use palisade_test::{Need, Palisade, Process, need};

use super::{GREEDY, MIB, Served, grown, upstream};
use crate::support::heavy;

/// Where the gateway listens and where the tool comes from, for as long as the way is held.
fn addresses() -> Result<(Option<Ways>, Ipv4Addr, IpAddr)> {
    if nix::unistd::geteuid().is_root() {
        return Ok((Some(Ways::open()?), Ways::ATTACKER, GREEDY));
    }
    palisade_test::shell::say("`slowhttptest` comes from 127.0.0.1: it takes root to give it another address");
    Ok((None, Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST.into()))
}

#[tokio::test]
async fn a_thousand_slow_connections_of_each_kind() -> Result<()> {
    need(Need::Slowhttptest)?;
    let _alone = heavy().await;
    let upstream = upstream().await?;
    let (_ways, at, from) = addresses()?;
    // All thousand may stay, as if they were a thousand addresses.
    let policy = format!(
        "[server]\nmode = \"development\"\nhosts = [\"localhost\", \"{at}\"]\nhttps = \"{at}:8443\"\nhttp = \"{at}:8080\"\n\n\
         [upstream]\nurl = \"{}\"\n\n[rate_limit]\ndefault = \"off\"\n\n[limits]\nconnections_per_address = 10000\n",
        upstream.url(),
    );
    let gateway = Palisade::serve().policy(&policy).start().await?;
    let client = gateway.https()?.host("localhost");
    client.get("/").send().await?;
    let before = gateway.process().memory()?.resident;
    let (plain, secure) = (gateway.url("http")?, gateway.url("https")?);
    let modes: [(&[&str], &str); 4] = [
        (&["-H", "-i", "1", "-u", &secure], "/"),
        (&["-B", "-i", "1", "-s", "8192", "-u", &plain], "/"),
        (&["-R", "-a", "10", "-b", "3000", "-u", &secure], "/"),
        (&["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3", "-u", &plain], "/some"),
    ];
    // Thirty seconds of each, two at a time: longer than a head may take, so that those that only send heads are ended.
    for pair in modes.chunks(2) {
        let served = Served::by(&client);
        let mut tools = Vec::new();
        for (mode, path) in pair {
            let mut command = Command::new("slowhttptest");
            command.args(&mode[..mode.len() - 1]).arg(format!("{}{path}", mode[mode.len() - 1]));
            command.args(["-c", "1000", "-r", "500", "-l", "30", "-p", "5", "-v", "1"]);
            tools.push(Process::spawn(command)?);
        }
        for tool in tools {
            tool.wait(std::time::Duration::from_secs(90)).await?;
        }
        let count = served.all().await?;
        let grown = grown(&gateway, before)?;
        let modes: Vec<&str> = pair.iter().map(|(mode, _)| mode[0]).collect();
        // Connections in all, their buffers under TLS included.
        ensure!(grown < 512 * MIB, "{modes:?}: {grown} bytes more");
        palisade_test::shell::say(&format!("{modes:?}: {count} others served, {} MiB more", grown / MIB));
    }
    let from = format!("\"{from}\"");
    let is_ended = |text: &str| text.contains("limits.head_time") && text.contains(&from);
    let ended = gateway.output().since(0).iter().filter(|line| is_ended(&line.text)).count();
    ensure!(ended >= 1000, "{ended} connections of {from} that never sent a whole head were ended");
    Ok(())
}
