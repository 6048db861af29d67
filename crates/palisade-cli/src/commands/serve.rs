//! `palisade serve`: the gateway.

use palisade::Palisade;

use super::output::say;
use super::policy;
use super::ready_file::ReadyFile;
use crate::args::{Global, Serve};
use crate::exit::Done;

/// Runs until a signal has drained it.
pub(crate) fn run(global: &Global, serve: &Serve) -> anyhow::Result<Done> {
    let mut sources = policy::sources(global);
    if let Some(url) = &serve.upstream {
        sources = sources.flag("--upstream", "upstream.url", serde_json::to_string(url)?);
    }
    if serve.takeover {
        sources = sources.flag("--takeover", "server.takeover", "true");
    }
    if !serve.command.is_empty() {
        sources = sources.flag("--", "upstream.command", serde_json::to_string(&serve.command)?);
    }
    let sources = policy::with_ports(sources, &serve.listening)?;
    let ready_file = serve.listening.ready_file.as_deref().map(ReadyFile::new).transpose()?;
    let (running, problems) = Palisade::from_sources(sources).detect(serve.listening.detect).start()?;
    if !problems.is_empty() {
        say(&problems.render(global.color()));
    }
    let config = running.handle.live();
    let upstream = &config.policy.config().upstream;
    if running.handle.files().is_empty() && upstream.url.is_none() && upstream.command.is_empty() {
        say("warning: there is no application behind this gateway yet, and every request is answered with 502\n  \
             `palisade serve -- uvicorn main:app --uds {socket}` starts one, `palisade serve --upstream \
             http://127.0.0.1:8000` is for one that runs\n");
    }
    drop(config);
    // The work that is not requests: signals, the admin listener, files that change.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let workers = running.start_workers()?;
    runtime.block_on(async {
        running.ready();
        ready_file.iter().try_for_each(|file| file.write(&running))?;
        running.until_signal().await;
        anyhow::Ok(())
    })?;
    drop(ready_file);
    for worker in workers {
        let _ = worker.join();
    }
    // For `palisade init`; a state directory that cannot be written was reported at the start.
    let _ = palisade::operate::save_seen(&running.handle);
    if (running.handle.files().is_empty() || serve.listening.detect)
        && let Some(summary) = palisade::operate::summary(&running.handle)
    {
        say(&summary);
    }
    Ok(Done::Ok)
}
