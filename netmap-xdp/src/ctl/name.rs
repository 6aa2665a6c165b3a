//! Port names as users type them, for the Rust API and the tools; the same language as libnetmap's `nmport_open`.
//!
//! ```text
//! netmap:IF[SUFFIX][/FLAGS][@MEMID][@OPTION]...    a network interface
//! valeS:P[SUFFIX]...                               port P of switch S
//!
//! SUFFIX   (none)     all NIC rings            FLAGS   x  exclusive
//!          -N         NIC rings N                      R  receive rings only
//!          ^          host rings                       T  transmit rings only
//!          ^N         host rings N                     r  monitor reception
//!          *          NIC and host rings               t  monitor transmission
//!          {ID }ID    an end of pipe ID                z  monitor without copying
//!
//! OPTION   conf:rings=N,slots=N,host-rings=N,tx-rings=N,rx-rings=N,host-tx-rings=N,host-rx-rings=N,tx-slots=N,rx-slots=N
//!          share=NAME                  the region of that port
//!          extmem=FILE                 a region in that file
//!          extmem:file=FILE,if-num=N,if-size=N,ring-num=N,ring-size=N,buf-num=N,buf-size=N
//!          offset=N                    packets begin N bytes into their buffers, as `offset:initial=N,bits=N`
//! ```
//! A `{ID` belongs to the name and comes before any other suffix. Where libnetmap is silent about nonsense (numbers
//! that are none, an empty pipe id before a suffix, a memory id beyond 16 bits) this is not. An interface with `-` in
//! its name cannot be written in this language, here or there. `offset` is there for libnetmap only once the program says
//! that it knows of offsets; here slots know.

use super::errno::{Condition, Failure};
use super::options::{Offsets, Pools};
use super::request::{Mode, PortName, Register};
use crate::abi::*;
use crate::sys::Errno;
use std::fmt;

/// A port as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name for `nr_name`: the interface (and pipe), or the whole `valeS:P`.
    pub port_name: PortName,
    /// Which rings.
    pub mode: Mode,
    /// Which ring, for the modes that take one.
    pub ring_id: u16,
    /// `NR_*`.
    pub flags: u64,
    /// The region, 0 if none is named.
    pub mem_id: u16,
    /// The port whose region is wanted; whoever opens the port looks its memory id up.
    pub share: Option<PortName>,
    /// Rings and slots asked for.
    pub conf: Conf,
    /// The file to make a region of; whoever opens the port maps it.
    pub extmem: Option<ExtmemFile>,
    /// Packet offsets, the largest of which is the first.
    pub offsets: Option<Offsets>,
}

/// Rings and slots asked for; 0 where nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Conf {
    /// Slots in a transmit ring.
    pub tx_slots: u32,
    /// Slots in a receive ring.
    pub rx_slots: u32,
    /// NIC transmit rings.
    pub tx_rings: u16,
    /// NIC receive rings.
    pub rx_rings: u16,
    /// Host transmit rings.
    pub host_tx_rings: u16,
    /// Host receive rings.
    pub host_rx_rings: u16,
}

/// A region in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtmemFile {
    /// Path of the file.
    pub path: String,
    /// Counts and sizes asked for; 0 where nothing was.
    pub pools: Pools,
}

/// A name that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The name.
    pub input: String,
    /// Byte at which it went wrong; the length of the name if something is missing at its end.
    pub at: usize,
    /// What is wrong.
    pub message: String,
    /// `EINVAL`.
    pub errno: Errno,
}

impl fmt::Display for SpecError {
    /// The message, the name, and a mark under the place, on three lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.input.get(..self.at).unwrap_or(&self.input).chars().count();
        write!(f, "{}\n  {}\n  {:column$}^", self.message, self.input, "")
    }
}

impl std::error::Error for SpecError {}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Failure {
        let column = error.input.get(..error.at).unwrap_or(&error.input).chars().count() + 1;
        let message = format!("{}: {} (column {column})", error.input, error.message);
        Failure { errno: error.errno, message }
    }
}

impl Spec {
    /// Understands a name.
    pub fn parse(text: &str) -> Result<Spec, SpecError> {
        let mut parser = Parser { input: text, at: 0 };
        let port_name = parser.port()?;
        let mut spec = Spec {
            port_name,
            mode: Mode::AllNic,
            ring_id: 0,
            flags: 0,
            mem_id: 0,
            share: None,
            conf: Conf::default(),
            extmem: None,
            offsets: None,
        };
        parser.rings(&mut spec)?;
        parser.suffixes(&mut spec)?;
        Ok(spec)
    }

