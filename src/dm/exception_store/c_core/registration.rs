// SPDX-License-Identifier: GPL-2.0-only

//! Making a store known to dm-snapshot.

use super::{
    adapter::Adapter,
    ffi,
    registry::ForeignType,
    CommitCallback, //
};
use crate::dm::{
    exception_store::ExceptionStore,
    message::{
        dm_err,
        dm_info, //
    }, //
};
use crate::DM_MSG_PREFIX;
use core::marker::PhantomData;
use kernel::{
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// A name under which dm-snapshot finds the store `T`, until it is dropped.
///
/// Tables that use the store pin the module, so a registration in a module's state cannot go away
/// under them.
///
/// # Invariants
///
/// `store_type` is registered; `displaced` had its name before and is not registered.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T> {
    #[pin]
    store_type: Opaque<ffi::dm_exception_store_type>,
    displaced: Option<ForeignType>,
    _store: PhantomData<T>,
}

// SAFETY: dm-snapshot accesses a registered type under its own lock; nothing here gives access to
// it.
unsafe impl<T: ExceptionStore<CommitCallback>> Sync for Registration<T> {}
// SAFETY: A type may be unregistered by any thread, and so may a displaced one be registered.
unsafe impl<T: ExceptionStore<CommitCallback>> Send for Registration<T> {}

impl<T: ExceptionStore<CommitCallback>> Registration<T> {
    /// Registers the store as `name`.
    ///
    /// If `takeover`, the type of dm-snapshot's own that has the name is unregistered first, and
    /// registered again when this registration goes away. A name that another module has is
    /// `EUCLEAN` then, and any that is taken is `EBUSY` without `takeover`.
    /// May sleep, and must be called from module initialisation: see [`ForeignType::find`].
    ///
    /// A table load can find the store, and pin a module whose initialisation is not over yet. So
    /// initialisation must not fail any more once a name that tables ask for is registered: that
    /// is "P" and "N", whatever else they are called.
    pub(crate) fn new(
        name: &'static CStr,
        module: &'static ThisModule,
        takeover: bool,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            store_type <- Opaque::new(Adapter::<T>::store_type(name, module)),
            displaced: if takeover { ForeignType::find(name)? } else { None },
            _: {
                if let Some(foreign) = &displaced {
                    foreign.unregister()?;
                }
                // SAFETY: The type is pinned and complete, and is unregistered by `drop` before its
                // memory is freed.
                let result = to_result(unsafe {
                    ffi::dm_exception_store_type_register(store_type.get())
                });
                if let Err(e) = result {
                    if let Some(foreign) = &displaced {
                        foreign.register();
                    }
                    dm_err!("cannot register exception store type {:?}: {:?}", name, e);
                    return Err(e);
                }
                if displaced.is_some() {
                    dm_info!("took exception store type {:?} over from dm-snapshot", name);
                }
            },
            _store: PhantomData,
        }? Error)
    }
}

#[pinned_drop]
impl<T> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type's invariant the type is registered. No table uses it: each would pin
        // the module, which then is not unloaded; and while the module was being initialised, it
        // did not fail after tables could ask for it, as `new` demands.
        unsafe { ffi::dm_exception_store_type_unregister(self.store_type.get()) };
        if let Some(foreign) = &self.displaced {
            foreign.register();
        }
    }
}
