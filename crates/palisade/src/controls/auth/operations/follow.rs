//! Reads the documents again and again, for applications change theirs whenever they are deployed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderValue;
use palisade_openapi::MAX_BYTES;
use tokio::time::Instant;

use crate::live::Handle;
use crate::policy::values::HostPattern;
use crate::stack::{Inner, Live};

/// How often it is looked at what is to be read.
const LOOK: Duration = Duration::from_secs(1);
/// How often a document that was read is read again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Follows the documents of whatever policy is in force, until the server is gone.
pub(crate) async fn follow(handle: Weak<Handle>) {
    let mut read: HashMap<(String, String), Instant> = HashMap::new();
    loop {
        let Some(handle) = handle.upgrade() else { return };
        let live = handle.live();
        drop(handle);
        if let Some(auth) = &live.policy.controls().auth.control {
            for (number, known, place) in auth.documents(&live.policy) {
                let source = source(&live, number);
                let key = (place.name.clone(), source.clone());
                if read.get(&key).is_some_and(|at| at.elapsed() < AGAIN) {
                    continue;
                }
                let log = Arc::clone(&live.policy.env().log);
                let text = fetch(&live, number, &source).await;
                let done = tokio::task::spawn_blocking(move || match text {
                    Ok(text) => known.put(&text, &place, &log).is_ok(),
                    Err(why) => {
                        known.failed(&why, &place, &log);
                        false
                    }
                });
                if done.await.unwrap_or(false) {
                    read.retain(|_, at| at.elapsed() < 10 * AGAIN);
                    read.insert(key, Instant::now());
                }
            }
        }
        drop(live);
        tokio::time::sleep(LOOK).await;
    }
}

fn source(live: &Live, number: u16) -> String {
    let config = live.policy.config();
    let named = usize::from(number).checked_sub(1).and_then(|place| config.upstreams.values().nth(place));
    named.unwrap_or(&config.upstream).openapi.clone()
}

async fn fetch(live: &Live, number: u16, source: &str) -> Result<Vec<u8>, String> {
    if let Some(file) = source.strip_prefix("file:") {
        let file = file.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            super::read(file.as_ref())
                .map_err(|why| format!("`{file}`: {why}"))
                .and_then(|text| text.ok_or(format!("`{file}` is not there")))
        });
        return read.await.map_err(|why| why.to_string())?;
    }
    let named = usize::from(number).checked_sub(1).and_then(|place| live.upstreams().get(place));
    let gateway = match (named, live.inner()) {
        (Some(gateway), _) => gateway,
        (None, Inner::Proxy(gateway)) if number == 0 => gateway,
        _ => return Err("there is no application behind that could be asked: name a file".into()),
    };
    // The name that its clients call it by: an application may answer to no other.
    let host = live.policy.env().server.hosts.iter().find_map(|host| match host {
        HostPattern::Exact(name) => HeaderValue::from_str(name).ok(),
        _ => None,
    });
    let host = host.unwrap_or(HeaderValue::from_static("localhost"));
    gateway.fetch(source, &host, MAX_BYTES, WITHIN).await.map(Into::into).map_err(|why| why.to_string())
}
