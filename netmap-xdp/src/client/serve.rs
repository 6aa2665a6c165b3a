//! Control requests of a descriptor, carried out: those that bind it or concern its state here, all others by the engine.

use super::binding::{Binding, Bound};
use super::host;
use crate::abi::{NETMAP_REQ_OPT_CSB, NETMAP_REQ_OPT_EXTMEM, NETMAP_REQ_OPT_OFFSETS};
use crate::ctl::{Call, Csb, Failure, OptionAnswer, OptionList, Register, Reply, Request};
use crate::engine::Answers;

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

    /// `netmap_csb_validate`: an fd that is not bound has no rings, for which nothing is to be done.
    pub(super) fn enable_csb(&self, bound: Option<&Bound>, csb: &Csb, options: &mut OptionList) -> Result<(), Failure> {
        let done = bound.map_or(Ok(()), |bound| self.csb.enable(bound, csb));
        options.answer(OptionAnswer::Csb(done.as_ref().map(|_| ()).map_err(|e| e.errno)));
        done
    }
}

/// Passes on what became of the options of a registration that the engine carries out.
pub(super) fn answer(options: &mut OptionList, answers: &Answers) {
    if let Some(extmem) = answers.extmem {
        options.answer(OptionAnswer::Extmem(extmem));
    }
    if let Some(offsets) = answers.offsets {
        options.answer(OptionAnswer::Offsets(offsets));
    }
}
