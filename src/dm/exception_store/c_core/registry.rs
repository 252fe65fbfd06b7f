// SPDX-License-Identifier: GPL-2.0-only

//! Finding the types that dm-snapshot itself registered.
//!
//! dm-snapshot keeps the types in a list under a lock, both private. A type of our own hangs in
//! that list while it is registered, and from it all others can be reached.

use super::ffi::{
    self,
    dm_exception_store_type, //
};
use crate::dm::{
    message::dm_err,
    unclean, //
};
use crate::DM_MSG_PREFIX;
use core::mem::{
    offset_of,
    MaybeUninit, //
};
use core::ptr;
use kernel::{
    bindings,
    error::to_result,
    ffi::c_char,
    prelude::*,
    types::Opaque, //
};

/// The names that dm-snapshot and this module register.
const KNOWN_NAMES: [&[u8]; 4] = [b"persistent", b"P", b"transient", b"N"];

/// The name of a type that is registered only while the list is looked through.
const PROBE_NAME: &CStr = c"dm-snap-persistent-probe";

/// Room for the longest known name and its NUL.
const NAME_ROOM: usize = 16;

/// A type of dm-snapshot's own.
///
/// # Invariants
///
/// The pointer is to a `struct dm_exception_store_type` in dm-snapshot's static data, which
/// outlives this module, since this module imports symbols of dm-snapshot.
pub(super) struct ForeignType(*mut dm_exception_store_type);

impl ForeignType {
    /// Finds the type that has the name `name`; `None` if nobody has it.
    ///
    /// Refuses with `EUCLEAN`, logs why, and changes nothing if the list is not what it must be:
    /// every node linked both ways, every name known, none twice, and `name` dm-snapshot's.
    ///
    /// The list is read without its lock, so this is for module initialisation: the list changes
    /// only when dm-snapshot or another store is loaded or unloaded. dm-snapshot cannot be
    /// unloaded now, and other stores are refused.
    pub(super) fn find(name: &CStr) -> Result<Option<Self>> {
        let probe = Probe::new()?;
        let mut found = None;
        let mut seen = [false; KNOWN_NAMES.len()];
        let mut node = probe.first();
        // Registering puts a type right after the list's head.
        let head = probe.head();
        let mut previous = probe.node();
        while !ptr::eq(node, head) {
            let Some((store_type, text)) = read(node) else {
                return refuse("an entry cannot be read");
            };
            if !ptr::eq(store_type.list.prev, previous) {
                return refuse("an entry is not linked both ways");
            }
            let text = text.split(|byte| *byte == 0).next().unwrap_or(&[]);
            let Some(known) = KNOWN_NAMES.iter().position(|known| *known == text) else {
                return refuse("an entry has an unknown name");
            };
            if seen[known] {
                return refuse("a name is there twice");
            }
            seen[known] = true;
            // Each known name can be passed once, so a list that leads in circles ends here.
            if text == name.to_bytes() {
                if !is_dm_snapshot(store_type.module) {
                    return refuse("another module has the name already");
                }
                // INVARIANT: The type is dm-snapshot's, as its module says.
                found = Some(Self(container(node)));
            }
            previous = node;
            node = store_type.list.next;
        }
        Ok(found)
    }

    /// Takes the type out of dm-snapshot's list. Tables that use it are not touched.
    pub(super) fn unregister(&self) -> Result {
        // SAFETY: By the type's invariant the type is live.
        to_result(unsafe { ffi::dm_exception_store_type_unregister(self.0) })
    }

    /// Puts the type back.
    pub(super) fn register(&self) {
        // SAFETY: By the type's invariant the type is live; it is not in the list, since
        // `unregister` took it out.
        let result = to_result(unsafe { ffi::dm_exception_store_type_register(self.0) });
        if let Err(e) = result {
            dm_err!(
                "cannot give an exception store type back to dm-snapshot: {:?}",
                e
            );
        }
    }
}

