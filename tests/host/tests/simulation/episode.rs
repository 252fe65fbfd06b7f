// SPDX-License-Identifier: GPL-2.0-only

//! One run of a plan.

use crate::bio;
use crate::counts::Counts;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::world::World;
use host_tests::memory::{self, Failing};
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

/// What happens from outside with `seed`.
pub fn plan(seed: u64) -> Plan {
    Plan::random(&mut Rng::new(seed))
}

/// Runs `plan`, with `seed` for all that is left to chance. The error is what went wrong.
pub fn run(plan: &Plan, seed: u64) -> Result<Counts, String> {
    let mut world = None;
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(plan, seed));
        world.run(&plan.ops);
        world.counts
    }));
    memory::fail(Failing::Never);
    bio::without_power(|| drop(world));
    result.map_err(|_| LAST.take())
}

thread_local! {
    /// The last panic.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what a panic says, instead of printing it.
pub fn note_panic(panic: &PanicHookInfo<'_>) {
    LAST.set(panic.to_string());
}
