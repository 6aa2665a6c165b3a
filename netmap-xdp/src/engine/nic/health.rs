//! What becomes of an interface while it is bound: it goes down and comes up, loses its carrier, gets another name, MTU or
//! number of queues, vanishes, or somebody takes our program off it.
//!
//! What traffic survives is logged once. What it does not survive ends the port: its rings are marked stopped, which programs
//! see as `POLLERR`, and the interface is given back at once. Called now and then, by netmapd unasked, and else by
//! programs that sleep; works from any network namespace, by a socket that was opened in the interface's own.

use super::NicPort;
use crate::ctl::{Condition, Failure};
use crate::engine::host::HostSide;
use crate::engine::region::Region;
use crate::sync::Ordering::*;
use crate::sys::netdev::{NetDev, Offloads};
use crate::sys::{Fd, Guarded, Level, Mode, log};
use std::sync::Arc;

/// Switches off what would make received frames differ from those on the wire, until the port goes.
pub fn tell_the_truth(dev: &NetDev, mode: Mode) -> Option<Guarded> {
    let offloads = Offloads::switch_off(dev, mode == Mode::Generic).unwrap_or_else(|e| {
        log(Level::Warn, format_args!("frames may be merged or lack their VLAN tag: {e}"));
        None
    })?;
    let guarded = Guarded::new(offloads, dev.ifindex);
    log(Level::Debug, format_args!("{}: merging and VLAN stripping of received frames are off", dev.name));
    if guarded.keep().is_none() {
        log(
            Level::Info,
            format_args!(
                "{0}: merging and VLAN stripping of received frames are off while it is open; netmapd, which would restore \
                 them after a kill, is not installed: then say `ethtool -K {0} rxvlan on gro on`",
                dev.name
            ),
        );
    }
    Some(guarded)
}

impl Drop for NicPort {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.offloads.take().map(|o| o.restore(&self.watch)) {
            // An interface that is gone needs none.
            if e.errno.0 != libc::ENODEV {
                log(Level::Warn, format_args!("offloads were not restored: {e}"));
            }
        }
    }
}

impl NicPort {
    /// What a client holds, so that offloads stay off as long as it moves packets.
    pub(super) fn keep(&self) -> Option<Arc<Fd>> {
        self.offloads.as_ref()?.keep().cloned()
    }

    /// Looks after the interface; returns whether rings wait for it to come up.
    pub fn tend(&mut self, region: &Region) -> bool {
        self.look(region);
        self.failed.is_none() && self.start_pending(region)
    }

    /// A program that found its rings stopped may go before anybody has looked why.
    pub(super) fn explain(&mut self, region: &Region) {
        if self.rings.krings(region).iter().any(|k| k.state().stopped.load(Relaxed) != 0) {
            self.look(region);
        }
    }

    fn look(&mut self, region: &Region) {
        if self.failed.is_some() {
            return;
        }
        match self.watch.look() {
            Ok(now) => {
                let before = std::mem::replace(&mut self.dev, now);
                self.compare(&before, region);
            }
            Err(e) if e.errno.0 == libc::ENODEV => {
                self.fail("is gone: deleted, or moved to another network namespace".into(), region);
            }
            // Nothing is known. The next turn tells.
            Err(_) => {}
        }
        if self.failed.is_none() && self.program.lost() {
            self.fail("has lost its XDP program: somebody detached it".into(), region);
        }
        if self.failed.is_none() && self.host.lost() {
            self.say("its host rings have lost their programs: somebody detached them".into());
            self.stop_rings(region, |port, k| HostSide::is_host(&port.rings, k.dir(), k.id()));
        }
    }

    /// What has changed since the last look.
    fn compare(&mut self, before: &NetDev, region: &Region) {
        let now = &self.dev;
        if now.name != before.name {
            self.say(format!("this is the new name of {}", before.name));
        }
        let pending = self.queues.values().any(|q| !q.socket.bound());
        match (before.up, now.up) {
            (true, false) => self.say("is down: nothing is sent or received until it is up".into()),
            (false, true) if !pending => self.say("is up again".into()),
            _ if now.up && before.up && now.running != before.running => {
                self.say(if now.running { "has carrier again" } else { "has lost its carrier" }.into());
            }
            _ => {}
        }
        if now.mtu != before.mtu {
            let fits = self.mtu_that_fits();
            self.say(if now.mtu <= fits {
                format!("has an MTU of {} now", now.mtu)
            } else if self.multi_buffer {
                format!("has an MTU of {} now: frames above {fits} bytes arrive as NS_MOREFRAG chains", now.mtu)
            } else {
                format!("has an MTU of {} now, and what is above {fits} is not received: lower it again", now.mtu)
            });
        }
        let counts = self.rings.counts();
        let (had, has) = ([before.rx_queues, before.tx_queues], [now.rx_queues, now.tx_queues]);
        if had != has {
            let all = (0..u32::from(counts.rx)).all(|i| self.queues.get(&i).is_some_and(|q| q.receiving));
            let text =
                format!("has {} receive and {} transmit queues now, and had {} and {}", has[0], has[1], had[0], had[1]);
            if all && has[0] > u32::from(counts.rx) {
                // Whoever has all of them would see a part of the traffic from now on, and not know.
                self.fail(format!("{text}: bind it again to have them all"), region);
            } else {
                self.say(text);
            }
        }
    }

    fn say(&self, what: String) {
        log(Level::Warn, format_args!("{}: {what}", self.dev.name));
    }

    /// Ends the port for all who have it open.
    fn fail(&mut self, why: String, region: &Region) {
        self.say(format!("{why}; its ports fail from now on"));
        self.stop_rings(region, |_, _| true);
        // An interface that lives on elsewhere is rid of us. An error means that it is.
        let _ = self.program.detach();
        self.failed = Some(why);
        self.cut();
    }

    fn stop_rings(&self, region: &Region, which: impl Fn(&NicPort, &crate::ring::Kring) -> bool) {
        self.rings.krings(region).iter().filter(|k| which(self, k)).for_each(|k| k.state().stopped.store(1, Relaxed));
    }

    /// Nothing more can be bound while somebody still has the port as it was.
    pub fn check(&self) -> Result<(), Failure> {
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(Condition::InterfaceFailed
                .says(format!("{0} {why}; close what still has netmap:{0} open, then bind it again", self.dev.name))),
        }
    }

    /// Binds the sockets that an interface which was down left unbound; returns whether any still waits.
    fn start_pending(&mut self, region: &Region) -> bool {
        let waits = |port: &NicPort| port.queues.values().any(|q| !q.socket.bound());
        if !waits(self) || !self.dev.up {
            return waits(self);
        }
        for i in self.queues.keys().copied().collect::<Vec<_>>() {
            // Still down, or gone: the next turn tells.
            let _ = self.bind(i);
        }
        self.tell(region);
        if !waits(self) {
            log(Level::Info, format_args!("{} is up: started", self.dev.name));
        }
        waits(self)
    }
}
