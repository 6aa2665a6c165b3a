//! Null ports: rings with nothing behind them. Slots that are handed over stay where they are, and none ever come.
//!
//! The template for a new kind of port, and the yardstick of what a sync costs by itself.

use super::{BadSlot, Carrier};
use crate::ring::Kring;
use std::os::fd::RawFd;

/// Nothing.
pub struct Null;

impl Carrier for Null {
    fn sync(&self, _: &Kring) -> Result<(), BadSlot> {
        Ok(())
    }

    fn signal(&self) -> Option<(RawFd, i32)> {
        None
    }
}
