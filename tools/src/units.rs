// SPDX-License-Identifier: GPL-2.0-only

//! Sizes as people write and read them.

use crate::format::SECTOR_BYTES;
use std::fmt;

/// The letters of the units, each 1024 times the one before: KiB, MiB, …
const LETTERS: &str = "kmgtpe";

/// The unit that sizes are told in, by the letter that LVM's `--units` has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units(char);

impl Units {
    /// Sectors of 512 bytes.
    pub const SECTORS: Self = Self('s');

    /// The unit that `text` names, for a command line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut letters = text.chars();
        match (letters.next(), letters.next()) {
            (Some(letter), None) if "hHbs".contains(letter) => Ok(Self(letter)),
            (Some(letter), None) if LETTERS.contains(letter.to_ascii_lowercase()) => {
                Ok(Self(letter))
            }
            _ => {
                Err("one of h, b, s, k, m, g, t, p, e; a capital stands for powers of 1000".into())
            }
        }
    }

    /// `sectors` in this unit, to be shown.
    pub fn show(self, sectors: u64) -> Shown {
        let bytes = u128::from(sectors) * u128::from(SECTOR_BYTES);
        if self.0 == 's' {
            return Shown {
                bytes,
                unit: SECTOR_BYTES.into(),
                name: "sectors".into(),
            };
        }
        let (base, power) = (self.base(), self.power(bytes));
        let name = match LETTERS.as_bytes().get(power.wrapping_sub(1)) {
            None => "B".into(),
            Some(letter) if base == 1000 && *letter == b'k' => "kB".into(),
            Some(letter) => {
                let letter = char::from(letter.to_ascii_uppercase());
                format!("{letter}{}", if base == 1024 { "iB" } else { "B" })
            }
        };
        Shown {
            bytes,
            unit: u128::pow(base, power as u32),
            name,
        }
    }

    /// `bytes` in this unit in few columns, as LVM has it: `4k`, `12.3g`, with a capital letter for
    /// powers of 1000. A unit that fits takes five columns at most.
    pub fn short(self, bytes: u128) -> String {
        let (base, power) = (self.base(), self.power(bytes));
        let (unit, letter) = match (self.0, LETTERS.as_bytes().get(power.wrapping_sub(1))) {
            ('s', _) => (SECTOR_BYTES.into(), 's'),
            (_, None) => (1, 'b'),
            (_, Some(letter)) => (u128::pow(base, power as u32), char::from(*letter)),
        };
        let letter = match base {
            1000 => letter.to_ascii_uppercase(),
            _ => letter,
        };
        let (whole, tenths) = (bytes / unit, bytes % unit * 10 / unit);
        match whole {
            0..=99 if bytes % unit != 0 => format!("{whole}.{tenths}{letter}"),
            _ => format!("{whole}{letter}"),
        }
    }

    /// What the powers are of.
    fn base(self) -> u128 {
        if self.0.is_ascii_uppercase() {
            1000
        } else {
            1024
        }
    }

    /// Which power of the base stands for the unit; the largest that fits `bytes`, where none was
    /// asked for.
    fn power(self, bytes: u128) -> usize {
        match self.0 {
            'b' | 's' => 0,
            'h' | 'H' => (1..=LETTERS.len())
                .rev()
                .find(|power| bytes >= u128::pow(self.base(), *power as u32))
                .unwrap_or(0),
            letter => LETTERS
                .find(letter.to_ascii_lowercase())
                .map_or(0, |at| at + 1),
        }
    }
}

/// A size in some unit: a whole number, or one with two places.
#[derive(Clone, Debug)]
pub struct Shown {
    bytes: u128,
    unit: u128,
    name: String,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.bytes / self.unit, self.bytes % self.unit);
        let number = match rest {
            0 => whole.to_string(),
            _ => format!("{whole}.{:02}", rest * 100 / self.unit),
        };
        f.pad(&format!("{number} {}", self.name))
    }
}

