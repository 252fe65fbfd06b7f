// SPDX-License-Identifier: GPL-2.0-only

//! What a target has counted, as JSON.

use crate::figures::Figures;
use crate::waits::Below;
use serde_json::{json, Map, Value};

/// The fields `figures` and `waits`, which are null where a target tells none.
pub fn figures_json(figures: Option<&Figures>) -> Map<String, Value> {
    let waits = figures.map(|figures| {
        let buckets = figures.waits().buckets().iter();
        let buckets = buckets.map(|bucket| {
            let mut object = below(bucket.below);
            object["count"] = bucket.count.into();
            object
        });
        buckets.collect::<Vec<Value>>()
    });
    let numbers = figures.map(|figures| {
        let numbers = figures.numbers();
        let numbers = numbers.map(|(name, number)| (name.to_owned(), number.into()));
        numbers.collect::<Map<String, Value>>()
    });
    Map::from_iter([
        ("figures".to_owned(), json!(numbers)),
        ("waits".to_owned(), json!(waits)),
    ])
}

/// A bound of waits.
pub fn below(below: Below) -> Value {
    json!({ "below_us": below.microseconds() })
}