    /// The registration that it asks for, without what has to be looked up or mapped first (`share`, `extmem`).
    pub fn register(&self) -> Register {
        let mut register = Register::new(self.port_name);
        register.options.offsets.clone_from(&self.offsets);
        Register {
            mode: self.mode,
            ring_id: self.ring_id,
            flags: self.flags,
            mem_id: self.mem_id,
            tx_slots: self.conf.tx_slots,
            rx_slots: self.conf.rx_slots,
            tx_rings: self.conf.tx_rings,
            rx_rings: self.conf.rx_rings,
            host_tx_rings: self.conf.host_tx_rings,
            host_rx_rings: self.conf.host_rx_rings,
            ..register
        }
    }
}

/// What is left of a name, from byte `at` on.
struct Parser<'a> {
    input: &'a str,
    at: usize,
}

/// Characters that end the name of a port.
const SEPARATORS: [char; 5] = ['-', '*', '^', '/', '@'];

impl<'a> Parser<'a> {
    fn fail<T>(&self, at: usize, message: impl Into<String>) -> Result<T, SpecError> {
        let errno = Condition::BadName.errno();
        Err(SpecError { input: self.input.into(), at, message: message.into(), errno })
    }

    fn rest(&self) -> &'a str {
        self.input.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn digit_next(&self) -> bool {
        self.peek().is_some_and(|c| c.is_ascii_digit())
    }

    /// Letters, digits and `_` only, in `from..to`.
    fn identifier(&self, from: usize, to: usize, what: &str) -> Result<(), SpecError> {
        let text = &self.input[from..to];
        match text.char_indices().find(|&(_, c)| !c.is_ascii_alphanumeric() && c != '_') {
            Some((at, c)) => self.fail(from + at, format!("{c:?} cannot be part of {what}: letters, digits and _ can")),
            None => Ok(()),
        }
    }

    /// `netmap:IF`, `netmap:IF{ID` or `valeS:P`, up to a separator.
    fn port(&mut self) -> Result<PortName, SpecError> {
        let start = self.at;
        let (prefix, is_vale) = match self.rest() {
            rest if rest.starts_with("netmap") => ("netmap", false),
            rest if rest.starts_with("vale") => ("vale", true),
            _ => return self.fail(start, "a port is netmap:INTERFACE or valeSWITCH:PORT"),
        };
        let id = start + prefix.len();
        let Some(colon) = self.input[id..].find(':').map(|at| id + at) else {
            return self.fail(self.input.len(), format!("`:` is missing after {}", &self.input[start..]));
        };
        if is_vale {
            self.identifier(id, colon, "the name of a switch")?;
        } else if colon != id {
            return self.fail(id, "nothing may stand between `netmap` and `:`");
        }
        let port = colon + 1;
        let end = self.input[port..].find(SEPARATORS).map_or(self.input.len(), |at| port + at);
        if let Some(bracket) = self.input[port..end].find(['{', '}']).map(|at| port + at) {
            if bracket + 1 == end {
                return self.fail(end, "the id of the pipe is missing");
            }
            self.identifier(bracket + 1, end, "the id of a pipe")?;
        }
        let from = if is_vale { start } else { port };
        let name = &self.input[from..end];
        if name.is_empty() {
            return self.fail(from, "the name of the interface is missing");
        }
        self.at = end;
        match PortName::new(name) {
            Ok(name) => Ok(name),
            Err(failure) => self.fail(from, failure.message),
        }
    }

    /// `-N`, `^`, `^N`, `*` or nothing.
    fn rings(&mut self, spec: &mut Spec) -> Result<(), SpecError> {
        match self.peek() {
            Some('*') => {
                self.at += 1;
                spec.mode = Mode::NicSw;
            }
            Some('^') => {
                self.at += 1;
                spec.mode = Mode::Sw;
                if self.digit_next() {
                    spec.mode = Mode::OneSw;
                    spec.ring_id = self.ring()?;
                }
            }
            Some('-') => {
                self.at += 1;
                if !self.digit_next() {
                    return self.fail(self.at, "`-` is followed by the number of a ring, as in netmap:eth0-2");
                }
                spec.mode = Mode::OneNic;
                spec.ring_id = self.ring()?;
            }
            _ => {}
        }
        Ok(())
    }

    fn ring(&mut self) -> Result<u16, SpecError> {
        let limit = u64::from(NETMAP_RING_MASK);
        let (at, ring) = (self.at, self.number());
        match u16::try_from(ring) {
            Ok(number) if ring < limit => Ok(number),
            _ => self.fail(at, format!("the number of a ring is at most {}", limit - 1)),
        }
    }

