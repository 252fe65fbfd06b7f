// SPDX-License-Identifier: GPL-2.0-only

//! What happens from outside: the requests of users, and what an administrator does.

use crate::layout::Layout;
use crate::rng::Rng;
use host_tests::snapshot::core::AheadLimits;

/// One thing that happens from outside. Where it makes no sense it does not happen. Snapshots are
/// numbered by their age among those that there are.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// A write to the origin, or a snapshot.
    Write {
        snapshot: Option<usize>,
        sector: u64,
        sectors: u64,
        fua: bool,
    },
    Read {
        snapshot: Option<usize>,
        sector: u64,
        sectors: u64,
    },
    Flush {
        snapshot: Option<usize>,
    },
    /// A new snapshot of the origin's first sectors.
    Create {
        shift: u32,
        sectors: u64,
        chunks: u64,
    },
    /// A snapshot is removed.
    Remove {
        snapshot: usize,
    },
    /// Another table with the same snapshot takes over. If `rebuilt`, all is loaded anew.
    HandOver {
        snapshot: usize,
        more_chunks: u64,
        rebuilt: bool,
    },
    /// A snapshot is declared invalid.
    Invalidate {
        snapshot: usize,
    },
    /// A snapshot begins to be merged.
    Merge {
        snapshot: usize,
    },
    /// Merging stops or goes on.
    Pause,
    Resume,
    /// The power fails and is back again.
    Crash,
}

/// How likely what is.
#[derive(Clone, Debug)]
pub struct Odds {
    /// Of 1,000 steps, how many begin the next operation if it can begin.
    pub hurry: u64,
    /// Of 1,000 requests to devices, how many fail.
    pub fault: u64,
    /// One allocation of so many fails; 0 is none.
    pub no_memory: u64,
    /// Of 1,000 choices, how many are of tasks instead of requests to devices.
    pub tasks: u64,
    /// Of 1,000 requests to devices, how many take very long.
    pub stall: u64,
    /// The same for a snapshot's reads of the origin.
    pub stall_reads: u64,
    /// Of 1,000 writes that need a copy and could go on, how many wait a little instead.
    pub linger: u64,
    /// Of 1,000 writes to the origin, how many begin where the last one ended.
    pub sequence: u64,
    /// How far is copied ahead.
    pub ahead: AheadLimits,
}

/// A world and what happens to it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub layout: Layout,
    pub odds: Odds,
    pub ops: Vec<Op>,
}

/// Chunk sizes, as binary logarithms of sectors.
const SHIFTS: [u32; 7] = [0, 1, 2, 2, 3, 3, 4];

impl Plan {
    /// A plan of its own for each seed. What is frequent in it differs.
    pub fn random(rng: &mut Rng) -> Self {
        let layout = Layout::random(rng);
        let odds = Odds {
            hurry: rng.pick(&[20, 80, 200, 500]),
            fault: rng.pick(&[0, 0, 1, 5, 20]),
            no_memory: rng.pick(&[0, 0, 100, 20, 5]),
            tasks: rng.pick(&[200, 500, 500, 800]),
            stall: rng.pick(&[0, 0, 10, 100]),
            stall_reads: rng.pick(&[0, 0, 50, 300]),
            linger: rng.pick(&[0, 100, 500]),
            sequence: rng.pick(&[0, 300, 900]),
            // What is not used must not be copied.
            ahead: if layout.is_whole() {
                AheadLimits {
                    first: rng.pick(&[1, 4, 8]),
                    most: rng.pick(&[0, 8, 32]),
                }
            } else {
                AheadLimits::NONE
            },
        };
        let weights: [u64; 9] = [
            rng.between(1, 20),       // write to the origin
            rng.between(0, 15),       // read from it
            rng.between(0, 15),       // write to a snapshot
            rng.between(0, 20),       // read from one
            rng.between(0, 4),        // flush
            rng.between(0, 2),        // snapshots that come and go
            rng.between(0, 2),        // handovers
            rng.pick(&[0, 2, 6, 15]), // merges
            rng.between(0, 1),        // crashes
        ];
        let shifts: Vec<u32> = match rng.below(3) {
            0 => vec![rng.pick(&SHIFTS)],
            1 => vec![rng.pick(&SHIFTS), rng.pick(&SHIFTS)],
            _ => SHIFTS.to_vec(),
        };
        let create = |rng: &mut Rng| Self::create(&layout, &shifts, rng);
        let small = rng.chance(500);
        let total = weights.iter().sum();
        let count = rng.between(40, 250) as usize;
        let mut ops: Vec<Op> = (0..rng.between(1, 4)).map(|_| create(rng)).collect();
        let mut end = 0;
        while ops.len() < count {
            let mut at = rng.below(total);
            let kind = weights.iter().position(|weight| {
                let here = at < *weight;
                at = at.wrapping_sub(*weight);
                here
            });
            let size = if small {
                rng.between(1, 8)
            } else {
                rng.between(1, 40)
            };
            let (mut sector, mut sectors) = layout.request(rng, size);
            let kind = kind.unwrap_or(0);
            if kind == 0 {
                if rng.chance(odds.sequence) {
                    (sector, sectors) = layout.request_at(end, size).unwrap_or((sector, sectors));
                }
                end = sector + sectors;
            }
            let snapshot = rng.index(4);
            let which = rng.chance(500).then_some(snapshot);
            let fua = rng.chance(150);
            ops.push(match kind {
                0 => Op::Write {
                    snapshot: None,
                    sector,
                    sectors,
                    fua,
                },
                1 => Op::Read {
                    snapshot: None,
                    sector,
                    sectors,
                },
                2 => Op::Write {
                    snapshot: Some(snapshot),
                    sector,
                    sectors,
                    fua,
                },
                3 => Op::Read {
                    snapshot: Some(snapshot),
                    sector,
                    sectors,
                },
                4 => Op::Flush { snapshot: which },
                5 => match rng.below(10) {
                    0..6 => create(rng),
                    6..9 => Op::Remove { snapshot },
                    _ => Op::Invalidate { snapshot },
                },
                6 => Op::HandOver {
                    snapshot,
                    more_chunks: rng.pick(&[0, 0, 20]),
                    rebuilt: rng.chance(500),
                },
                7 => match rng.below(3) {
                    0 => Op::Merge { snapshot },
                    1 => Op::Pause,
                    _ => Op::Resume,
                },
                _ => Op::Crash,
            });
        }
        Self { layout, odds, ops }
    }

    fn create(layout: &Layout, shifts: &[u32], rng: &mut Rng) -> Op {
        let sectors = if rng.chance(600) {
            layout.end()
        } else {
            layout.sector(rng.index(layout.len())) + 1
        };
        Op::Create {
            shift: rng.pick(shifts),
            sectors,
            chunks: rng.pick(&[5, 20, 60, 400, 400]),
        }
    }
}
