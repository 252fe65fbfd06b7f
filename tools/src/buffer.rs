// SPDX-License-Identifier: GPL-2.0-only

//! Memory aligned for direct I/O.

use std::ops::{Deref, DerefMut};

/// A buffer of zeros whose first byte is aligned to [`AlignedBuf::ALIGN`].
pub struct AlignedBuf {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl AlignedBuf {
    /// The alignment in bytes: no block device asks for more.
    pub const ALIGN: usize = 4096;

    /// A buffer of `bytes` bytes, all zero.
    pub fn new(bytes: usize) -> Self {
        let memory = vec![0; bytes + Self::ALIGN];
        let start = memory.as_ptr().align_offset(Self::ALIGN);
        Self {
            memory,
            start,
            bytes,
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.bytes]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}

/// Whether all of `bytes` are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let mut blocks = bytes.chunks_exact(64);
    blocks.all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
        && blocks.remainder().iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_aligned_and_zero() {
        for bytes in [1, 512, 4096, 65536 + 512] {
            let buf = AlignedBuf::new(bytes);
            assert_eq!(buf.len(), bytes);
            assert_eq!(buf.as_ptr().align_offset(AlignedBuf::ALIGN), 0);
            assert!(is_zero(&buf));
        }
    }

    #[test]
    fn sees_one_byte_anywhere() {
        for at in [0, 1, 63, 64, 100, 129] {
            let mut bytes = [0; 130];
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "byte {at}");
        }
    }
}
