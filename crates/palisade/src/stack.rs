//! The one list of layers. It reads from top to bottom as a request travels.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures_util::FutureExt as _;
use http::header::{ACCEPT, HeaderValue};
use http::{Request, Response, StatusCode, request, response};
use http_body::Body as _;

use crate::body::{Pace, RequestBody, ResponseBody, Start};
use crate::context::{Connection, Context, Seen};
use crate::control::{Begun, Check, Compiled, ControlId, Mode, Stage};
use crate::controls::auth::streams;
use crate::controls::{integrity, limits, rate_limit};
use crate::endpoints;
use crate::gateway::{Gateway, in_process, prefix};
use crate::observe::access::Record;
use crate::observe::event;
use crate::policy::Policy;
use crate::refusal::{Code, Refusal, Stop};
use crate::server::request_id::RequestId;

/// A defect of ours, or a handler's panic.
pub static PANIC: Code =
    Code::palisade("palisade.panic", StatusCode::INTERNAL_SERVER_ERROR, 13, "something went wrong");
/// There is nothing behind the gateway.
pub static NO_UPSTREAM: Code =
    Code::operator("upstream.none", StatusCode::BAD_GATEWAY, 21, "no application is configured behind this gateway");

/// Every code that no control owns.
pub static CODES: &[&Code] = &[&PANIC, &NO_UPSTREAM];

/// In the extensions of a refused answer: why. For whoever embeds the stack, and for tests.
#[derive(Debug, Clone, Copy)]
pub struct RefusedWith(pub &'static Code);

/// In the extensions of an answer, put there by a control that has seen the whole of its body ([`Check::peeked`]): another
/// one in its place.
#[derive(Debug, Clone)]
pub(crate) struct Instead(pub(crate) bytes::Bytes);

/// What a request is passed to in the end.
#[derive(Debug, Clone)]
pub enum Inner {
    /// An application behind.
    Proxy(Arc<Gateway>),
    /// A router in this process.
    Router(axum::Router),
    /// Nothing: every request is refused.
    Nothing,
}

/// A policy in force, with the stack built from it.
#[derive(Debug)]
pub struct Live {
    /// The policy.
    pub policy: Arc<Policy>,
    head: Vec<Stage>,
    answers: Vec<Stage>,
    readers: Vec<Stage>,
    inspectors: Vec<Stage>,
    inner: Inner,
    named: Vec<Arc<Gateway>>,
}

#[derive(Default)]
struct Stages {
    head: Vec<Stage>,
    answers: Vec<Stage>,
    readers: Vec<Stage>,
    inspectors: Vec<Stage>,
}

impl Stages {
    fn head<C: Check + 'static>(&mut self, compiled: &Compiled<C>) {
        if let Some(control) = &compiled.control {
            self.once_more(compiled.id, Arc::clone(control) as Arc<dyn Check>);
        }
    }

    /// Another stage of a control that has one already.
    fn once_more(&mut self, control: ControlId, check: Arc<dyn Check>) {
        self.head.push(Stage { control, slow: check.can_be_slow(), waits: check.waits(), check });
    }
}

