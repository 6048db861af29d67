//! From a name to an answer: opened once, judged by the descriptor, sent from the same descriptor.

use std::fs::{File, Metadata};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderValue, LAST_MODIFIED, LOCATION, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Response, StatusCode, request};
use nix::errno::Errno;

use super::body::{self, FileBody, Held};
use super::conditions::{Ask, Decision, Encoding, Facts};
use super::names::Wanted;
use super::{Mount, NOT_FOUND, PRECONDITION, RANGE, StaticFiles, UNAVAILABLE, types};
use crate::body::ResponseBody;
use crate::context::Context;
use crate::refusal::Refusal;

/// What was found under a name, judged and, where it is sent, read to begin with.
enum Found {
    File(Box<Opened>),
    /// A directory that has an index: its path ends with a slash.
    Folder,
    Nothing,
}

struct Opened {
    decision: Decision,
    tag: HeaderValue,
    modified: Option<SystemTime>,
    length: u64,
    kind: HeaderValue,
    encoding: Option<Encoding>,
    /// The answer depends on `Accept-Encoding`.
    varies: bool,
    first: Bytes,
    file: File,
}

/// Why there is no answer.
enum Trouble {
    /// What is there is never sent: why.
    Refused(&'static str),
    /// The machine's fault.
    Failed(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

pub(super) async fn answer(
    files: &StaticFiles,
    mount: &Arc<Mount>,
    wanted: Wanted,
    ctx: &Arc<Context>,
    parts: &request::Parts,
) -> Result<Response<ResponseBody>, Refusal> {
    let held = Held::take(ctx)?;
    let get = parts.method == Method::GET;
    let ask = Ask::read(&parts.headers, get);
    let (mounted, tags) = (Arc::clone(mount), Arc::clone(&files.tags));
    let job = move || {
        let found = mounted.find(&wanted, &ask, &tags, get);
        (found, wanted)
    };
    let failed =
        |error: &io::Error| UNAVAILABLE.refuse("reading failed").with("reason", error.to_string()).retry_after(1);
    let (found, _) = files.gate.run(job).await.map_err(|error| failed(&error))?;
    match found {
        Ok(Found::File(opened)) => Ok(send(files, mount, (*opened, held), ctx, parts)),
        Ok(Found::Folder) => Ok(with_slash(ctx, parts)),
        Ok(Found::Nothing) => Ok(NOT_FOUND.refuse("no such file").render(ctx, parts.headers.get(ACCEPT))),
        Err(Trouble::Refused(why)) => Err(NOT_FOUND.refuse(why)),
        Err(Trouble::Failed(error)) => Err(failed(&error)),
    }
}

/// Redirects to the path of a directory, so that the links of its page mean what they say.
fn with_slash(ctx: &Context, parts: &request::Parts) -> Response<ResponseBody> {
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut answer = Response::new(ResponseBody::empty());
    *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
    // The normalised path has no second slash at its start, so that this is never another host.
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{query}", ctx.path())) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0_u64));
    answer
}

fn send(
    files: &StaticFiles,
    mount: &Mount,
    (opened, held): (Opened, Held),
    ctx: &Arc<Context>,
    parts: &request::Parts,
) -> Response<ResponseBody> {
    let accept = parts.headers.get(ACCEPT);
    let Opened { decision, tag, modified, length, kind, encoding, varies, first, file } = opened;
    let (status, from, to) = match decision {
        Decision::Whole => (StatusCode::OK, 0, length),
        Decision::Part(from, to) => (StatusCode::PARTIAL_CONTENT, from, to),
        Decision::NotModified => (StatusCode::NOT_MODIFIED, 0, 0),
        Decision::Failed => return PRECONDITION.refuse("`If-Match`").render(ctx, accept),
        Decision::Unsatisfiable => {
            let mut answer = RANGE.refuse("`Range`").render(ctx, accept);
            insert(answer.headers_mut(), CONTENT_RANGE, format!("bytes */{length}"));
            return answer;
        }
    };
    let sent = to - from;
    let body = if status == StatusCode::NOT_MODIFIED || parts.method == Method::HEAD || sent == 0 {
        ResponseBody::empty()
    } else if first.len() as u64 == sent {
        ResponseBody::fixed(first)
    } else {
        ResponseBody::boxed(FileBody::new(files.gate.clone(), Arc::clone(ctx), first, (file, held), sent))
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(ETAG, tag);
    if let Some(cache) = &mount.cache {
        headers.insert(CACHE_CONTROL, cache.clone());
    }
    if varies {
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    if status == StatusCode::NOT_MODIFIED {
        return answer;
    }
    headers.insert(CONTENT_TYPE, kind);
    // Also where `[headers]` is off: a type that is guessed at would make a page of a picture.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(sent));
    if let Some(encoding) = encoding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
    }
    if status == StatusCode::PARTIAL_CONTENT {
        insert(headers, CONTENT_RANGE, format!("bytes {from}-{}/{length}", to - 1));
    }
    if let Some(modified) = modified {
        insert(headers, LAST_MODIFIED, httpdate::fmt_http_date(modified));
    }
    answer
}

fn insert(headers: &mut HeaderMap, name: http::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

impl Mount {
    /// Opens, judges and begins to read. Blocks.
    fn find(&self, wanted: &Wanted, ask: &Ask, tags: &super::tags::Tags, get: bool) -> Result<Found, Trouble> {
        if wanted.folder || wanted.name.is_empty() {
            let Some(name) = self.index_of(&wanted.name) else { return Ok(Found::Nothing) };
            return match self.regular(&name)? {
                Some(_) if !wanted.folder => Ok(Found::Folder),
                Some((file, meta)) => self.opened(&name, file, &meta, ask, tags, get).map(Found::File),
                None => Ok(Found::Nothing),
            };
        }
        match self.open(&wanted.name)? {
            Some((file, meta)) if meta.is_file() => {
                self.opened(&wanted.name, file, &meta, ask, tags, get).map(Found::File)
            }
            Some((_, meta)) if meta.is_dir() => match self.index_of(&wanted.name) {
                Some(index) if self.regular(&index)?.is_some() => Ok(Found::Folder),
                _ => Ok(Found::Nothing),
            },
            Some(_) => Err(Trouble::Refused(NOT_REGULAR)),
            None => Ok(Found::Nothing),
        }
    }

    fn index_of(&self, folder: &[u8]) -> Option<Vec<u8>> {
        let index = self.index.as_ref()?;
        let mut name = folder.to_vec();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(index.as_bytes());
        Some(name)
    }

    /// What lies under a name, with what its descriptor says of it.
    fn open(&self, name: &[u8]) -> Result<Option<(File, Metadata)>, Trouble> {
        match self.root.open(name) {
            Ok(file) => {
                let meta = file.metadata()?;
                Ok(Some((file, meta)))
            }
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::EINVAL) => Ok(None),
            Err(Errno::ELOOP) => Err(Trouble::Refused("a symbolic link")),
            Err(Errno::EXDEV) => Err(Trouble::Refused("it lies outside the root")),
            Err(Errno::EACCES | Errno::EPERM) => Err(Trouble::Refused("Palisade's user may not read it")),
            // What a socket and a device without a driver say.
            Err(Errno::ENXIO | Errno::ENODEV | Errno::EOPNOTSUPP) => Err(Trouble::Refused(NOT_REGULAR)),
            Err(error) => Err(Trouble::Failed(error.into())),
        }
    }

    /// The same, if it is a regular file.
    fn regular(&self, name: &[u8]) -> Result<Option<(File, Metadata)>, Trouble> {
        Ok(self.open(name)?.filter(|(_, meta)| meta.is_file()))
    }

    fn opened(
        &self,
        name: &[u8],
        file: File,
        meta: &Metadata,
        ask: &Ask,
        tags: &super::tags::Tags,
        get: bool,
    ) -> Result<Box<Opened>, Trouble> {
        let (kind, compressible) = self.kind(name);
        let varies = self.precompressed && compressible;
        let better = if varies { self.compressed(name, meta, &ask.encodings) } else { None };
        let (encoding, mut file, meta) = match better {
            Some((encoding, file, meta)) => (Some(encoding), file, meta),
            None => (None, file, meta.clone()),
        };
        let tag = tags.tag(&mut file, &meta)?;
        let (modified, length) = (modified(&meta), meta.len());
        let decision = ask.decide(&Facts { tag: &tag.text, strong: tag.strong, modified, length });
        let (from, to) = match decision {
            Decision::Whole => (0, length),
            Decision::Part(from, to) => (from, to),
            _ => (0, 0),
        };
        let first = if get && to > from {
            file.seek(SeekFrom::Start(from))?;
            body::read(&file, to - from)?
        } else {
            Bytes::new()
        };
        let text = if tag.strong { tag.text } else { format!("W/{}", tag.text) };
        let tag = HeaderValue::try_from(text).map_err(io::Error::other)?;
        Ok(Box::new(Opened { decision, tag, modified, length, kind, encoding, varies, first, file }))
    }

    fn kind(&self, name: &[u8]) -> (HeaderValue, bool) {
        let (usual, compressible) = types::of(name);
        let own = types::extension(name).and_then(|ending| self.types.get(&*ending.to_ascii_lowercase()));
        (own.cloned().unwrap_or(HeaderValue::from_static(usual)), compressible || own.is_some())
    }

    /// The compressed form that the client likes best, of those that lie beside the file and are not older: what a
    /// deployment forgot to compress again would be the file of the release before.
    fn compressed(&self, name: &[u8], plain: &Metadata, wanted: &[Encoding]) -> Option<(Encoding, File, Metadata)> {
        wanted.iter().find_map(|encoding| {
            let name = [name, encoding.ending()].concat();
            // Whatever is wrong with it, there is the plain file.
            let (file, meta) = self.regular(&name).ok().flatten()?;
            (meta.mtime() >= plain.mtime()).then_some((*encoding, file, meta))
        })
    }
}

const NOT_REGULAR: &str = "not a regular file";

/// `Last-Modified`, in whole seconds. None as long as that second is not over, since the file could change once more in it
/// and keep its date; none either for one that lies in the future, which a server must not say (RFC 9110 §8.8.2.1).
fn modified(meta: &Metadata) -> Option<SystemTime> {
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(meta.mtime()).ok()?);
    let age = SystemTime::now().duration_since(modified).ok()?;
    (age > Duration::from_secs(2)).then_some(modified)
}
