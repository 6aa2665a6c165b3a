//! The configuration file: lines `key = value`, `#` starts a comment. Pure; flags of the command line come on top.
//!
//! ```text
//! socket = /run/netmap-xdp/netmapd.sock
//! group = netmap                   # its members may bind everything; `none`: no such group
//! allow = user:alice eth1 veth*    # any number of times: user:NAME, group:NAME or everyone; interfaces, `software`, `*`
//! loader = libbpf                  # or aya
//! chain = eth0 50                  # any number of times: interfaces with other XDP programs, and our priority among them
//! steer = eth* tcp port 22 -> host; default netmap   # any number of times: interfaces, then rules for them
//! buffers = 65536
//! buf-size = 4096                  # bytes of a buffer where NICs are: 2048 or 4096
//! priv-buf-size = 2048             # bytes of a buffer in regions of switch ports: a multiple of 64
//! spares = 512                     # of each NIC receive ring
//! timestamps = hardware            # or software
//! wakeup = need                    # or always
//! busy-poll = 20                   # microseconds; busy-budget and tx-budget: packets
//! idle-exit = 30                   # seconds
//! ```

use super::policy::{Policy, Rule, What, Who};
use crate::engine::SteeringByName;
use crate::sys::{
    BUF_ALIGN, BUF_SIZES, CHAIN_MOST, CHAIN_PRIORITY, LoaderChoice, NIC_BUF_SIZES, Polling, effective_uid, gid_of,
    is_buf_size, uid_of,
};
use crate::xsk::Steering;
use std::path::PathBuf;
use std::time::Duration;

/// The group whose members may bind everything, where there is one of this name.
const GROUP: &str = "netmap";

/// How the daemon is to run; what is `None` was not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub socket: Option<PathBuf>,
    /// The group whose members may bind everything.
    pub group: Option<String>,
    /// Further rules.
    pub rules: Vec<Rule>,
    /// Steering rules for interfaces, by pattern of names.
    pub steering: SteeringByName,
    /// Interfaces on which our XDP program joins others, and its priority.
    pub chains: Vec<(String, u32)>,
    /// What loads the XDP program.
    pub loader: Option<LoaderChoice>,
    /// Buffers of region 1.
    pub buffers: Option<u32>,
    /// Bytes of a buffer in region 1, and in other regions with NICs.
    pub buf_size: Option<u32>,
    /// Bytes of a buffer in regions of switch ports.
    pub priv_buf_size: Option<u32>,
    /// Spare buffers of a NIC receive ring.
    pub spares: Option<u32>,
    /// Whether receive rings tell the NIC's times.
    pub hardware_times: Option<bool>,
    /// How the kernel and those who sync tell each other of work.
    pub polling: Polling,
    /// Ends when nobody has used it for so long.
    pub idle_exit: Option<Duration>,
}

impl Config {
    /// Reads a file's text; the error names the line.
    pub fn parse(text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        for (i, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or(format!("line {}: not `key = value`: {line}", i + 1))?;
            config.set(key.trim(), value.trim()).map_err(|why| format!("line {}: {why}", i + 1))?;
        }
        Ok(config)
    }