    /// A run of digits, at least one; too large a number becomes the largest.
    fn number(&mut self) -> u64 {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit);
        let (len, value) = digits
            .fold((0, 0u64), |(len, value), d| (len + 1, value.saturating_mul(10).saturating_add(u64::from(d - b'0'))));
        self.at += len;
        value
    }

    /// `/FLAGS`, `@MEMID` in any number, then options.
    fn suffixes(&mut self, spec: &mut Spec) -> Result<(), SpecError> {
        loop {
            match self.peek() {
                None => return Ok(()),
                Some('/') => self.flags(spec)?,
                Some('@') => {
                    self.at += 1;
                    match self.peek() {
                        None => return self.fail(self.at, "a memory id or an option is missing after `@`"),
                        Some(c) if c.is_ascii_digit() => self.mem_id(spec)?,
                        Some(_) => return self.options(spec),
                    }
                }
                Some(c) => return self.fail(self.at, format!("{c:?} is not expected here; `/`, `@` or the end is")),
            }
        }
    }

    fn flags(&mut self, spec: &mut Spec) -> Result<(), SpecError> {
        self.at += 1;
        if self.rest().is_empty() {
            return self.fail(self.at, "flags are missing after `/`");
        }
        while let Some(c) = self.peek() {
            spec.flags |= match c {
                'x' => NR_EXCLUSIVE,
                'z' => NR_ZCOPY_MON,
                't' => NR_MONITOR_TX,
                'r' => NR_MONITOR_RX,
                'R' => NR_RX_RINGS_ONLY,
                'T' => NR_TX_RINGS_ONLY,
                '@' => return Ok(()),
                c => return self.fail(self.at, format!("flag {c:?} is not known; x, z, t, r, R and T are")),
            };
            self.at += 1;
        }
        Ok(())
    }

    fn mem_id(&mut self, spec: &mut Spec) -> Result<(), SpecError> {
        let at = self.at;
        match u16::try_from(self.number()) {
            Err(_) | Ok(0) => self.fail(at, "a memory id is a number from 1 to 65535"),
            Ok(id) if spec.mem_id != 0 && spec.mem_id != id => {
                self.fail(at, format!("the memory id was {} already", spec.mem_id))
            }
            Ok(id) => {
                spec.mem_id = id;
                Ok(())
            }
        }
    }

    /// Everything after an `@` that no number follows: options up to the end.
    fn options(&mut self, spec: &mut Spec) -> Result<(), SpecError> {
        loop {
            let end = self.rest().find('@').map_or(self.input.len(), |at| self.at + at);
            self.option(spec, end)?;
            if end == self.input.len() {
                return Ok(());
            }
            self.at = end + 1;
        }
    }

    fn option(&mut self, spec: &mut Spec, end: usize) -> Result<(), SpecError> {
        let start = self.at;
        let text = &self.input[start..end];
        let name_end = text.find([':', '=']).unwrap_or(text.len());
        let (name, keys, default): (_, &[&str], _) = match &text[..name_end] {
            "" => return self.fail(start, "an option is missing after `@`"),
            name @ "share" => (name, &["port"], true),
            name @ "extmem" => {
                (name, &["file", "if_num", "if_size", "ring_num", "ring_size", "buf_num", "buf_size"], true)
            }
            name @ "conf" => (name, CONF_KEYS, false),
            name @ "offset" => (name, &["initial", "bits"], true),
            name => {
                return self.fail(start, format!("option {name:?} is not known; share, extmem, conf and offset are"));
            }
        };
        let body = start + name_end + 1;
        let values = match text.as_bytes().get(name_end) {
            None => return self.fail(end, format!("{name} is followed by `:` and keys")),
            Some(b'=') if !default => return self.fail(body - 1, format!("{name} is followed by `:`, not `=`")),
            Some(b'=') if body == end => return self.fail(end, format!("the value of {name} is missing")),
            Some(b'=') => {
                let mut values = vec![None; keys.len()];
                values[0] = Some((body, &self.input[body..end]));
                values
            }
            Some(_) => self.keys(name, keys, body, end)?,
        };
        if default && values[0].is_none() {
            return self.fail(end, format!("{name} needs a value for {:?}", keys[0]));
        }
        match name {
            "share" => self.share(spec, &values),
            "extmem" => self.extmem(spec, &values),
            "offset" => self.offset(spec, &values),
            _ => self.conf(spec, &values),
        }
    }

    /// `KEY=VALUE,...` in `body..end`; the values in the order of `keys`. `-` and `_` are the same in keys. An empty
    /// value is none.
    fn keys(&self, option: &str, keys: &[&str], body: usize, end: usize) -> Result<Values<'a>, SpecError> {
        let mut values = vec![None; keys.len()];
        if body == end {
            return Ok(values);
        }
        let mut at = body;
        for pair in self.input[body..end].split(',') {
            let (key, value) = pair.split_once('=').map_or((pair, None), |(key, value)| (key, Some(value)));
            let Some(i) = keys.iter().position(|k| *k == key.replace('-', "_")) else {
                let known = keys.join(", ").replace('_', "-");
                return self.fail(at, format!("{option} has no key {key:?}; it has {known}"));
            };
            let Some(value) = value else {
                return self.fail(at + key.len(), format!("`=` and a value are missing after {key:?}"));
            };
            if values[i].is_some() {
                return self.fail(at, format!("{key:?} is given twice"));
            }
            if !value.is_empty() {
                values[i] = Some((at + key.len() + 1, value));
            }
            at += pair.len() + 1;
        }
        Ok(values)
    }

    fn share(&self, spec: &mut Spec, values: &Values<'a>) -> Result<(), SpecError> {
        let Some(&Some((at, value))) = values.first() else { return Ok(()) };
        // Rings and flags behind the name do not matter: the region is the port's.
        let mut parser = Parser { input: &self.input[..at + value.len()], at };
        let port = parser.port().map_err(|error| SpecError { input: self.input.into(), ..error })?;
        match spec.share {
            Some(earlier) if earlier != port => {
                self.fail(at, format!("the region was to be that of {earlier} already"))
            }
            _ => {
                spec.share = Some(port);
                Ok(())
            }
        }
    }

    fn extmem(&self, spec: &mut Spec, values: &Values<'a>) -> Result<(), SpecError> {
        let Some(&Some((at, path))) = values.first() else { return Ok(()) };
        if spec.extmem.is_some() {
            return self.fail(at, "extmem is given twice");
        }
        let mut numbers = [0u32; 6];
        for (number, value) in numbers.iter_mut().zip(&values[1..]) {
            *number = self.value(*value)?.unwrap_or(0);
        }
        let [if_num, if_size, ring_num, ring_size, buf_num, buf_size] = numbers;
        let pool = |count, size| super::Pool { offset: 0, count, size };
        let pools = Pools {
            interfaces: pool(if_num, if_size),
            rings: pool(ring_num, ring_size),
            buffers: pool(buf_num, buf_size),
            ..Pools::default()
        };
        spec.extmem = Some(ExtmemFile { path: path.into(), pools });
        Ok(())
    }

    fn offset(&self, spec: &mut Spec, values: &Values<'a>) -> Result<(), SpecError> {
        let [initial, bits] = values[..] else { return Ok(()) };
        if let (Some((at, _)), Some(_)) = (initial, &spec.offsets) {
            return self.fail(at, "offset is given twice");
        }
        let initial = self.value(initial)?.unwrap_or(0);
        let bits = self.value(bits)?.unwrap_or(0);
        spec.offsets = Some(Offsets { max: initial, initial, bits, tx_align: 0, min_gap: 0 });
        Ok(())
    }

    /// The keys for both directions first, so that those for one direction win.
    fn conf(&self, spec: &mut Spec, values: &Values<'a>) -> Result<(), SpecError> {
        let conf = &mut spec.conf;
        for (key, value) in CONF_KEYS.iter().zip(values) {
            let (rings, slots): ([Option<&mut u16>; 2], [Option<&mut u32>; 2]) = match *key {
                "rings" => ([Some(&mut conf.tx_rings), Some(&mut conf.rx_rings)], [None, None]),
                "host_rings" => ([Some(&mut conf.host_tx_rings), Some(&mut conf.host_rx_rings)], [None, None]),
                "slots" => ([None, None], [Some(&mut conf.tx_slots), Some(&mut conf.rx_slots)]),
                "tx_rings" => ([Some(&mut conf.tx_rings), None], [None, None]),
                "rx_rings" => ([Some(&mut conf.rx_rings), None], [None, None]),
                "host_tx_rings" => ([Some(&mut conf.host_tx_rings), None], [None, None]),
                "host_rx_rings" => ([Some(&mut conf.host_rx_rings), None], [None, None]),
                "tx_slots" => ([None, None], [Some(&mut conf.tx_slots), None]),
                _ => ([None, None], [Some(&mut conf.rx_slots), None]),
            };
            for to in rings.into_iter().flatten() {
                *to = self.value(*value)?.unwrap_or(*to);
            }
            for to in slots.into_iter().flatten() {
                *to = self.value(*value)?.unwrap_or(*to);
            }
        }
        Ok(())
    }

    fn value<T: std::str::FromStr>(&self, value: Option<(usize, &str)>) -> Result<Option<T>, SpecError> {
        let Some((at, text)) = value else { return Ok(None) };
        // `+5` would parse, and is not a number in this language.
        match text.parse() {
            Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(number)),
            _ => self.fail(at, format!("{text:?} is not a number, or too large")),
        }
    }
}

/// Value of each key with the byte where it starts.
type Values<'a> = Vec<Option<(usize, &'a str)>>;

/// Keys of `conf`; those for both directions before those for one.
const CONF_KEYS: &[&str] =
    &["rings", "host_rings", "slots", "tx_rings", "rx_rings", "host_tx_rings", "host_rx_rings", "tx_slots", "rx_slots"];
