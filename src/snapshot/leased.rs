// SPDX-License-Identifier: GPL-2.0-only

//! Values that are shared, and that their owner drops.

use ::core::ops::Deref;
use kernel::{
    prelude::*,
    sync::{
        Arc,
        Completion, //
    }, //
};

/// The owner of a value that others hold for a while.
///
/// A value with a workqueue or a kcopyd client must not be dropped by what runs there, which would
/// wait for itself. So the owner waits until nobody else has the value, and drops it.
pub(super) struct Owner<T: Quiesce> {
    // Taken only when the owner goes away.
    leased: Option<Leased<T>>,
    over: Arc<Completion>,
}

/// What has to happen between the end of the last lease and the drop of the value.
pub(super) trait Quiesce {
    /// Waits until nothing of the value's own runs any more. May sleep.
    fn quiesce(&self);
}

/// A share in a value. May be dropped in any context: it is never the last.
pub(super) struct Leased<T> {
    // Dropped before the lease, so that the owner waits for that.
    value: Arc<T>,
    lease: Arc<Lease>,
}

/// Is there as long as somebody has a share. Its end completes what the owner waits for.
struct Lease(Arc<Completion>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.complete_all();
    }
}

impl<T: Quiesce> Owner<T> {
    /// Owns `value`. May sleep.
    pub(super) fn new(value: Arc<T>) -> Result<Self> {
        let over = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let lease = Arc::new(Lease(over.clone()), GFP_KERNEL)?;
        Ok(Self {
            leased: Some(Leased { value, lease }),
            over,
        })
    }

    /// Whether `leased` is a share of its value.
    pub(super) fn owns(&self, leased: &Leased<T>) -> bool {
        let own = self.leased.as_ref();
        own.is_some_and(|own| Arc::ptr_eq(&own.value, &leased.value))
    }

    /// A share.
    pub(super) fn lease(&self) -> Option<Leased<T>> {
        self.leased.clone()
    }
}

impl<T: Quiesce> Drop for Owner<T> {
    fn drop(&mut self) {
        let Some(Leased { value, lease }) = self.leased.take() else {
            return;
        };
        drop(lease);
        self.over.wait_for_completion();
        value.quiesce();
    }
}

impl<T> Leased<T> {
    /// The value as what work items are made of. What is made of it must be over when
    /// [`Quiesce::quiesce`] returns.
    pub(super) fn arc(&self) -> &Arc<T> {
        &self.value
    }
}

impl<T> Clone for Leased<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            lease: self.lease.clone(),
        }
    }
}

impl<T> Deref for Leased<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
