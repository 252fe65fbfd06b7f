// SPDX-License-Identifier: GPL-2.0-only

// The example of `Target`'s documentation. Every build compiles it, so that it stays true; nothing
// uses it, so that nothing of it is left in a module.

use crate::dm::irq_lock::IrqSpinLock;
use crate::dm::target::{
    StatusKind,
    Target,
    TargetTable, //
};
use crate::dm::{
    BioList,
    Device,
    EndedBio,
    MapBio,
    Mapped,
    OwnedDevice, //
};
use core::fmt;
use kernel::{
    prelude::*,
    static_lock_class, //
};

/// A device whose reads do not come back until a message asks for them.
#[pin_data]
struct Held {
    device: OwnedDevice,
    begin: u64,
    #[pin]
    reads: IrqSpinLock<BioList>,
}

/// What is kept beside a bio: whether it was held already.
#[derive(Zeroable)]
struct Seen(u32);

#[vtable]
impl Target for Held {
    const NAME: &'static CStr = c"held";
    const VERSION: [u32; 3] = [1, 0, 0];
    type BioData = Seen;

    fn new(table: &mut TargetTable<'_>, args: &[&CStr]) -> Result<Pin<KBox<Self>>> {
        let [path] = args else {
            table.set_error(c"one device, please");
            return Err(EINVAL);
        };
        let write = !table.is_read_only();
        let device = table.get_device(path, write).inspect_err(|_| {
            table.set_error(c"cannot open the device");
        })?;
        table.set_num_flush_bios(1);
        KBox::pin_init(
            pin_init!(Self {
                device,
                begin: table.begin(),
                reads <- IrqSpinLock::new(BioList::new(), c"Held::reads", static_lock_class!()),
            }),
            GFP_KERNEL,
        )
    }

    fn map(&self, bio: MapBio<'_>) -> Mapped {
        bio.set_device(&self.device);
        bio.set_sector(bio.sector() - self.begin);
        Mapped::Remapped(bio.into_bio())
    }

    fn end_io(&self, mut bio: EndedBio<'_>) {
        let Seen(seen) = bio.data_mut();
        *seen += 1;
        // It comes here once more when it is ended below.
        if *seen == 1 && !bio.is_write() {
            self.reads.lock().push(bio.take());
        }
    }

    fn status(&self, kind: StatusKind, out: &mut dyn fmt::Write) {
        // What does not fit is left out, and device-mapper notices.
        let _ = match kind {
            StatusKind::Info => Ok(()),
            StatusKind::Table => write!(out, "{}", *self.device),
            StatusKind::Ima => write!(out, ",device={};", *self.device),
        };
    }

    fn message(&self, args: &[&CStr], _: &mut dyn fmt::Write) -> Result {
        if args != [c"release"] {
            return Err(EINVAL);
        }
        // Not under the lock: it would be taken again.
        let mut reads = self.reads.lock().take();
        while let Some(bio) = reads.pop() {
            bio.end(Ok(()));
        }
        Ok(())
    }

    fn iterate_devices(&self, visit: &mut dyn FnMut(&Device, u64, u64) -> c_int) -> c_int {
        visit(&self.device, 0, self.device.sectors())
    }
}