fn refuse<T>(why: &str) -> Result<T> {
    dm_err!(
        "cannot take over from dm-snapshot, its list of exception store types is not as expected: {}",
        why
    );
    Err(unclean())
}

/// Whether `module` is dm-snapshot: null where that is built in.
fn is_dm_snapshot(module: *mut bindings::module) -> bool {
    if module.is_null() {
        return true;
    }
    let name = offset_of!(bindings::module, name);
    let Some(text) = read_name(module.cast::<u8>().wrapping_add(name).cast()) else {
        return false;
    };
    text.starts_with(b"dm_snapshot\0")
}

/// A type of ours that is registered under a name of its own while this lives.
///
/// # Invariants
///
/// The type is registered.
struct Probe(KBox<Opaque<dm_exception_store_type>>);

impl Probe {
    fn new() -> Result<Self> {
        let store_type = KBox::new(
            Opaque::new(dm_exception_store_type {
                name: PROBE_NAME.as_char_ptr(),
                // No table asks for this name, so nothing else is ever used.
                // SAFETY: All fields may be zero.
                ..unsafe { MaybeUninit::zeroed().assume_init() }
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The type lives on the heap until `drop` has unregistered it.
        to_result(unsafe { ffi::dm_exception_store_type_register(store_type.get()) })?;
        // INVARIANT: Registered just now.
        Ok(Self(store_type))
    }

    /// Our node of the list.
    fn node(&self) -> *mut bindings::list_head {
        // SAFETY: The type is live; only an address is taken.
        unsafe { &raw mut (*self.0.get()).list }
    }

    /// The list's head: `list_add()` put our node right after it.
    fn head(&self) -> *mut bindings::list_head {
        // SAFETY: The type is live and in the list.
        unsafe { (*self.node()).prev }
    }

    /// The node after ours.
    fn first(&self) -> *mut bindings::list_head {
        // SAFETY: The type is live and in the list.
        unsafe { (*self.node()).next }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant it is registered, and nobody uses it.
        unsafe { ffi::dm_exception_store_type_unregister(self.0.get()) };
    }
}

/// The type whose `list` is at `node`.
fn container(node: *mut bindings::list_head) -> *mut dm_exception_store_type {
    node.cast::<u8>()
        .wrapping_sub(offset_of!(dm_exception_store_type, list))
        .cast()
}

/// Copies the type whose `list` is at `node`, and the bytes of its name; `None` if either cannot
/// be read.
fn read(node: *mut bindings::list_head) -> Option<(dm_exception_store_type, [u8; NAME_ROOM])> {
    let mut store_type = MaybeUninit::<dm_exception_store_type>::uninit();
    // SAFETY: The destination has the size given; the source may be anything.
    let error = unsafe {
        ffi::copy_from_kernel_nofault(
            store_type.as_mut_ptr().cast(),
            container(node).cast(),
            size_of::<dm_exception_store_type>(),
        )
    };
    if error != 0 {
        return None;
    }
    // SAFETY: All bytes were copied; the type is made of pointers and `Option`s of pointers, for
    // which any bytes will do, and none of them is followed unchecked.
    let store_type = unsafe { store_type.assume_init() };
    let name = read_name(store_type.name)?;
    Some((store_type, name))
}

/// Copies the string at `name`, cut where there is no more room; `None` if it cannot be read.
fn read_name(name: *const c_char) -> Option<[u8; NAME_ROOM]> {
    let mut text = [0; NAME_ROOM];
    // One by one, since what follows the string may be out of bounds.
    for (i, byte) in text.iter_mut().enumerate() {
        // SAFETY: The destination has the size given; the source may be anything.
        let error = unsafe {
            ffi::copy_from_kernel_nofault(
                ptr::from_mut(byte).cast(),
                name.wrapping_add(i).cast(),
                1,
            )
        };
        if error != 0 {
            return None;
        }
        if *byte == 0 {
            break;
        }
    }
    Some(text)
}