/// Reads a size, in sectors: a number of sectors, or a number with a unit, as LVM takes them: `b`
/// for bytes, `s` for sectors, `k`, `m`, `g`, `t`, `p`, `e` for KiB, MiB, … (in capitals, too), also
/// written `KiB` or `K`. It must be whole sectors.
pub fn sectors(text: &str) -> Result<u64, String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").unwrap_or(&unit);
    let bytes: u128 = match unit {
        "" | "s" => SECTOR_BYTES.into(),
        "b" => 1,
        _ => {
            let power = LETTERS.find(unit).filter(|_| unit.len() == 1);
            let power =
                power.ok_or("the unit must be b, s, k, m, g, t, p or e, as in 4k or 4KiB")?;
            1 << (10 * (power + 1))
        }
    };
    let (whole, places) = number.split_once('.').unwrap_or((number, ""));
    let wrong = || format!("`{number}` is no number");
    if whole.is_empty() || places.len() > 9 || number.ends_with('.') || places.contains('.') {
        return Err(wrong());
    }
    let digits: u128 = format!("{whole}{places}").parse().map_err(|_| wrong())?;
    let scaled = digits.checked_mul(bytes).ok_or("it is too large")?;
    let parts = 10_u128.pow(places.len() as u32) * u128::from(SECTOR_BYTES);
    if scaled % parts != 0 {
        return Err("it is not a whole number of sectors of 512 bytes".into());
    }
    u64::try_from(scaled / parts).map_err(|_| "it is too large".into())
}

/// The same for a chunk size.
pub fn chunk_sectors(text: &str) -> Result<u32, String> {
    u32::try_from(sectors(text)?).map_err(|_| "it is too large".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_lvm_reads() {
        for (text, expected) in [
            ("0", 0),
            ("8", 8),
            ("8s", 8),
            ("4096b", 8),
            ("4k", 8),
            ("4K", 8),
            ("4KiB", 8),
            ("0.5k", 1),
            ("1.5 MiB", 3072),
            ("1g", 1 << 21),
            ("2t", 1 << 32),
            ("1p", 1 << 41),
            ("7e", 7 << 51),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(sectors(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "k",
            "-1",
            "4x",
            "4kk",
            "4km",
            "1b",
            "0.3k",
            "1.",
            ".5k",
            "1.2.3k",
            "4 096",
            "18446744073709551616",
            "99999999999999999999999999999999999999999e",
            "4kb",
        ] {
            assert!(sectors(text).is_err(), "{text}: {:?}", sectors(text));
        }
        assert!(chunk_sectors("2t").is_err());
    }

    #[test]
    fn shows_what_lvm_shows() {
        let show = |unit: &str, sectors| Units::parse(unit).unwrap().show(sectors).to_string();
        assert_eq!(show("h", 8), "4 KiB");
        assert_eq!(show("h", 1), "512 B");
        assert_eq!(show("h", 3), "1.50 KiB");
        assert_eq!(show("h", (1 << 21) - 1), "1023.99 MiB");
        assert_eq!(show("h", u64::MAX), "8191.99 EiB");
        assert_eq!(show("H", 2000), "1.02 MB");
        assert_eq!(show("K", 8), "4.09 kB");
        assert_eq!(show("s", 8), "8 sectors");
        assert_eq!(show("b", 8), "4096 B");
        assert_eq!(show("m", 1), "0.00 MiB");
        for wrong in ["", "r", "kk", "é", "S"] {
            assert!(Units::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shows_in_few_columns() {
        let short = |unit: &str, bytes| Units::parse(unit).unwrap().short(bytes);
        assert_eq!(short("h", 0), "0b");
        assert_eq!(short("h", 512), "512b");
        assert_eq!(short("h", 4096), "4k");
        assert_eq!(short("h", 1536), "1.5k");
        assert_eq!(short("h", 1024 * 1024 - 1), "1023k");
        assert_eq!(short("h", 100 * 1024 + 1), "100k");
        assert_eq!(short("h", 99 * 1024 + 1023), "99.9k");
        assert_eq!(short("H", 99_990), "99.9K");
        assert_eq!(short("s", 4096), "8s");
        assert_eq!(short("b", 4096), "4096b");
        assert_eq!(short("g", 4096), "0.0g");
        assert_eq!(short("M", 4_000_000), "4M");
    }

    proptest! {
        #[test]
        fn a_unit_that_fits_takes_five_columns(bytes in any::<u64>(), shift in 0_u32..64) {
            for unit in ["h", "H"] {
                let shown = Units::parse(unit).unwrap().short(u128::from(bytes >> shift));
                prop_assert!(shown.len() <= 5, "{}", shown);
            }
        }

        #[test]
        fn what_is_shown_whole_reads_the_same(number in any::<u64>(), shift in 0_u32..64) {
            let size = number >> shift;
            for unit in ["s", "b", "h", "k"] {
                let shown = Units::parse(unit).unwrap().show(size).to_string();
                if shown.contains('.') {
                    continue;
                }
                let read = sectors(&shown.replace(" sectors", "s").replace(" B", "b"));
                prop_assert_eq!(read, Ok(size), "{}", shown);
            }
        }

        #[test]
        fn nothing_panics(text in "[0-9.kKmM iBbseE]{0,30}") {
            let _ = sectors(&text);
        }
    }
}
