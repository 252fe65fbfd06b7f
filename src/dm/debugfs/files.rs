// SPDX-License-Identifier: GPL-2.0-only

//! The files, on a kernel that has debugfs.

use super::Show;
use crate::dm::{
    global::global_mutex,
    noio::NoIo, //
};
use core::fmt;
use core::ptr::{
    null,
    null_mut,
    NonNull, //
};
use kernel::{
    bindings,
    prelude::*,
    str::CString,
    types::Opaque, //
};
use pin_init::zeroed;

/// A directory `NAME` of the module, with the file `stats` in it.
///
/// It is there until this is dropped, which waits for those who are reading: sleeps.
pub(crate) struct Shown {
    _entry: Entry,
    // Left when the entry is gone.
    _parent: Parent,
}

/// The module's directory is to have this name. Has to be called when the module is loaded, before
/// [`Shown::new`].
pub(crate) fn init(name: &'static CStr) {
    directory::make();
    if let Some(mut directory) = directory::lock() {
        directory.name = name;
    }
}

impl Shown {
    /// Makes the file. Where debugfs has something of that name, or may not be used, there will be
    /// none, and only the log says so. Sleeps.
    pub(crate) fn new<T: Show>(name: fmt::Arguments<'_>, shown: T) -> Result<Self> {
        // Who makes another may have suspended a device: getting memory with a lock held must not wait
        // for that.
        let _noio = NoIo::new();
        let name = CString::try_from_fmt(name)?;
        let shown: KBox<dyn Show> = KBox::new(shown, GFP_KERNEL)?;
        let shown = KBox::new(shown, GFP_KERNEL)?;
        let parent = Parent::enter()?;
        Ok(Self {
            _entry: Entry::new(&name, &parent, shown),
            _parent: parent,
        })
    }
}

/// The module's directory, which is there as long as something is in it.
struct Directory {
    name: &'static CStr,
    /// What `debugfs_create_dir()` returned, be it an error, while there are `users`.
    dentry: *mut bindings::dentry,
    users: usize,
}

// SAFETY: debugfs takes a directory from any thread.
unsafe impl Send for Directory {}

global_mutex! {
    /// The module's directory. Held while it is made or removed, which waits for nobody.
    mod directory: Directory = Directory {
        name: c"",
        dentry: null_mut(),
        users: 0,
    };
}

/// A use of the module's directory.
///
/// # Invariants
///
/// It is counted in [`Directory::users`], and `dentry` is the directory's.
struct Parent {
    dentry: *mut bindings::dentry,
}

// SAFETY: debugfs takes a directory from any thread.
unsafe impl Send for Parent {}
// SAFETY: A shared reference gives access to nothing but the pointer.
unsafe impl Sync for Parent {}

impl Parent {
    /// Sleeps.
    fn enter() -> Result<Self> {
        let mut directory = directory::lock().ok_or(ENODEV)?;
        if directory.users == 0 {
            let name = directory.name.as_char_ptr();
            // SAFETY: The name is a string; no parent is debugfs's root.
            directory.dentry = unsafe { bindings::debugfs_create_dir(name, null_mut()) };
        }
        directory.users += 1;
        // INVARIANT: Counted just now.
        Ok(Self {
            dentry: directory.dentry,
        })
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let Some(mut directory) = directory::lock() else {
            return;
        };
        directory.users -= 1;
        let _noio = NoIo::new();
        if directory.users == 0 {
            // SAFETY: It is what `debugfs_create_dir()` returned, and nobody uses it any more: by the
            // type's invariant all uses are counted.
            unsafe { bindings::debugfs_remove(directory.dentry) };
        }
    }
}

/// A directory with a file.
///
/// # Invariants
///
/// `dentry` is what `debugfs_create_dir()` returned, be it an error. `shown` is a box that was leaked, and
/// nobody but the file in that directory has it.
struct Entry {
    dentry: *mut bindings::dentry,
    shown: NonNull<KBox<dyn Show>>,
}

// SAFETY: debugfs takes a directory from any thread, and what is shown may be used and dropped by any.
unsafe impl Send for Entry {}
// SAFETY: A shared reference gives access to nothing.
unsafe impl Sync for Entry {}