    /// One setting.
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = |most: u32| match value.parse::<u32>() {
            Ok(n) if n <= most => Ok(n),
            _ => Err(format!("{key} is a number up to {most}, not {value:?}")),
        };
        match key {
            "socket" if value.starts_with('/') => self.socket = Some(value.into()),
            "socket" => return Err(format!("socket is an absolute path, not {value:?}")),
            "group" => self.group = Some(value.into()),
            "allow" => self.rules.push(rule(value)?),
            "steer" => self.steering.push(steering(value)?),
            "chain" => self.chains.push(chain(value)?),
            "loader" => {
                let named = LoaderChoice::named(value);
                self.loader = Some(named.ok_or(format!("loader is libbpf or aya, not {value:?}"))?);
            }
            "buffers" => self.buffers = Some(number(1 << 24)?),
            "buf-size" => {
                self.buf_size = Some(buf_size(value).map_err(|why| format!("buf-size: {why}"))?);
            }
            "priv-buf-size" => {
                let size = value.parse().ok().filter(|&n| is_buf_size(n));
                let (least, most) = (BUF_SIZES.start(), BUF_SIZES.end());
                let why = format!("priv-buf-size is a multiple of {BUF_ALIGN} from {least} to {most}, not {value:?}");
                self.priv_buf_size = Some(size.ok_or(why)?);
            }
            "spares" => self.spares = Some(number(16384)?),
            "timestamps" => match value {
                "hardware" | "software" => self.hardware_times = Some(value == "hardware"),
                _ => return Err(format!("timestamps is software or hardware, not {value:?}")),
            },
            "wakeup" => {
                let always = Polling::wakeup(value);
                self.polling.always = Some(always.ok_or(format!("wakeup is need or always, not {value:?}"))?);
            }
            "busy-poll" | "busy-budget" | "tx-budget" => {
                let found = Polling::NUMBERS.into_iter().find(|n| n.0 == key);
                let (_, _, least, most) = found.unwrap_or((key, "", 0, u32::MAX));
                let n = number(most).ok().filter(|n| *n >= least);
                self.polling.set(key, n.ok_or(format!("{key} is a number from {least} to {most}, not {value:?}"))?);
            }
            "idle-exit" => self.idle_exit = Some(Duration::from_secs(number(u32::MAX)?.into())),
            _ => {
                return Err(format!(
                    "{key} is not one of socket, group, allow, steer, chain, loader, buffers, buf-size, priv-buf-size, \
                     spares, timestamps, wakeup, busy-poll, busy-budget, tx-budget, idle-exit"
                ));
            }
        }
        Ok(())
    }

    /// What `over` says, and for the rest what this says.
    #[must_use]
    pub fn under(self, over: Config) -> Config {
        Config {
            socket: over.socket.or(self.socket),
            group: over.group.or(self.group),
            rules: [self.rules, over.rules].concat(),
            steering: [over.steering, self.steering].concat(),
            chains: [over.chains, self.chains].concat(),
            loader: over.loader.or(self.loader),
            buffers: over.buffers.or(self.buffers),
            buf_size: over.buf_size.or(self.buf_size),
            priv_buf_size: over.priv_buf_size.or(self.priv_buf_size),
            spares: over.spares.or(self.spares),
            hardware_times: over.hardware_times.or(self.hardware_times),
            polling: self.polling.under(over.polling),
            idle_exit: over.idle_exit.or(self.idle_exit),
        }
    }

    /// The rules for this machine. A group that was named must exist.
    pub fn policy(&self) -> Result<Policy, String> {
        let mut rules = self.rules.clone();
        let group = match self.group.as_deref() {
            Some("none") => None,
            Some(name) => Some(gid_of(name).ok_or(format!("there is no group {name:?}: `groupadd {name}`"))?),
            None => gid_of(GROUP),
        };
        rules.extend(group.map(|gid| Rule { who: Who::Group(gid), what: vec![What::All] }));
        Ok(Policy { own: effective_uid(), rules })
    }
}

/// A size of buffers where NICs are.
pub fn buf_size(text: &str) -> Result<u32, String> {
    let size = text.parse().ok().filter(|n| NIC_BUF_SIZES.contains(n));
    size.ok_or_else(|| {
        format!("buffers have {} bytes, not {text:?}", NIC_BUF_SIZES.map(|n| n.to_string()).join(" or "))
    })
}

fn chain(text: &str) -> Result<(String, u32), String> {
    let mut words = text.split_whitespace();
    let pattern = words.next().ok_or("chain names interfaces: `chain = eth0 50`")?;
    let priority = match words.next() {
        None => CHAIN_PRIORITY,
        Some(word) => word
            .parse()
            .ok()
            .filter(|n| *n <= CHAIN_MOST)
            .ok_or(format!("chain {pattern}: the priority is a number up to {CHAIN_MOST}, not {word:?}"))?,
    };
    match words.next() {
        None => Ok((pattern.into(), priority)),
        Some(word) => Err(format!("chain {pattern}: {word:?} is one word too many")),
    }
}

fn steering(text: &str) -> Result<(String, Steering), String> {
    let (pattern, rules) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    Ok((pattern.into(), Steering::parse(rules).map_err(|e| format!("steer {pattern}: {e}"))?))
}

