//! The frames that carry the bytes of a candidate.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::protocol::{PIECE, Request};

/// Returns the frames with the bytes of a candidate, in their order. An empty candidate has one.
pub(super) fn blobs<'a>(
    run: &'a str,
    sha256: &'a str,
    bytes: &'a [u8],
) -> impl Iterator<Item = Request> + 'a {
    let pieces = bytes.chunks(PIECE);
    let empty = bytes.is_empty().then_some(&[][..]);
    pieces
        .chain(empty)
        .enumerate()
        .map(move |(index, piece)| Request::Blob {
            run: run.into(),
            sha256: sha256.into(),
            at: index * PIECE,
            b64: BASE64_STANDARD.encode(piece),
        })
}
