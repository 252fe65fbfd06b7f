// SPDX-License-Identifier: GPL-2.0-only

//! Who waits for a commit.

/// Who waits for an exception to be recorded, and what happens then.
pub(crate) trait Completion: Send + 'static {
    /// Takes note of whether the exception is on stable storage.
    ///
    /// Called once, in process context and with none of the store's locks held: a failure can end
    /// in [`ExceptionStore::drop_snapshot`](super::ExceptionStore::drop_snapshot). May sleep, but
    /// not wait for a later commit of the same store.
    fn complete(self, success: bool);
}
