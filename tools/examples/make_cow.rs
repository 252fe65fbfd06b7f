// SPDX-License-Identifier: GPL-2.0-only

//! Makes a large COW file, with holes for its data, to measure the tools with.
//!
//! ```text
//! make_cow FILE RECORDS CHUNK_SECTORS [random|sequential]
//! ```
//!
//! The records name different old chunks, in an order that is random or ascending.

use snap_tools::dump::{Head, Visitor};
use snap_tools::output::Output;
use snap_tools::restore::Restorer;
use snap_tools::run::Run;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, records, chunk_sectors, rest @ ..] = args.as_slice() else {
        return Err("usage: make_cow FILE RECORDS CHUNK_SECTORS [random|sequential]".into());
    };
    let records: u64 = records.parse()?;
    let chunk_sectors: u32 = chunk_sectors.parse()?;
    let random = rest.first().is_none_or(|order| order == "random");
    let epa = u64::from(chunk_sectors) * 32;
    let areas = records / epa + 1;
    let target = Output::new(path.as_ref(), true);
    let mut restorer = Restorer::new(target, snap_tools::cow::Origin::UNKNOWN);
    restorer.head(&Head {
        chunk_sectors,
        valid: true,
        cow_sectors: (areas * (epa + 1) + 1) * u64::from(chunk_sectors),
        has_list: true,
    })?;
    // An odd factor permutes the numbers below a power of two.
    let mask = records.next_power_of_two() - 1;
    let old = (0..=mask)
        .map(|i| {
            if random {
                i.wrapping_mul(0x9e37_79b1) & mask
            } else {
                i
            }
        })
        .take(records as usize);
    for (record, old) in (0..).zip(old) {
        let new = 2 + record + record / epa;
        let run = Run {
            old,
            new,
            length: 1,
        };
        restorer.run(run)?;
    }
    restorer.end(records)?;
    Ok(())
}