/// The head controls in order.
fn stages(policy: &Policy) -> Stages {
    let controls = policy.controls();
    let mut stages = Stages::default();
    // First: everything below reads the path, host and rule that are fixed here.
    stages.head(&controls.integrity);
    // Above everything that counts or allows by address.
    stages.head(&controls.client_ip);
    // A name that is not ours learns nothing, not even that it is limited.
    stages.head(&controls.hosts);
    // Below `hosts`, so that nobody is redirected to a name that is not ours.
    stages.head(&controls.https_redirect);
    // By address, before anything that costs more; below `hosts` and the redirect, which cost less than counting.
    stages.head(&controls.rate_limit);
    // Above whatever answers for a host of ours, so that it has the last word on the headers of every answer.
    stages.head(&controls.headers);
    // Preflights end here, before anything that costs more than a list of origins; below limits by address, since
    // anybody can send them.
    stages.head(&controls.cors);
    // Below `cors`, since a preflight asks on behalf of another method.
    stages.head(&controls.access);
    // Below `access`, since a method or network that a route is not for needs no look-up to be refused; above all that
    // depends on who is asking.
    stages.head(&controls.auth);
    // Limits by user and by key, once these are proved; those by address have been held above.
    if let Some(control) = &controls.rate_limit.control
        && let Some(below) = rate_limit::BelowLogin::of(control)
    {
        stages.once_more(controls.rate_limit.id, Arc::new(below));
    }
    // Below `auth`: who may not use a path does not learn what lies there.
    stages.head(&controls.r#static);
    // Near the end of the head: what it refuses has been allowed by everything that costs less than a body.
    stages.head(&controls.limits);
    // On the way up the first: what the application says of itself in an error reaches nobody above.
    stages.head(&controls.error_mask);
    // Below all that costs less, `limits` too, which bound what it reads. It sees the head as it was sent (what integrity
    // drops is dropped on forwarding), and on the way up the answer before it is masked.
    stages.head(&controls.waf);
    // Below everything that says who sends a request, since what has to be proved follows from that; last of the body,
    // because a form that is not one needs no token.
    stages.head(&controls.csrf);
    // Last: of what nobody refuses, what a strict policy would have. Neither the rate by address nor the connections of one:
    // all clients of the starter policy are on this machine and share its address, so that a count would say how fast a load
    // test is, and `palisade init` would take a limit away that no client of a deployment meets.
    if policy.env().starter {
        stages.once_more(controls.integrity.id, Arc::new(integrity::Strict));
        if let Some(strict) = controls.limits.control.as_deref().and_then(limits::Strict::of) {
            stages.once_more(controls.limits.id, Arc::new(strict));
        }
    }
    // What is off everywhere costs nothing, not even a look at its mode.
    stages.head.retain(|stage| policy.runs(stage.control));
    stages.readers = stages.head.iter().filter(|stage| stage.check.reads()).cloned().rev().collect();
    stages.answers = stages.head.iter().filter(|stage| stage.check.answers()).cloned().rev().collect();
    stages.inspectors = stages.head.iter().filter(|stage| stage.check.inspects()).cloned().collect();
    stages
}

impl Live {
    /// Builds the stack of a policy round an inner service.
    pub fn new(policy: Arc<Policy>, inner: Inner) -> Self {
        let Stages { head, answers, readers, inspectors } = stages(&policy);
        Self { policy, head, answers, readers, inspectors, inner, named: Vec::new() }
    }

    /// The same with the applications of `[upstreams.NAME]`, in the order of their names.
    #[must_use]
    pub fn with_upstreams(mut self, named: Vec<Arc<Gateway>>) -> Self {
        self.named = named;
        self
    }

    /// The applications of `[upstreams.NAME]`, in the order of their names.
    pub fn upstreams(&self) -> &[Arc<Gateway>] {
        &self.named
    }

    /// The names of the controls in this stack, in order.
    pub fn controls(&self) -> Vec<&'static str> {
        self.head.iter().map(|stage| stage.control.info().name).collect()
    }

    /// The control of this name, where it is in the stack.
    pub fn control(&self, name: &str) -> Option<&dyn Check> {
        self.head.iter().find(|stage| stage.control.info().name == name).map(|stage| &*stage.check)
    }

    /// What requests are passed to.
    pub fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Answers a request.
    pub async fn serve(&self, connection: &Arc<Connection>, request: Request<RequestBody>) -> Response<ResponseBody> {
        let (parts, body) = request.into_parts();
        let id = self.request_id(connection, &parts);
        let ctx =
            Arc::new(Context::new(Arc::clone(&self.policy), Arc::clone(connection), id, &parts, !body.is_end_stream()));
        let accept = if ctx.seen.any(Seen::ACCEPT) { parts.headers.get(ACCEPT).cloned() } else { None };
        let bytes_in = body.counter();
        let unanswered = Unanswered::new(&ctx, &bytes_in);

        let passed = AssertUnwindSafe(self.pass(&ctx, parts, body)).catch_unwind().await;
        let (mut answer, mut refused) = match passed {
            Ok(Ok(answer)) => (answer, None),
            Ok(Err(refusal)) => (refusal.render(&ctx, accept.as_ref()), Some(refusal)),
            Err(_panic) => {
                event::PANIC.line(&self.policy.env().log).str("request_id", ctx.request_id().as_str());
                let refusal = PANIC.refuse("a panic");
                (refusal.render(&ctx, accept.as_ref()), Some(refusal))
            }
        };
        if let Some(refusal) = self.answer(&ctx, &mut answer, accept.as_ref()) {
            refused = Some(refusal);
        }
        unanswered.answered();
        self.finish(ctx, answer, refused.as_ref(), bytes_in)
    }

    /// A trusted proxy's id is kept, so that one id names the request in all logs.
    fn request_id(&self, connection: &Connection, parts: &http::request::Parts) -> RequestId {
        let trusted = &self.policy.env().server.trusted_proxies;
        let given = connection
            .is_from(trusted)
            .then(|| Context::single(&parts.headers, "x-request-id").and_then(RequestId::adopt));
        given.flatten().unwrap_or_else(|| RequestId::new(self.policy.clock().now()))
    }

    /// Downwards: the head controls, then the inner service, whose reading feeds the inspectors of the body.
    ///
    /// A future holds its arguments beside everything that they are moved to, and is moved itself: so head and body are
    /// taken apart once and used in place, and what is rarely awaited is boxed.
    async fn pass(
        &self,
        ctx: &Arc<Context>,
        mut parts: request::Parts,
        mut body: RequestBody,
    ) -> Result<Response<ResponseBody>, Refusal> {
        for stage in &self.head {
            let mode = ctx.mode(stage.control);
            if mode == Mode::Off {
                continue;
            }
            let outcome = if stage.slow && stage.check.is_slow(ctx, &parts) {
                Box::pin(aside(stage, ctx, &mut parts)).await
            } else if stage.waits {
                match stage.check.begin(ctx, &mut parts) {
                    Begun::Done(outcome) => outcome,
                    Begun::Waits(outcome) => outcome.await,
                }
            } else {
                stage.check.request(ctx, &mut parts)
            };
            let stop = match outcome {
                Ok(()) => continue,
                Err(stop) => stop,
            };
            let mode = match &stop {
                Stop::Refuse(refusal) => effective(mode, refusal),
                Stop::Answer(_) => mode,
            };
            match (stop, mode) {
                (_, Mode::Off) => {}
                (Stop::Answer(answer), _) => return Ok(*answer),
                (Stop::Refuse(refusal), Mode::Block) => return Err(refusal),
                (Stop::Refuse(refusal), Mode::Detect) => ctx.would_refuse(stage.control, mode, refusal),
            }
        }
        if !body.is_end_stream() {
            for stage in &self.inspectors {
                let mode = ctx.mode(stage.control);
                if mode == Mode::Off {
                    continue;
                }
                if stage.check.decodes(ctx) {
                    body.decode(ctx);
                }
                if let Some(inspect) = stage.check.inspect(ctx, &parts) {
                    body.watch(ctx, stage.control, mode, inspect);
                }
                if let Some(limit) = stage.check.body_time(ctx) {
                    body.pace(Pace::new(ctx, stage.control, mode, limit));
                }
            }
        }
        if let Some(headers) = &self.policy.controls().headers.control
            && headers.wants_report(ctx)
        {
            return Box::pin(headers.report(ctx, &parts, body)).await;
        }
        if let Some(answer) = endpoints::answer(ctx, &parts) {
            return Ok(answer);
        }
        if let Some(auth) = &self.policy.controls().auth.control
            && ctx.rule().own
        {
            return Box::pin(endpoints::auth::answer(auth, ctx, parts, body)).await;
        }
        if let Some(files) = &self.policy.controls().r#static.control
            && let Some(answer) = files.answer(ctx, &parts)
        {
            return answer.await;
        }
        if body.is_held() {
            Box::pin(body.hold()).await;
            if let Some(refusal) = ctx.take_body_refusal() {
                return Err(refusal);
            }
        }
        let websocket = ctx.seen.any(Seen::CONNECTION) && integrity::is_websocket(&parts);
        integrity::strip(&mut parts.headers, websocket, self.policy.owned_headers());
        let destination = self.policy.destination(ctx.rule().id);
        destination.headers(ctx, &mut parts.headers)?;
        if let Some(path) = ctx.stripped_path()
            && let Some(uri) = integrity::with_path(&parts.uri, path)
        {
            parts.uri = uri;
        }
        if let Some(uri) = integrity::without_method(ctx, &parts.uri) {
            parts.uri = uri;
        }
        if let Some(auth) = &self.policy.controls().auth.control {
            auth.hand_over(ctx, &mut parts);
        }
        let request = Request::from_parts(parts, body);
        let named = usize::from(destination.upstream).checked_sub(1).and_then(|place| self.named.get(place));
        let mut answer = match (named, &self.inner) {
            (Some(gateway), _) | (None, Inner::Proxy(gateway)) => {
                // There may be several: the log says which.
                gateway.call(ctx, request).await.map_err(|refusal| refusal.with("upstream", gateway.name().to_owned()))
            }
            (None, Inner::Router(router)) if websocket => Box::pin(in_process::websocket(router, ctx, request)).await,
            (None, Inner::Router(router)) => Box::pin(in_process::ask(router, ctx, request)).await,
            (None, Inner::Nothing) => Err(NO_UPSTREAM.refuse("neither `upstream.url` nor `upstream.command`")),
        };
        if let Ok(whole) = &mut answer {
            ctx.set_answered();
            prefix::mend(ctx, whole.headers_mut());
            if let Some(auth) = &self.policy.controls().auth.control {
                auth.clean(ctx, whole.headers_mut());
                if streams::is_stream(whole) {
                    *whole = streams::guard(ctx, std::mem::take(whole));
                }
            }
        }
        if let Ok(whole) = &mut answer
            && self.readers.iter().any(|stage| stage.check.peeks(ctx, whole.status(), whole.headers()).is_some())
        {
            answer = Box::pin(self.read(ctx, std::mem::take(whole))).await;
        }
        // Whatever became of a request whose body was cut short, this is why.
        match ctx.take_body_refusal() {
            Some(refusal) => Err(refusal),
            None => answer,
        }
    }

    /// Upwards: the controls that must see the start of some bodies. All other answers stream untouched.
    async fn read(
        &self,
        ctx: &Arc<Context>,
        answer: Response<ResponseBody>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let mut answer = answer;
        for stage in &self.readers {
            let Some(peek) = stage.check.peeks(ctx, answer.status(), answer.headers()) else { continue };
            let mode = ctx.mode(stage.control);
            if mode == Mode::Off {
                continue;
            }
            let (mut parts, mut body) = answer.into_parts();
            let start = body.start(peek.bytes, peek.within).await;
            let outcome = if mode == Mode::Block {
                peeked(stage, ctx, &mut parts, start).await
            } else {
                peeked(stage, ctx, &mut copy(&parts), start).await
            };
            if let Err(refusal) = outcome {
                match effective(mode, &refusal) {
                    Mode::Block => return Err(refusal),
                    mode => ctx.would_refuse(stage.control, mode, refusal),
                }
            }
            if let Some(Instead(bytes)) = parts.extensions.remove() {
                body = ResponseBody::fixed(bytes);
            }
            answer = Response::from_parts(parts, body);
        }
        Ok(answer)
    }

    /// Upwards: controls that change or judge answers, in reverse order.
    fn answer(
        &self,
        ctx: &Context,
        answer: &mut Response<ResponseBody>,
        accept: Option<&HeaderValue>,
    ) -> Option<Refusal> {
        if self.answers.is_empty() {
            return None;
        }
        let (mut parts, mut body) = std::mem::take(answer).into_parts();
        let mut refused = None;
        for stage in &self.answers {
            let mode = ctx.mode(stage.control);
            let outcome = match mode {
                Mode::Off => continue,
                Mode::Block => stage.check.response(ctx, &mut parts),
                Mode::Detect => stage.check.response(ctx, &mut copy(&parts)),
            };
            let Err(refusal) = outcome else { continue };
            match effective(mode, &refusal) {
                Mode::Block => {
                    // The layers further in have answered in vain; this one and those further out see the refusal.
                    (parts, body) = refusal.render(ctx, accept).into_parts();
                    let _its_own_refusal = stage.check.response(ctx, &mut parts);
                    refused = Some(refusal);
                }
                mode => ctx.would_refuse(stage.control, mode, refusal),
            }
        }
        *answer = Response::from_parts(parts, body);
        refused
    }

    /// On every answer, whoever made it: the request id, and the record for the log.
    fn finish(
        &self,
        ctx: Arc<Context>,
        mut answer: Response<ResponseBody>,
        refused: Option<&Refusal>,
        bytes_in: Arc<AtomicU64>,
    ) -> Response<ResponseBody> {
        if let Ok(mut id) = HeaderValue::from_bytes(ctx.request_id().as_bytes()) {
            // Never the same twice: in the table of HTTP/2's compression it would push out what is (RFC 7541 §7.1.3).
            id.set_sensitive(true);
            answer.headers_mut().insert(crate::gateway::X_REQUEST_ID, id);
        }
        if let Some(refusal) = refused {
            event::refused(&ctx, None, Mode::Block, refusal);
            answer.extensions_mut().insert(RefusedWith(refusal.code()));
        }
        if refused.is_some() || !ctx.verdicts().is_empty() {
            self.policy.decisions().decided(&ctx, answer.status(), refused);
        }
        let record = Record::new(ctx, answer.status(), refused.map(Refusal::code), bytes_in);
        answer.body_mut().attach(Box::new(record));
        answer
    }
}

