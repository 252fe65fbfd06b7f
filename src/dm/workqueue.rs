// SPDX-License-Identifier: GPL-2.0-only

//! A single-threaded workqueue of our own.

use core::marker::PhantomPinned;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use kernel::{
    bindings, c_str,
    ffi::{c_int, c_uint},
    new_mutex,
    prelude::*,
    static_lock_class,
    str::CStr,
    sync::Mutex,
    types::Opaque,
    workqueue::Queue,
};

/// A workqueue that runs one item at a time, in the order they were queued, and that makes
/// progress while memory is being reclaimed (`WQ_MEM_RECLAIM`).
///
/// Beside the items that [`Queue`] takes it can run a closure while the caller waits. Dropping it
/// waits for all items.
///
/// # Invariants
///
/// `queue` came from `alloc_workqueue()` and was not destroyed.
#[pin_data(PinnedDrop)]
pub(crate) struct Workqueue {
    queue: NonNull<bindings::workqueue_struct>,
    /// Held by the thread whose closure runs.
    #[pin]
    turn: Mutex<()>,
    #[pin]
    call: Call,
}

/// A closure that runs in the workqueue's thread.
#[pin_data]
struct Call {
    #[pin]
    work: Opaque<bindings::work_struct>,
    /// The closure; valid from when `work` is queued until `over` is completed.
    #[pin]
    job: Opaque<*mut (dyn FnMut() + Send)>,
    #[pin]
    over: Opaque<bindings::completion>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A workqueue may be used and destroyed by any thread.
unsafe impl Send for Workqueue {}
// SAFETY: A workqueue may be used by many threads at once; `call` is used under `turn`.
unsafe impl Sync for Workqueue {}

impl Workqueue {
    /// Creates a workqueue. May sleep.
    pub(crate) fn new(name: &'static CStr) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: Created here.
            queue: Self::alloc(name)?,
            turn <- new_mutex!((), "Workqueue::turn"),
            call <- pin_init!(Call {
                work <- Opaque::ffi_init(|slot| {
                    // SAFETY: `slot` is valid for writes, and `Call::run` is a work function.
                    unsafe {
                        bindings::init_work_with_key(
                            slot,
                            Some(Call::run),
                            false,
                            c_str!("Workqueue::call").as_char_ptr(),
                            static_lock_class!().as_ptr(),
                        )
                    }
                }),
                job: Opaque::uninit(),
                // SAFETY: `slot` is valid for writes.
                over <- Opaque::ffi_init(|slot| unsafe { bindings::init_completion(slot) }),
                _pin: PhantomPinned,
            }),
        })
    }

    fn alloc(name: &'static CStr) -> Result<NonNull<bindings::workqueue_struct>> {
        // What `alloc_ordered_workqueue()` passes, with `WQ_MEM_RECLAIM`.
        let flags: c_uint = bindings::wq_flags_WQ_UNBOUND
            | bindings::wq_flags___WQ_ORDERED
            | bindings::wq_flags_WQ_MEM_RECLAIM;
        let max_active: c_int = 1;
        // SAFETY: The format takes one string, which is what is passed.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c_str!("%s").as_char_ptr(),
                flags,
                max_active,
                name.as_char_ptr(),
            )
        };
        NonNull::new(queue).ok_or(ENOMEM)
    }

    /// Runs `job` once in the workqueue's thread, after what was queued before it, and waits for
    /// it. Sleeps.
    ///
    /// Must not be called from an item of this workqueue, which would wait for itself.
    pub(crate) fn run(&self, mut job: impl FnMut() + Send) {
        let job: &mut (dyn FnMut() + Send) = &mut job;

        let _turn = self.turn.lock();
        // SAFETY: By holding `turn` nobody else uses `call`, and the previous use is over. The
        // lifetime of `job` is forgotten, but it is live until the wait below is over, and is not
        // used after that: see `Call::run`.
        unsafe {
            self.call.job.get().write(core::mem::transmute::<
                *mut (dyn FnMut() + Send + '_),
                *mut (dyn FnMut() + Send),
            >(ptr::from_mut(job)));
            bindings::queue_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                self.queue.as_ptr(),
                self.call.work.get(),
            );
            bindings::wait_for_completion(self.call.over.get());
        }
    }
}

impl Call {
    /// Runs the closure.
    ///
    /// # Safety
    ///
    /// `work` must be the field of a live [`Call`] that [`Workqueue::run`] queued.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // SAFETY: The caller vouches for the containing `Call`.
        unsafe {
            let this = kernel::container_of!(Opaque::cast_from(work), Self, work);
            // `Workqueue::run` wrote the closure before it queued the work, and waits for `over`
            // before it lets go of it.
            (**Opaque::cast_into(&raw const (*this).job))();
            bindings::complete(Opaque::cast_into(&raw const (*this).over));
        }
    }
}

impl Deref for Workqueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: By the type's invariant the queue is valid, and stays so while `self` is
        // borrowed.
        unsafe { Queue::from_raw(self.queue.as_ptr()) }
    }
}

#[pinned_drop]
impl PinnedDrop for Workqueue {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type's invariant the queue is live. `destroy_workqueue()` waits for the
        // items that are queued, and nobody can queue more.
        unsafe { bindings::destroy_workqueue(self.queue.as_ptr()) }
    }
}
