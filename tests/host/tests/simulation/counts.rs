// SPDX-License-Identifier: GPL-2.0-only

//! What has happened, so that it can be seen that everything does.

macro_rules! counts {
    ($($name:ident),* $(,)?) => {
        /// How often what has happened.
        #[derive(Clone, Copy, Default, Debug)]
        pub struct Counts {
            $(pub $name: u64,)*
        }

        impl Counts {
            /// Adds what happened in another episode.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Whether everything happened.
            pub fn check(&self) {
                $(assert!(self.$name > 0, "{} never happens", stringify!($name));)*
            }
        }
    };
}

counts! {
    events,
    reads,
    writes,
    copies,
    copied_ahead,
    given_up_ahead,
    early_ends,
    overlaid,
    stable_copies,
    flushes_saved,
    flush_waits,
    shared_copies,
    full_writes,
    cuts,
    origin_waits,
    snapshot_waits,
    epoch_waits,
    no_spare,
    no_memory,
    overflows,
    refusals,
    invalidated,
    failed_copies,
    created,
    removed,
    handovers,
    rebuilds,
    merges,
    merged_runs,
    merged,
    merge_ahead,
    merge_covers,
    merge_splits,
    merge_releases,
    merge_stops,
    copied_again,
    merge_waits,
    merge_failures,
    given_up,
    crashes,
}
