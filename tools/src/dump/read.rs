// SPDX-License-Identifier: GPL-2.0-only

//! Reads a dump in any of the formats.

use super::{json, text, xml, Visitor};
use crate::error::{Error, Result};
use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

/// Reads a dump from `input`, in the format that its first character announces, and calls
/// `visitor` with what it says.
///
/// Memory does not grow with the dump, whatever stands in it.
pub fn read<R: BufRead>(mut input: R, visitor: &mut dyn Visitor) -> Result<()> {
    let first = loop {
        let bytes = input.fill_buf().map_err(|e| Error::parse("start", e))?;
        match bytes.iter().position(|byte| !byte.is_ascii_whitespace()) {
            Some(at) => break bytes[at],
            None if bytes.is_empty() => return Err(Error::parse("start", "it is empty")),
            None => {
                let blank = bytes.len();
                input.consume(blank);
            }
        }
    };
    let input = Bounded::new(input);
    match first {
        b'<' => xml::read(input, visitor),
        b'{' => json::read(input, visitor),
        _ => text::read(input, visitor),
    }
}

/// How many bytes may be read before the parser must have made something of them.
#[derive(Clone, Debug)]
pub struct Budget(Rc<Cell<usize>>);

impl Budget {
    const BYTES: usize = 64 * 1024;

    /// Allows as many bytes again.
    pub fn renew(&self) {
        self.0.set(Self::BYTES);
    }
}

/// A reader that refuses to deliver more than a budget, which the parser renews with each thing it
/// has understood: so a parser's memory stays bounded.
#[derive(Debug)]
pub struct Bounded<R> {
    input: R,
    budget: Budget,
}

impl<R> Bounded<R> {
    /// Bounds what is read from `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            budget: Budget(Rc::new(Cell::new(Budget::BYTES))),
        }
    }

    /// What renews the budget while a parser owns the reader.
    pub fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// Renews the budget.
    pub fn renew(&mut self) {
        self.budget.renew();
    }

    fn left(&self) -> io::Result<usize> {
        match self.budget.0.get() {
            0 => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "nothing that makes sense within 64 KiB",
            )),
            left => Ok(left),
        }
    }

    fn spend(&self, bytes: usize) {
        self.budget.0.set(self.budget.0.get().saturating_sub(bytes));
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = buf.len().min(self.left()?);
        let read = self.input.read(&mut buf[..bytes])?;
        self.spend(read);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let left = self.left()?;
        let bytes = self.input.fill_buf()?;
        Ok(&bytes[..bytes.len().min(left)])
    }

    fn consume(&mut self, bytes: usize) {
        self.spend(bytes);
        self.input.consume(bytes);
    }
}
