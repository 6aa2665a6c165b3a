//! Control requests of a descriptor, carried out: those that bind it or concern its state here, all others by the engine.

use super::binding::{Binding, Bound};
use super::host;
use crate::abi::{NETMAP_REQ_OPT_CSB, NETMAP_REQ_OPT_EXTMEM, NETMAP_REQ_OPT_OFFSETS};
use crate::ctl::{Call, Csb, Failure, OptionAnswer, OptionList, Register, Reply, Request};
use crate::engine::{Grant, GrantId};

/// Options that a registration serves.
const SERVED: [u32; 3] = [NETMAP_REQ_OPT_EXTMEM, NETMAP_REQ_OPT_CSB, NETMAP_REQ_OPT_OFFSETS];

impl Binding {
    /// Carries out a request and answers its options.
    pub(super) fn carry_out(&self, call: &mut Call) -> Result<Reply, Failure> {
        let Call { request, options, .. } = call;
        match request {
            Request::Register(r) => self.bind(r, options),
            Request::CsbEnable(csb) => self.enable_csb(self.bound(), csb, options).map(|()| Reply::Done),
            Request::KloopStart(start) => self.run_kloop(start, options).map(|()| Reply::Done),
            Request::KloopStop => self.stop_kloop().map(|()| Reply::Done),
            other => host::ask(other),
        }
    }

    fn bind(&self, register: &Register, options: &mut OptionList) -> Result<Reply, Failure> {
        // Refused last, as the original does, but before anything is changed.
        if let Some(kind) = options.unsupported_but(&SERVED) {
            self.could_register(register)?;
            return Err(Failure::unsupported_option(kind));
        }
        self.register_with(register, options).map(|bound| Reply::Register(*bound.reply()))
    }

    /// Asks the engine for a registration, in memory of the program if an option says so.
    pub(super) fn grant(&self, register: &Register, options: &mut OptionList) -> Result<Grant, Failure> {
        let Some(extmem) = &register.options.extmem else { return host::register(register) };
        let region = host::extmem(extmem);
        options.answer(OptionAnswer::Extmem(region.as_ref().map(|r| r.1).map_err(|e| e.errno)));
        let (mem_id, _) = region?;
        host::register(&Register { mem_id, ..register.clone() }).inspect_err(|_| host::forget_extmem())
    }

    /// `netmap_offsets_init`, before anything else is done with the rings.
    pub(super) fn apply_offsets(
        &self,
        id: GrantId,
        register: &Register,
        options: &mut OptionList,
    ) -> Result<(), Failure> {
        let Some(offsets) = &register.options.offsets else { return Ok(()) };
        let done = host::offsets(id, offsets);
        options.answer(OptionAnswer::Offsets(done.as_ref().map(|&max| max).map_err(|e| e.errno)));
        done.map(drop)
    }

    /// `netmap_csb_validate`: an fd that is not bound has no rings, for which nothing is to be done.
    pub(super) fn enable_csb(&self, bound: Option<&Bound>, csb: &Csb, options: &mut OptionList) -> Result<(), Failure> {
        let done = bound.map_or(Ok(()), |bound| self.csb.enable(bound, csb));
        options.answer(OptionAnswer::Csb(done.as_ref().map(|_| ()).map_err(|e| e.errno)));
        done
    }
}