impl Entry {
    fn new(name: &CStr, parent: &Parent, shown: KBox<KBox<dyn Show>>) -> Self {
        let shown = NonNull::from(KBox::leak(shown));
        // SAFETY: The name is a string, and by `Parent`'s invariant the module's directory is there, or
        // is an error, with which nothing is made.
        let dentry = unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), parent.dentry) };
        // SAFETY: The name is a string. The directory is there, or is an error. The operations live as
        // long as the module, which is in use while a file with them is open. They expect the pointer
        // to be what `shown` is, which is there until `drop` has removed the file.
        unsafe {
            bindings::debugfs_create_file_full(
                c"stats".as_char_ptr(),
                0o400,
                dentry,
                shown.as_ptr().cast(),
                null(),
                &raw const OPERATIONS.0,
            )
        };
        // INVARIANT: It is, and the file has `shown`.
        Self { dentry, shown }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _noio = NoIo::new();
        // SAFETY: By the type's invariant it is what `debugfs_create_dir()` returned. This removes the
        // file in it as well, and waits until none of its operations runs, `release` excepted; none
        // begins any more.
        unsafe { bindings::debugfs_remove(self.dentry) };
        // SAFETY: By the type's invariant it came from a box; the file, which alone had it, is gone.
        drop(unsafe { KBox::from_raw(self.shown.as_ptr()) });
    }
}

struct Operations(bindings::file_operations);

// SAFETY: Nobody writes to it.
unsafe impl Sync for Operations {}

// Some structures in it are empty in some configurations.
#[allow(improper_ctypes)]
extern "C" {
    // Made by modpost, for each module.
    static __this_module: Opaque<bindings::module>;
}

static OPERATIONS: Operations = Operations(bindings::file_operations {
    owner: Opaque::cast_into(&raw const __this_module),
    open: Some(open),
    read: Some(read),
    llseek: Some(lseek),
    release: Some(bindings::single_release),
    ..zeroed()
});

/// # Safety
///
/// - `inode` must be that of an [`Entry`]'s file, which is not removed before this returns.
/// - `file` must be being opened.
unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: The inode is valid. debugfs put the pointer that it was given there.
    let shown = unsafe { (*inode).i_private };
    // Who removes the file waits for this.
    let _noio = NoIo::new();
    // SAFETY: `file` is being opened. `show` gets a file whose `private` is what it expects: debugfs
    // lets no operation begin after the file was removed.
    unsafe { bindings::single_open(file, Some(show), shown) }
}

/// # Safety
///
/// As for `seq_read()`: `file` must be one that `open` opened, and the others what `read()` was called with.
unsafe extern "C" fn read(
    file: *mut bindings::file,
    to: *mut c_char,
    size: usize,
    at: *mut bindings::loff_t,
) -> isize {
    // Who removes the file waits for this.
    let _noio = NoIo::new();
    // SAFETY: The caller vouches for it.
    unsafe { bindings::seq_read(file, to, size, at) }
}

/// # Safety
///
/// As for `seq_lseek()`: `file` must be one that `open` opened.
unsafe extern "C" fn lseek(
    file: *mut bindings::file,
    offset: bindings::loff_t,
    whence: c_int,
) -> bindings::loff_t {
    // Who removes the file waits for this.
    let _noio = NoIo::new();
    // SAFETY: The caller vouches for it.
    unsafe { bindings::seq_lseek(file, offset, whence) }
}

/// # Safety
///
/// `seq` must be valid and nobody else's until this returns, and so its `private`, which is the `shown`
/// of an [`Entry`].
unsafe extern "C" fn show(seq: *mut bindings::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: `seq` is valid, and its `private` is a box that is there until this returns. All
    // references to what is in it are shared ones.
    let shown = unsafe { &*(*seq).private.cast::<KBox<dyn Show>>() };
    // What does not fit is asked for again, with more room.
    // INVARIANT: Nobody else uses `seq` until this returns.
    let _ = shown.show(&mut Text(seq));
    0
}

/// The text of an open file.
///
/// # Invariants
///
/// The file is valid, and nobody else uses it.
struct Text(*mut bindings::seq_file);

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        // SAFETY: By the type's invariant the file is valid and ours; `s` has so many bytes.
        match unsafe { bindings::seq_write(self.0, s.as_ptr().cast(), s.len()) } {
            0 => Ok(()),
            _ => Err(fmt::Error),
        }
    }
}
