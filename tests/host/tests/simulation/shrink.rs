// SPDX-License-Identifier: GPL-2.0-only

//! Makes a plan that fails as short as can be.

use crate::episode::run;
use crate::plan::Plan;
use std::time::{Duration, Instant};

/// How long to try.
const TIME: Duration = Duration::from_secs(20);

/// Orders of events that are tried for each plan.
const SEEDS: u64 = 60;

/// Drops operations and odds from `plan`, which fails with `seed`, while it still fails. Returns the
/// seed of the order with it.
pub fn shrink(plan: &Plan, seed: u64) -> (Plan, u64) {
    let began = Instant::now();
    let (mut best, mut seed) = (plan.clone(), seed);
    let mut attempt = |candidate: Plan, best: &mut Plan| {
        let seeds = (0..SEEDS).map(|n| seed.wrapping_add(n));
        let mut failing = seeds.filter(|seed| run(&candidate, *seed).is_err());
        let found = failing.next();
        if let Some(found) = found {
            seed = found;
            *best = candidate;
        }
        found.is_some()
    };
    let mut calm = best.clone();
    calm.odds.fault = 0;
    attempt(calm, &mut best);
    let mut rich = best.clone();
    rich.odds.no_memory = 0;
    attempt(rich, &mut best);
    let mut size = best.ops.len() / 2;
    while size > 0 && began.elapsed() < TIME {
        let (mut at, mut shorter) = (0, false);
        while at < best.ops.len() && began.elapsed() < TIME {
            let mut candidate = best.clone();
            let end = (at + size).min(candidate.ops.len());
            candidate.ops.drain(at..end);
            if attempt(candidate, &mut best) {
                shorter = true;
            } else {
                at += size;
            }
        }
        if !shorter || size > 1 {
            size /= 2;
        }
    }
    (best, seed)
}
