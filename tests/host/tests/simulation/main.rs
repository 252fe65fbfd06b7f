// SPDX-License-Identifier: GPL-2.0-only

//! The concurrent core of the targets, driven by one loop that owns time, order, faults and crashes.
//!
//! `SEED=` repeats one episode and says what happened; `EVENTS=` and `FIRST=` run more, from another
//! seed on; `SHRINK=no` leaves a failure as it is.

mod bio;
mod check;
mod counts;
mod disk;
mod episode;
mod history;
mod io;
mod layout;
mod manage;
mod merge;
mod plan;
mod rng;
mod shrink;
mod snapshot;
mod task;
mod trace;
mod worker;
mod world;

use counts::Counts;
use episode::run;
use std::panic;
use std::time::Instant;

/// Events in one run, at least.
const EVENTS: u64 = 3_000_000;

/// The last steps before a failure that are shown.
const SHOWN: usize = 400;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is no number")),
    )
}

/// Says how the episode of `seed` fails, and what is the least that fails in this way.
fn report(seed: u64, message: &str) -> ! {
    eprintln!("SEED={seed}: {message}");
    assert!(
        std::env::var_os("SHRINK").is_none_or(|shrink| shrink != "no"),
        "an episode failed"
    );
    let (plan, order) = shrink::shrink(&episode::plan(seed), seed);
    trace::start();
    let shrunk = run(&plan, order);
    let trace = trace::stop();
    for line in trace.iter().skip(trace.len().saturating_sub(SHOWN)) {
        eprintln!("{line}");
    }
    eprintln!("{:?}\n{:?}", plan.layout, plan.odds);
    for op in &plan.ops {
        eprintln!("{op:?}");
    }
    if let Err(message) = shrunk {
        eprintln!("shrunk to {} operations: {message}", plan.ops.len());
    }
    eprintln!("SEED={seed}: {message}");
    panic!("an episode failed");
}

#[test]
fn snapshots_are_right_whatever_happens_when() {
    let began = Instant::now();
    let mut total = Counts::default();
    let only = number("SEED");
    let mut seed = only.or(number("FIRST")).unwrap_or(1);
    let wanted = number("EVENTS").unwrap_or(EVENTS);
    panic::set_hook(Box::new(episode::note_panic));
    loop {
        match run(&episode::plan(seed), seed) {
            Ok(counts) => total.add(&counts),
            Err(message) => {
                eprintln!("{} events, {:?}", total.events, began.elapsed());
                report(seed, &message);
            }
        }
        if only.is_some() || total.events >= wanted {
            break;
        }
        seed += 1;
    }
    drop(panic::take_hook());
    println!("{:?}: {total:#?}", began.elapsed());
    if only.is_none() {
        total.check();
    }
}
