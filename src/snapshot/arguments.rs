// SPDX-License-Identifier: GPL-2.0-only

//! The arguments of a snapshot's table line.

use super::store::Kind;
use crate::dm::target::TargetTable;
use kernel::prelude::*;

/// `<origin> <COW> <P[O]|N> <chunk size> [<number of features> <feature>…]`.
pub(super) struct Arguments<'a> {
    /// The path or number of the origin.
    pub(super) origin: &'a CStr,
    /// The path or number of the COW device.
    pub(super) cow: &'a CStr,
    /// The exception store's type, a word.
    pub(super) store: &'a CStr,
    /// The chunk size in sectors, a word.
    pub(super) chunk_size: &'a CStr,
    /// What follows.
    pub(super) features: Features,
}

/// Optional features of a snapshot.
#[derive(Clone, Copy, Default)]
pub(super) struct Features {
    /// A discard of a chunk zeroes its copy on the COW device.
    pub(super) discard_zeroes_cow: bool,
    /// A discard is passed to the origin, too.
    pub(super) discard_passdown_origin: bool,
}

impl<'a> Arguments<'a> {
    /// Takes a table line apart; says in `table` what is wrong with it.
    pub(super) fn parse(table: &mut TargetTable<'_>, args: &[&'a CStr]) -> Result<Self> {
        let &[origin, cow, store, chunk_size, ref features @ ..] = args else {
            table.set_error(c"requires 4 or more arguments");
            return Err(EINVAL);
        };
        Ok(Self {
            origin,
            cow,
            store,
            chunk_size,
            features: Features::parse(table, features)?,
        })
    }

    /// The store's type, and its options if there are any.
    pub(super) fn kind(&self, table: &mut TargetTable<'_>) -> Result<(Kind, Option<&'a CStr>)> {
        let word = self.store.to_bytes_with_nul();
        let kind = match word.first() {
            Some(b'P' | b'p') => Kind::Persistent,
            Some(b'N' | b'n') => Kind::Transient,
            _ => {
                table.set_error(c"Exception store type is not P or N");
                return Err(EINVAL);
            }
        };
        let options = word.get(1..).filter(|rest| rest.len() > 1);
        Ok((
            kind,
            options.and_then(|rest| CStr::from_bytes_with_nul(rest).ok()),
        ))
    }

    /// The chunk size in sectors, 0 if the table names none, for devices with these logical blocks in
    /// bytes.
    pub(super) fn chunk_sectors(
        &self,
        table: &mut TargetTable<'_>,
        cow_block: u32,
        origin_block: u32,
    ) -> Result<u32> {
        use crate::format::{
            ChunkSize,
            ChunkSizeFault, //
        };

        let sectors = number(self.chunk_size).ok_or_else(|| {
            table.set_error(c"Invalid chunk size");
            EINVAL
        })?;
        if sectors == 0 {
            return Ok(0);
        }
        match ChunkSize::for_devices(sectors, cow_block, origin_block) {
            Ok(size) => Ok(size.sectors()),
            Err(fault) => {
                table.set_error(match fault {
                    ChunkSizeFault::Zero | ChunkSizeFault::NotPowerOfTwo => {
                        c"Chunk size is not a power of 2"
                    }
                    ChunkSizeFault::TooLarge => c"Chunk size is too high",
                    ChunkSizeFault::NotCowBlocks(_) | ChunkSizeFault::NotOriginBlocks(_) => {
                        c"Chunk size is not a multiple of device blocksize"
                    }
                });
                Err(EINVAL)
            }
        }
    }
}

impl Features {
    fn parse(table: &mut TargetTable<'_>, args: &[&CStr]) -> Result<Self> {
        let mut features = Self::default();
        let Some((count, args)) = args.split_first() else {
            return Ok(features);
        };
        let count = number(count).filter(|count| *count <= 2);
        let Some(args) = count.and_then(|count| args.get(..count as usize)) else {
            table.set_error(c"Invalid number of feature arguments");
            return Err(EINVAL);
        };
        for arg in args {
            if arg.to_bytes().eq_ignore_ascii_case(b"discard_zeroes_cow") {
                features.discard_zeroes_cow = true;
            } else if arg
                .to_bytes()
                .eq_ignore_ascii_case(b"discard_passdown_origin")
            {
                features.discard_passdown_origin = true;
            } else {
                table.set_error(c"Unrecognised feature requested");
                return Err(EINVAL);
            }
        }
        if features.discard_passdown_origin && !features.discard_zeroes_cow {
            table.set_error(c"discard_passdown_origin feature depends on discard_zeroes_cow");
            return Err(EINVAL);
        }
        Ok(features)
    }

    /// How many features are on.
    pub(super) fn count(self) -> u32 {
        u32::from(self.discard_zeroes_cow) + u32::from(self.discard_passdown_origin)
    }
}

/// A decimal number.
fn number(word: &CStr) -> Option<u32> {
    ::core::str::from_utf8(word.to_bytes()).ok()?.parse().ok()
}
