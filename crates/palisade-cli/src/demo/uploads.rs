//! Uploads: streamed and counted, kept nowhere.

use axum::body::Body;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Json;

/// Reads a body to its end without ever holding more than a piece of it.
pub(super) async fn count(Path(name): Path<String>, body: Body) -> (StatusCode, Json<serde_json::Value>) {
    let mut body = std::pin::pin!(body);
    let (mut bytes, mut pieces) = (0_u64, 0_u64);
    loop {
        let frame = std::future::poll_fn(|cx| axum::body::HttpBody::poll_frame(body.as_mut(), cx)).await;
        match frame {
            None => {
                return (StatusCode::OK, Json(serde_json::json!({ "name": name, "bytes": bytes, "pieces": pieces })));
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    bytes += data.len() as u64;
                    pieces += 1;
                }
            }
            Some(Err(_)) => {
                let said = serde_json::json!({ "detail": "the upload broke off" });
                return (StatusCode::BAD_REQUEST, Json(said));
            }
        }
    }
}
