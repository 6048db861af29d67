//! `slowhttptest` in its four modes, a thousand connections each. It cannot choose its address: it comes from 127.0.0.1.

use std::process::Command;

use anyhow::{Result, ensure};
use palisade_test::{Need, Process, need};

use super::{MIB, Served, gateway, grown, upstream};
use crate::support::heavy;

#[tokio::test]
async fn a_thousand_slow_connections_of_each_kind() -> Result<()> {
    need(Need::Slowhttptest)?;
    let _alone = heavy().await;
    let upstream = upstream().await?;
    // All thousand may stay, as if they were a thousand addresses.
    let gateway = gateway(&upstream, "").await?;
    gateway.https()?.get("/").send().await?;
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
        let served = Served::beside(&gateway)?;
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
    let ended = gateway.output().since(0).iter().filter(|line| line.text.contains("limits.head_time")).count();
    ensure!(ended >= 1000, "{ended} connections that never sent a whole head were ended");
    Ok(())
}