fn rule(text: &str) -> Result<Rule, String> {
    let mut words = text.split_whitespace();
    let who = match words.next().map(|w| w.split_once(':').unwrap_or((w, ""))) {
        Some(("everyone", "")) => Who::Everyone,
        Some(("user", name)) => Who::User(uid_of(name).ok_or(format!("there is no user {name:?}"))?),
        Some(("group", name)) => Who::Group(gid_of(name).ok_or(format!("there is no group {name:?}"))?),
        _ => return Err(format!("allow starts with user:NAME, group:NAME or everyone, not {text:?}")),
    };
    let what: Vec<What> = words
        .map(|word| match word {
            "*" => What::All,
            "software" => What::Software,
            name => What::Interfaces(name.into()),
        })
        .collect();
    if what.is_empty() {
        return Err(format!("allow names interfaces, `software` or `*` after who: {text:?}"));
    }
    Ok(Rule { who, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_line_by_line() {
        let text = "# all of it\nsocket=/x/y\n group = 50 # by number\nallow = user:7 eth1 veth*\n\nallow = everyone software\n\
                    buffers = 4096\nbuf-size = 4096\npriv-buf-size = 256\nspares = 9\nwakeup = always\nbusy-poll = 20\ntx-budget = 64\nidle-exit = 5\nsteer = eth* udp -> netmap; default host\nchain = eth0\nchain = eth1 7\nloader = aya\n";
        let config = Config::parse(text).unwrap();
        let first =
            Rule { who: Who::User(7), what: vec![What::Interfaces("eth1".into()), What::Interfaces("veth*".into())] };
        assert_eq!(config.rules, [first, Rule { who: Who::Everyone, what: vec![What::Software] }]);
        assert_eq!((config.socket.clone(), config.buffers), (Some("/x/y".into()), Some(4096)));
        assert_eq!((config.buf_size, config.priv_buf_size), (Some(4096), Some(256)));
        let polling = Polling { always: Some(true), busy: Some(20), budget: None, tx_budget: Some(64) };
        assert_eq!((config.spares, config.polling), (Some(9), polling));
        assert_eq!(config.idle_exit, Some(Duration::from_secs(5)));
        let rules = Steering::parse("udp -> netmap; default host").unwrap();
        assert_eq!(config.steering, [("eth*".into(), rules)]);
        assert_eq!(config.chains, [("eth0".into(), 50), ("eth1".into(), 7)]);
        assert_eq!(config.loader, Some(LoaderChoice::Aya));
        let policy = config.policy().unwrap();
        assert_eq!(policy.rules[2], Rule { who: Who::Group(50), what: vec![What::All] });
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        for (text, word) in [
            ("\nnonsense", "line 2"),
            ("speed = 5", "speed"),
            ("socket = here", "absolute"),
            ("buffers = many", "many"),
            ("buf-size = 3840", "2048 or 4096"),
            ("priv-buf-size = 100", "multiple of 64"),
            ("spares = 16385", "16384"),
            ("wakeup = never", "need or always"),
            ("timestamps = sundial", "hardware"),
            ("busy-poll = 1000001", "1000000"),
            ("busy-budget = 0", "from 1"),
            ("tx-budget = 31", "from 32"),
            ("allow = root *", "root"),
            ("allow = user:no-such-user-x *", "no-such-user-x"),
            ("allow = everyone", "software"),
            ("steer = eth0", "rule 1"),
            ("chain = ", "names interfaces"),
            ("chain = eth0 70000", "70000"),
            ("chain = eth0 5 6", "too many"),
            ("loader = bcc", "bcc"),
            ("steer = eth0 tcp -> host; upd -> host; default host", "rule 2, character 1, at `upd`"),
        ] {
            let why = Config::parse(text).unwrap_err();
            assert!(why.contains(word) && why.contains("line"), "{why}");
        }
        let config = Config { group: Some("no-such-group-x".into()), ..Config::default() };
        assert!(config.policy().unwrap_err().contains("groupadd"));
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = Config { group: Some("a".into()), buffers: Some(1), ..Config::default() };
        let flags = Config { group: Some("b".into()), ..Config::default() };
        let both = file.under(flags);
        assert_eq!((both.group.as_deref(), both.buffers), (Some("b"), Some(1)));
    }
}
