// SPDX-License-Identifier: GPL-2.0-only

//! Numbers and times in few columns.

use crate::waits::Below;

/// A share in percent, in five columns at most.
pub fn percent(share: f64) -> String {
    // Cut, so that only what is full is 100 %; a share such as 0.7 may be a bit less than that.
    let tenths = (share.clamp(0.0, 1.0) * 1000.0 + 1e-9) as u32;
    match tenths {
        1000 => "100%".into(),
        _ => format!("{}.{}%", tenths / 10, tenths % 10),
    }
}

/// A number, with K, M, … for powers of 1000, in four columns at most: it is cut.
pub fn count(number: f64) -> String {
    let mut rest = number.max(0.0);
    let mut letter = "";
    for next in ["K", "M", "G", "T", "P", "E"] {
        if rest < 1000.0 {
            break;
        }
        rest /= 1000.0;
        letter = next;
    }
    let tenths = (rest * 10.0) as u64;
    match tenths {
        0..=99 if tenths % 10 != 0 => format!("{}.{}{letter}", tenths / 10, tenths % 10),
        _ => format!("{}{letter}", tenths / 10),
    }
}

/// Seconds, in five columns at most: it is cut.
pub fn time(seconds: f64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    const YEAR: u64 = 365 * DAY;
    // CAST: It saturates.
    let seconds = seconds.max(0.0) as u64;
    if seconds < MINUTE {
        format!("{seconds}s")
    } else if seconds < HOUR {
        format!("{}m", seconds / MINUTE)
    } else if seconds < 10 * HOUR {
        format!("{}h{:02}m", seconds / HOUR, seconds % HOUR / MINUTE)
    } else if seconds < 4 * DAY {
        format!("{}h", seconds / HOUR)
    } else if seconds < 1000 * DAY {
        format!("{}d", seconds / DAY)
    } else if seconds < 1000 * YEAR {
        format!("{}y", seconds / YEAR)
    } else {
        ">999y".into()
    }
}

/// What a wait stayed below, in five columns at most: 1ms are 1024 microseconds.
pub fn wait(below: Below) -> String {
    match below {
        Below::Microseconds(bound) if bound < 1000 => format!("{bound}us"),
        Below::Microseconds(bound) if bound < 1_000_000 => format!("{}ms", bound / 1000),
        Below::Microseconds(bound) => time(bound as f64 / 1e6),
        Below::Nothing => "long".into(),
    }
}

/// `text` in `columns` columns at most, with `~` for what was cut. What is no plain character, which
/// a terminal could take for a command, is `?`.
pub fn cut(text: &str, columns: usize) -> String {
    let plain = |c: char| match c {
        ' '..='~' => c,
        _ => '?',
    };
    let mut shown: String = text.chars().map(plain).collect();
    if shown.len() > columns {
        shown.truncate(columns.saturating_sub(1));
        if columns > 0 {
            shown.push('~');
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_forms() {
        assert_eq!(
            [0.0, 0.1234, 0.9999, 1.0].map(percent),
            ["0.0%", "12.3%", "99.9%", "100%"]
        );
        assert_eq!(
            [0.0, 0.25, 2.5, 10.0, 12.3, 999.9, 1000.0, 1234.0, 99_999.0, 2e6].map(count),
            ["0", "0.2", "2.5", "10", "12", "999", "1K", "1.2K", "99K", "2M"]
        );
        assert_eq!(
            [0.9, 59.0, 60.0, 3599.0, 3660.0, 36_000.0, 345_600.0, 1e8, 1e300].map(time),
            ["0s", "59s", "1m", "59m", "1h01m", "10h", "4d", "3y", ">999y"]
        );
        let waits = [1, 512, 1024, 524_288, 1_048_576, 4_194_304];
        assert_eq!(
            waits.map(|bound| wait(Below::Microseconds(bound))),
            ["1us", "512us", "1ms", "524ms", "1s", "4s"]
        );
        assert_eq!(wait(Below::Nothing), "long");
    }

    #[test]
    fn what_is_cut_is_plain() {
        assert_eq!(cut("vg-snap", 7), "vg-snap");
        assert_eq!(cut("vg-snap", 6), "vg-sn~");
        assert_eq!(cut("vg-snap", 1), "~");
        assert_eq!(cut("vg-snap", 0), "");
        assert_eq!(cut("a\x1b[2Jü", 9), "a?[2J?");
    }

    proptest! {
        #[test]
        fn they_fit(bits in any::<u64>(), shift in 0_u32..64, float in any::<f64>()) {
            for number in [(bits >> shift) as f64, float] {
                prop_assert!(percent(number).len() <= 5);
                prop_assert!(time(number).len() <= 5, "{}", time(number));
                if number < 1e20 {
                    prop_assert!(count(number).len() <= 4, "{}", count(number));
                }
            }
            prop_assert!(wait(Below::Microseconds(bits >> shift)).len() <= 5);
        }
    }
}