/// Asks a control off the I/O threads.
async fn aside(stage: &Stage, ctx: &Arc<Context>, parts: &mut request::Parts) -> Result<(), Stop> {
    let (check, shared) = (Arc::clone(&stage.check), Arc::clone(ctx));
    let mut taken = std::mem::replace(parts, Request::new(()).into_parts().0);
    let (given, outcome) = crate::aside::run(move || {
        let outcome = check.request(&shared, &mut taken);
        (taken, outcome)
    })
    .await;
    *parts = given;
    outcome
}

/// Asks a control about the start of an answer, off the I/O threads where that may take long.
async fn peeked(stage: &Stage, ctx: &Arc<Context>, parts: &mut response::Parts, start: Start) -> Result<(), Refusal> {
    if !stage.check.peeks_slowly(ctx, parts, &start) {
        return stage.check.peeked(ctx, parts, &start);
    }
    let (check, shared) = (Arc::clone(&stage.check), Arc::clone(ctx));
    let mut taken = std::mem::replace(parts, Response::new(()).into_parts().0);
    let (given, outcome) = crate::aside::run(move || {
        let outcome = check.peeked(&shared, &mut taken, &start);
        (taken, outcome)
    })
    .await;
    *parts = given;
    outcome
}

/// What a refusal means: a watched one is noted where its control would enforce.
fn effective(mode: Mode, refusal: &Refusal) -> Mode {
    if mode == Mode::Block && refusal.is_watched() { Mode::Detect } else { mode }
}

