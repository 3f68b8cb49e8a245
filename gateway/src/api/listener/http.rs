//! HTTP on one connection.

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

/// How long a client may take for a request's head, and between two requests.
pub(in crate::api) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are buffered of a connection, each way. A head must fit.
const MAX_BUFFER: usize = 64 << 10;
/// How long what a client still sends is read when its connection is closed.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves requests until the connection ends, by the client, by a time-out, or because its place is needed.
///
/// # Errors
/// When the connection failed.
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
        parts = connection => parts.context("the connection failed")?,
        () = registration.wait_evicted() => anyhow::bail!("its place was needed: it did not authenticate"),
    };
    let stream = parts.io.into_inner();
    // The outcome is the client's affair: the answers are out.
    let _late = timeout(LINGER_TIMEOUT, linger(stream)).await;
    Ok(())
}

/// Closes this side, and reads what is still on its way. A reset, which is what closing with unread data means, would
/// take an answer from the client that it has not read yet: the refusal of a body, for one.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut discarded = [0; 4_096];
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}
