// SPDX-License-Identifier: GPL-2.0-only

//! The atomics of the concurrent part, all of which are sequentially consistent. On the host a test
//! with threads has its own in their place (`tests/host/tests/threads`), which try out their order.

pub use core::sync::atomic::{
    AtomicU32,
    AtomicU64,
    Ordering::SeqCst, //
};
