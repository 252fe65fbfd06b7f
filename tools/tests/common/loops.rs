// SPDX-License-Identifier: GPL-2.0-only

//! Loop devices, where this machine lets them be made.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A loop device of a file, until it is dropped.
pub struct Loop(PathBuf);

impl Loop {
    /// Makes one; `None`, said on standard error, where that is not allowed.
    pub fn new(file: &Path, options: &[&str]) -> Option<Self> {
        let made = Command::new("losetup")
            .args(["-f", "--show"])
            .args(options)
            .arg(file)
            .output();
        match made {
            Ok(made) if made.status.success() => {
                let path = String::from_utf8(made.stdout).unwrap();
                Some(Self(path.trim().into()))
            }
            _ => {
                eprintln!("skipped: no loop devices may be made here");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("-d").arg(&self.0).status();
        assert!(detached.unwrap().success());
    }
}
