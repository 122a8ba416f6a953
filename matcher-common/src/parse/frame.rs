//! The one way the parser touches packet bytes.

/// A frame whose bytes can be copied out, a fixed number at a time.
pub trait Frame {
    /// The `N` bytes at `offset`, or `None` when the frame ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}
