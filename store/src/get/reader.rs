//! A download: pieces read ahead, given out in order.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{
    Stream,
    future::BoxFuture,
    stream::{FuturesOrdered, StreamExt},
};
use rbd::{Image, PlainSnapshot};

use super::{
    alive::Alive,
    pieces::{Piece, Pieces},
};
use crate::{
    budget::{Buffer, Share},
    counters::Measured,
    error::{Error, Result},
};

/// The most bytes of one read. From 512 KiB to 8 MiB all cost the same processor time (0.2 s for 256 MiB, as `rbd export`;
/// the stock driver takes 1.4 s); this is small beside the window, so that reads keep coming while one is late.
pub(super) const LONGEST_READ: u64 = 4 << 20;

/// What holes are given as.
static ZEROES: [u8; 1 << 20] = [0; 1 << 20];

/// A range of an image, as a stream of its bytes in pieces of a few MiB at most.
///
/// A window of [`Config::window`](crate::Config::window) chunks, but no more than 64 MiB, is read ahead from the moment the
/// stream is first polled. A piece that was given out is the caller's, and counts no longer.
///
/// It counts as done ([`Store::counters`](crate::Store::counters)) when it was read to its end, or closed.
pub struct Reader {
    source: Source,
    pieces: Pieces,
    share: Arc<Share>,
    /// The next piece of data, until there is a buffer for it. One at a time, so that buffers go to pieces in their order.
    next: Option<(u64, usize, BoxFuture<'static, Buffer>)>,
    ahead: FuturesOrdered<BoxFuture<'static, Result<Ahead>>>,
    /// Of the hole that is being given out.
    zeroes: u64,
    remaining: u64,
    /// Until its end is known.
    measured: Option<Measured>,
}

/// What is read from.
pub(super) enum Source {
    /// The objects of a snapshot.
    Objects { snapshot: PlainSnapshot, alive: Alive, size: u64 },
    /// An open image.
    Image { image: Image, alive: Alive, size: u64 },
}

/// What comes next.
enum Ahead {
    Zeroes(u64),
    Data(Part),
}

/// The part of a buffer that a piece fills.
struct Part {
    buffer: Buffer,
    length: usize,
}

impl AsMut<[u8]> for Part {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.bytes_mut()[..self.length]
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.buffer.bytes()[..self.length]
    }
}

impl Source {
    /// Reads a piece; submitted now.
    fn read(&self, offset: u64, part: Part) -> BoxFuture<'static, Result<Ahead>> {
        let length = part.length;
        match self {
            Self::Objects { snapshot, alive, .. } => {
                let (read, alive) = (snapshot.read_into(offset, part), alive.clone());
                Box::pin(async move {
                    match read.await {
                        Ok((part, filled)) if filled == length => Ok(Ahead::Data(part)),
                        // An object that was never filled to its end; or one that was cut.
                        Ok((mut part, filled)) => {
                            alive.check().await?;
                            part.as_mut()[filled..].fill(0);
                            Ok(Ahead::Data(part))
                        }
                        Err(error) if error.is_not_found() => {
                            alive.check().await?;
                            Ok(Ahead::Zeroes(length as u64))
                        }
                        Err(error) => Err(error.into()),
                    }
                })
            }
            Self::Image { image, alive, .. } => {
                let (read, alive) = (image.read_into(offset, part), alive.clone());
                Box::pin(async move {
                    let (part, filled) = read.await?;
                    // It does not shrink: fewer bytes than asked for are an error, never the end.
                    if filled != length {
                        let what = alive.what();
                        return Err(Error::Invalid(format!("{what} gave {filled} bytes of {length} at {offset}")));
                    }
                    // librbd does not tell which zeroes are a missing object's, or a part's of it.
                    if part.as_ref().contains(&0) {
                        alive.check().await?;
                    }
                    Ok(Ahead::Data(part))
                })
            }
        }
    }
}

impl Reader {
    pub(super) fn new(source: Source, pieces: Pieces, share: Share, measured: Measured) -> Self {
        Self {
            remaining: pieces.bytes(),
            source,
            pieces,
            share: Arc::new(share),
            next: None,
            ahead: FuturesOrdered::new(),
            zeroes: 0,
            measured: Some(measured),
        }
    }

    /// How long the image is, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.source {
            Source::Objects { size, .. } | Source::Image { size, .. } => *size,
        }
    }

    /// How many bytes are still to come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Closes the image and waits for it. Dropping the reader closes it in the background.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn close(self) -> Result<()> {
        let Self { source, next, ahead, measured, .. } = self;
        drop((next, ahead));
        let closed = match source {
            Source::Objects { .. } => Ok(()),
            Source::Image { image, .. } => image.close().await.map_err(Error::from),
        };
        if let Some(measured) = measured {
            measured.end(&closed);
        }
        closed
    }

    /// Submits reads, as long as there are buffers for them.
    fn read_ahead(&mut self, context: &mut Context<'_>) {
        loop {
            if let Some((offset, length, buffer)) = &mut self.next {
                let Poll::Ready(buffer) = buffer.as_mut().poll(context) else { return };
                let read = self.source.read(*offset, Part { buffer, length: *length });
                self.ahead.push_back(read);
                self.next = None;
            }
            match self.pieces.next() {
                None => return,
                Some(Piece::Hole { length }) => {
                    self.ahead.push_back(Box::pin(std::future::ready(Ok(Ahead::Zeroes(length)))));
                }
                Some(Piece::Data { offset, length }) => {
                    let (share, bytes) = (self.share.clone(), self.pieces.longest());
                    // All of one length, so that they can be used again; but not for a few bytes.
                    let bytes = if length * 4 < bytes { length } else { bytes };
                    self.next = Some((offset, length, Box::pin(async move { share.buffer(bytes).await })));
                }
            }
        }
    }

    fn give(&mut self, data: Bytes) -> Poll<Option<Result<Bytes>>> {
        self.remaining -= data.len() as u64;
        if let Some(measured) = &mut self.measured {
            measured.add_bytes(data.len() as u64);
        }
        Poll::Ready(Some(Ok(data)))
    }

    fn end<T>(&mut self, result: &Result<T>) {
        if let Some(measured) = self.measured.take() {
            measured.end(result);
        }
    }
}

impl Stream for Reader {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.zeroes > 0 {
                let length = self.zeroes.min(ZEROES.len() as u64);
                self.zeroes -= length;
                return self.give(Bytes::from_static(&ZEROES[..length as usize]));
            }
            self.read_ahead(context);
            match self.ahead.poll_next_unpin(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) if self.next.is_some() => return Poll::Pending,
                Poll::Ready(None) => {
                    self.end(&Ok(()));
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(Ahead::Zeroes(length)))) => self.zeroes = length,
                Poll::Ready(Some(Ok(Ahead::Data(mut part)))) => {
                    part.buffer.let_go();
                    return self.give(Bytes::from_owner(part));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.pieces.stop();
                    self.next = None;
                    self.ahead.clear();
                    let failed = Err(error);
                    self.end(&failed);
                    return Poll::Ready(Some(failed));
                }
            }
        }
    }
}
