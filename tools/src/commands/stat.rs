// SPDX-License-Identifier: GPL-2.0-only

//! `snap_stat`

use super::figures::figures_json;
use super::Tool;
use crate::active::{active, Active};
use crate::cow::{Cow, Origin};
use crate::device::Access;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::lvm::{chunk_option, Volumes, CHUNK_SECTORS};
use crate::mapper::Mapper;
use crate::report::Report;
use crate::stat::{stat, Live, Stat as Found, Usage};
use crate::units::Units;
use clap::Args;
use serde_json::{json, Value};
use std::path::PathBuf;

#[derive(Args)]
pub struct Stat {
    /// The COW device, a file that holds its content, the VG/LV of a snapshot that is not active,
    /// or the device-mapper name of one that is
    #[arg(value_name = "INPUT|NAME")]
    input: PathBuf,

    /// The unit of what is told: h, b, s, k, m, g, t, p, e as LVM has them; JSON is in sectors
    #[arg(long, value_name = "UNIT", default_value = "h", value_parser = Units::parse)]
    units: Units,

    /// Write the result as a JSON object
    #[arg(long)]
    json: bool,

    /// Suppress output messages, return only exit code
    #[arg(short, long)]
    quiet: bool,
}

impl Tool for Stat {
    const NAME: &'static str = "snap_stat";
    const ABOUT: &'static str = "Tell how a snapshot's COW device is used";
    const LONG_ABOUT: &'static str = "\
Tells what is used and free, the share of metadata, how long the runs of records are, and what \
other chunk sizes would have cost for the same writes to the origin. The advice is the largest \
chunk size that would have taken at most a tenth more space: larger chunks mean fewer copies.

Of an active snapshot, given by its device-mapper name, the sizes are known, and what its target \
counts (dmsetup message NAME 0 stats), which the kernel's own does not; a path that exists is taken \
for a COW device.";
    const EXTRA: &'static str = "\
EXAMPLES
  snap_stat /dev/vg/cow
  snap_stat --json vg-snap";

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn run(self, report: &Report, volumes: &Volumes) -> Result<bool> {
        let path = &self.input;
        let name = path.to_str().filter(|name| !name.contains('/'));
        if let Some(name) = name.filter(|_| !path.exists()) {
            let mapper = Mapper::open()
                .map_err(|e| Error::Refused(format!("{name}: there is no such file, and {e}")))?;
            let active = active(&mapper, name)?;
            if self.json {
                report.json(&active_json(&active));
            } else {
                tell_active(&active, self.units, report);
            }
            return Ok(matches!(active.state, Live::Active(_)));
        }
        let named = volumes.cow(path)?;
        let cow = Cow::open(&named.cow, Access::Read, Origin::UNKNOWN)?;
        let found = stat(&cow.watching(&Interrupt::watch()?))?;
        if self.json {
            report.json(&to_json(&found));
        } else {
            tell(&found, self.units, report);
        }
        Ok(true)
    }
}

/// `part` of `whole` in percent, for people.
fn percent(part: u64, whole: u64) -> String {
    format!("{:.1}%", part as f64 * 100.0 / whole.max(1) as f64)
}

fn tell_usage(usage: &Usage, units: Units, report: &Report) {
    let line = |name, sectors: u64, share: String| {
        let size = units.show(sectors);
        report.line(format_args!("{name:<12}{size:>16}{share}"));
    };
    line("chunk size", usage.chunk_size, String::new());
    line("total", usage.total, String::new());
    let used = percent(usage.used, usage.total);
    line("used", usage.used, format!("  {used}"));
    line("free", usage.free(), String::new());
    let metadata = percent(usage.metadata, usage.used);
    line("metadata", usage.metadata, format!("  {metadata} of used"));
}

fn usage_json(usage: &Usage) -> Value {
    json!({
        "chunk_size": usage.chunk_size,
        "total": usage.total,
        "used": usage.used,
        "free": usage.free(),
        "metadata": usage.metadata,
    })
}

