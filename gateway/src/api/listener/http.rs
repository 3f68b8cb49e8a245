//! The HTTP server of one connection.

use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::{Router, body::Body, http::Extensions};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tower::ServiceExt as _;

use super::RegisteredConnection;

/// Time limit of a request's head, and of the pause between two requests.
pub(in crate::api) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Buffer size of a connection in each direction, in bytes. A request's head must fit.
const MAX_BUFFER: usize = 64 << 10;
/// Time for which data of the client is still read when its connection is closed.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves requests until the client closes the connection, a time-out expires, or the connection is evicted.
///
/// # Errors
/// If the connection fails.
pub(in crate::api) async fn serve<T>(
    stream: T,
    registration: &RegisteredConnection,
    router: Router,
    extend: impl Fn(&mut Extensions),
) -> Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|mut request: Request<Incoming>| {
        extend(request.extensions_mut());
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .without_shutdown();
    let parts = tokio::select! {
        parts = connection => parts.context("HTTP connection failed")?,
        () = registration.wait_evicted() => anyhow::bail!("evicted before authentication"),
    };
    let stream = parts.io.into_inner();
    // All responses were sent, so the outcome does not matter.
    let _late = timeout(LINGER_TIMEOUT, linger(stream)).await;
    Ok(())
}

/// Closes the sending side, and discards data that still arrives. Closing a socket with unread data sends a reset, and
/// a reset discards responses that the client has not read yet, such as the refusal of a large body.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut discarded = [0; 4_096];
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}
