//! A write time-out for peers that do not read.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Total time for which a write may wait for the peer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// Minimum rate at which a peer must read, in bytes a second.
const MIN_RATE: u64 = 16 << 10;

/// A transport that fails if its peer does not read, or reads at less than [`MIN_RATE`] for long.
///
/// Waiting times add up, and bytes that the peer reads are deducted at the minimum rate. A peer that reads a few bytes
/// from time to time therefore holds its connection no longer than one that reads nothing.
#[derive(Debug)]
pub(in crate::api) struct WriteTimeoutStream<T> {
    inner: T,
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    timeout: Duration,
}

impl<T> WriteTimeoutStream<T> {
    pub(in crate::api) const fn new(inner: T) -> Self {
        Self::with_timeout(inner, WRITE_TIMEOUT)
    }

    const fn with_timeout(inner: T, timeout: Duration) -> Self {
        Self {
            inner,
            waited: Duration::ZERO,
            waiting: None,
            timeout,
        }
    }

    fn record_written(&mut self, bytes: usize) {
        if let Some((since, _)) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        let micros = (bytes as u64).saturating_mul(1_000_000) / MIN_RATE;
        self.waited = self.waited.saturating_sub(Duration::from_micros(micros));
    }

    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let remaining = self.timeout.saturating_sub(self.waited);
        let (_, deadline) = self
            .waiting
            .get_or_insert_with(|| (Instant::now(), Box::pin(sleep(remaining))));
        match deadline.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer does not read",
            ))),
        }
    }

    fn finish_write(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => self.poll_timeout(context),
            Poll::Ready(Ok(bytes)) => {
                self.record_written(bytes);
                Poll::Ready(Ok(bytes))
            }
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WriteTimeoutStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteTimeoutStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, buffer);
        self.finish_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, buffers);
        self.finish_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_peer_that_reads_nothing_times_out() {
        let (near, _far) = duplex(1_024);
        let mut near = WriteTimeoutStream::with_timeout(near, SHORT);
        let error = near.write_all(&[0; 4_096]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_reads_too_slowly_times_out() {
        let (near, mut far) = duplex(1_024);
        let reader = tokio::spawn(async move {
            while far.read_u8().await.is_ok() {
                sleep(SHORT / 5).await;
            }
        });
        let mut near = WriteTimeoutStream::with_timeout(near, SHORT);
        let error = near.write_all(&[0; 1 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(near);
        reader.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_reads_is_served() {
        let (near, mut far) = duplex(1_024);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.map(|_| all.len())
        });
        let mut near = WriteTimeoutStream::new(near);
        near.write_all(&[0; 1 << 20]).await.unwrap();
        drop(near);
        assert_eq!(reader.await.unwrap().unwrap(), 1 << 20);
    }
}