fn tell(found: &Found, units: Units, report: &Report) {
    tell_usage(&found.usage(), units, report);
    report.line(format_args!("valid       {:>16}", found.header.valid));
    report.line(format_args!(
        "records     {:>16} in {} runs",
        found.records, found.runs
    ));
    for (class, count) in found.run_lengths.iter().enumerate() {
        let (from, to) = (1_u64 << class, (2_u64 << class) - 1);
        report.line(format_args!("  runs of {from} to {to}: {count}"));
    }
    report.line("chunk sizes for the same writes:");
    for size in &found.sizes {
        report.line(format_args!(
            "  {:>10}: {} chunks, {}",
            units.show(size.chunk_sectors.into()),
            size.chunks,
            units.show(size.sectors)
        ));
    }
    let advice = found.advice();
    let shown = units.show(advice.into());
    let nearest = advice.clamp(*CHUNK_SECTORS.start(), *CHUNK_SECTORS.end());
    let paste = chunk_option(nearest).unwrap_or_default();
    let or_near = match nearest == advice {
        true => "",
        false => ", or as near as LVM can",
    };
    report.line(format_args!(
        "advice: chunk size {shown}{or_near}: lvcreate -s -c {paste}"
    ));
}

fn to_json(found: &Found) -> Value {
    let sizes: Vec<Value> = found
        .sizes
        .iter()
        .map(|size| {
            json!({
                "chunk_size": size.chunk_sectors,
                "chunks": size.chunks,
                "sectors": size.sectors,
            })
        })
        .collect();
    let mut object = usage_json(&found.usage());
    object["valid"] = found.header.valid.into();
    object["records"] = found.records.into();
    object["runs"] = found.runs.into();
    object["run_lengths"] = json!(found.run_lengths);
    object["sizes"] = sizes.into();
    object["advice"] = found.advice().into();
    object
}

fn tell_active(active: &Active, units: Units, report: &Report) {
    match &active.state {
        Live::Active(usage) => tell_usage(usage, units, report),
        Live::Other(status) => report.line(format_args!("status: {status}")),
    }
    let Some(figures) = &active.figures else {
        return;
    };
    report.line("counted by the target:");
    for (name, number) in figures.numbers() {
        report.line(format_args!("  {name:<24}{number:>16}"));
    }
    for bucket in figures.waits().buckets() {
        let what = match bucket.below.microseconds() {
            Some(bound) => format!("waits below {bound} us"),
            None => "longer waits".into(),
        };
        report.line(format_args!("  {what:<24}{:>16}", bucket.count));
    }
}

fn active_json(active: &Active) -> Value {
    let mut object = match &active.state {
        Live::Active(usage) => {
            let mut object = usage_json(usage);
            object["status"] = "active".into();
            object
        }
        Live::Other(status) => json!({ "status": status }),
    };
    if let Value::Object(object) = &mut object {
        object.append(&mut figures_json(active.figures.as_ref()));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::generate::SCHEMA;
    use crate::figures::Figures;

    /// Whether the schema has `value` as what it calls `definition`.
    fn is_valid(definition: &str, value: &Value) -> bool {
        let all: Value = serde_json::from_str(SCHEMA).unwrap();
        let reference = format!("#/$defs/{definition}");
        let schema = json!({ "$ref": reference, "$defs": all["$defs"] });
        jsonschema::is_valid(&schema, value)
    }

    #[test]
    fn active_snapshots_are_as_the_schema_has_them() {
        let json_of = |status: &str, answer: &str| {
            active_json(&Active {
                name: "snap".into(),
                start: 0,
                disk: None,
                cow_number: "254:2".into(),
                origin_number: "254:1".into(),
                origin: "origin".into(),
                merging: false,
                chunk_size: 8,
                state: Live::parse(status, "254:1 254:2 P 8"),
                figures: Figures::parse(answer),
            })
        };
        for answer in ["", "exceptions 5\nwaits_below_64_us 5\nwaits_longer 1\n"] {
            let active = json_of("7808/16777216 32", answer);
            assert_eq!(active["used"], 7808);
            assert!(is_valid("stat_active", &active), "{active}");
            let other = json_of("Merge failed", answer);
            assert!(is_valid("stat_other", &other), "{other}");
            assert!(!is_valid("stat_active", &other) && !is_valid("stat_other", &active));
        }
        let told = json_of("7808/16777216 32", "exceptions 5\nwaits_longer 1\n");
        assert_eq!(told["figures"], json!({ "exceptions": 5 }));
        assert_eq!(told["waits"], json!([{ "below_us": null, "count": 1 }]));
    }
}
