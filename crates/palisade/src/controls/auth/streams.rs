//! Streams do not outlive rights (threats 38): while one is open it is asked every second whether its credential is still
//! good and its route still for its caller.

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
use crate::observe::event;

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Returns once the caller of a request may not go on. None where nobody was identified: nothing can end.
pub(crate) fn ended(ctx: &Arc<Context>) -> Option<Ended> {
    ctx.identity().caller()?;
    let ctx = Arc::clone(ctx);
    Some(Box::pin(async move {
        loop {
            tokio::time::sleep(EVERY).await;
            if !goes_on(&ctx).await {
                event::STREAM_ENDED
                    .line(&ctx.policy.env().log)
                    .str("user", ctx.identity().caller().map_or("", Caller::subject))
                    .str("path", ctx.path())
                    .str("request_id", ctx.request_id().as_str());
                return;
            }
        }
    }))
}

async fn goes_on(ctx: &Context) -> bool {
    let (Some(caller), Some(auth)) = (ctx.identity().caller(), &ctx.policy.controls().auth.control) else {
        return false;
    };
    let Some(ready) = auth.services.get() else { return false };
    match ready.identity.still(caller.proved()).await {
        Ok(now) => auth.still_admits(ctx, &Caller::new(now)).is_ok(),
        Err(Unrecognised::NotValid(_)) => false,
        // The database is away: what was allowed goes on until it ends by itself.
        Err(Unrecognised::Trouble(_)) => true,
    }
}

/// An event stream that ends with the rights of whoever reads it. Its end is a regular one: the browser asks again, and
/// is refused.
pub(crate) fn guard(ctx: &Arc<Context>, answer: Response<ResponseBody>) -> Response<ResponseBody> {
    match ended(ctx) {
        Some(ended) => answer.map(|inner| ResponseBody::boxed(Guarded { inner, ended: Some(ended) })),
        None => answer,
    }
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
