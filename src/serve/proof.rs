//! The peers that are shown what the server serves.

/// The peers that see the proof headers and `/-/*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Peers on loopback or a Unix socket.
    Loopback,
    /// All peers.
    Any,
}