/// The head of an answer, for a control that may change nothing.
fn copy(parts: &response::Parts) -> response::Parts {
    let mut copy = Response::new(()).into_parts().0;
    copy.status = parts.status;
    copy.headers = parts.headers.clone();
    copy
}

/// Writes the access line of a request whose client left before there was an answer: the server then drops the future
/// that would have made one.
struct Unanswered(Option<(Arc<Context>, Arc<AtomicU64>)>);

impl Unanswered {
    fn new(ctx: &Arc<Context>, bytes_in: &Arc<AtomicU64>) -> Self {
        Self(Some((Arc::clone(ctx), Arc::clone(bytes_in))))
    }

    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some((ctx, bytes_in)) = self.0.take() {
            Record::unanswered(ctx, bytes_in).close(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing_local::App;

    #[test]
    fn a_control_that_is_off_is_not_in_the_stack() {
        let all = App::start("").handle.live().controls();
        let judging: Vec<_> =
            crate::controls::INFOS.iter().filter(|info| info.judges && all.contains(&info.name)).collect();
        assert!(judging.len() >= 3, "{all:?}");
        for info in judging {
            let name = info.name;
            let mut rest = all.clone();
            rest.retain(|kept| *kept != name);
            assert_eq!(App::start(&format!("[{name}]\nmode = \"off\"")).handle.live().controls(), rest, "{name}");
            let one_route =
                format!("[{name}]\nmode = \"off\"\n[[route]]\npath = \"/a\"\n{name} = {{ mode = \"block\" }}");
            assert_eq!(App::start(&one_route).handle.live().controls(), all, "{name} is on for a route");
        }
    }
}
