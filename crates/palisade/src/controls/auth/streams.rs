//! Streams do not outlive rights (threats 38): while one is open it is asked every second whether its credential is still
//! good and its route still for its caller; and when a policy comes in force, whether that would let it in.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use http_body::{Body, Frame, SizeHint};
use palisade_identity::service::Unrecognised;

use super::caller::Caller;
use crate::body::{BodyError, ResponseBody};
use crate::context::Context;
use crate::control::Check as _;
use crate::observe::{event, redact};
use crate::policy::{InForce, Policy};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Returns once a request may not go on: its caller has lost what let them in, or the policy in force would not let it in.
pub(crate) fn ended(ctx: &Arc<Context>) -> Ended {
    let ctx = Arc::clone(ctx);
    Box::pin(async move {
        let mut in_force = InForce::of(ctx.policy.env()).follow();
        // Of nobody nothing can end but what a policy says.
        let identified = ctx.identity().caller().is_some();
        // It was let in a moment ago.
        let mut asks = false;
        loop {
            let now = in_force.borrow_and_update().upgrade().unwrap_or_else(|| Arc::clone(&ctx.policy));
            if (asks || !Arc::ptr_eq(&now, &ctx.policy)) && !goes_on(&ctx, now).await {
                break;
            }
            asks = identified;
            let second = async {
                if identified {
                    tokio::time::sleep(EVERY).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = second => {}
                Ok(()) = in_force.changed() => {}
            }
        }
        event::STREAM_ENDED
            .line(&ctx.policy.env().log)
            .str("user", ctx.identity().caller().map_or("", Caller::subject))
            .str("path", &redact::path(ctx.path()))
            .str("request_id", ctx.request_id().as_str());
    })
}

/// Whether a request that was let in would be let in now, under the policy in force.
async fn goes_on(began: &Context, policy: Arc<Policy>) -> bool {
    let again = if Arc::ptr_eq(&policy, &began.policy) {
        None
    } else {
        let Some((again, mut parts)) = began.under(&policy) else { return false };
        let controls = policy.controls();
        let hosts = controls.hosts.control.as_ref().map_or(Ok(()), |hosts| hosts.request(&again, &mut parts));
        let access = controls.access.control.as_ref().map_or(Ok(()), |access| access.request(&again, &mut parts));
        if hosts.and(access).is_err() {
            return false;
        }
        Some(again)
    };
    let ctx = again.as_ref().unwrap_or(began);
    let Some(auth) = &ctx.policy.controls().auth.control else { return true };
    let caller = match began.identity().caller() {
        None => None,
        Some(caller) => {
            // The database is away: what was allowed goes on until it ends by itself.
            let Ok(ready) = auth.open(&ctx.policy).await else { return true };
            match ready.identity.still(caller.proved()).await {
                Ok(now) => Some(Caller::new(now)),
                Err(Unrecognised::NotValid(_)) => return false,
                Err(Unrecognised::Trouble(_)) => return true,
            }
        }
    };
    auth.still_admits(ctx, caller.as_ref()).is_ok()
}

/// An event stream that ends with the rights of whoever reads it. Its end is a regular one: the browser asks again, and
/// is refused.
pub(crate) fn guard(ctx: &Arc<Context>, answer: Response<ResponseBody>) -> Response<ResponseBody> {
    let ended = ended(ctx);
    answer.map(|inner| ResponseBody::boxed(Guarded { inner, ended: Some(ended) }))
}

/// Whether an answer is a stream of events.
pub(crate) fn is_stream(answer: &Response<ResponseBody>) -> bool {
    answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

struct Guarded {
    inner: ResponseBody,
    /// None once it has ended.
    ended: Option<Ended>,
}

impl Body for Guarded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let has_ended = this.ended.as_mut().is_none_or(|ended| ended.as_mut().poll(cx).is_ready());
        if has_ended {
            this.ended = None;
            this.inner = ResponseBody::empty();
            return Poll::Ready(None);
        }
        Pin::new(&mut this.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ended.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
