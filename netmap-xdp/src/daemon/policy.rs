//! Who may bind what. Pure: rules and a peer's credentials go in, yes or no comes out.

use crate::ctl::{PortKind, PortName, Register, Request};
use crate::sys::{Peer, name_matches};

/// What a request is about, as far as permission goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Facts that anybody may know who may bind anything at all.
    Facts,
    /// A port in memory: VALE, pipe, null.
    Software,
    /// A network interface.
    Interface(String),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Facts => f.write_str("ask about ports"),
            Subject::Software => f.write_str("bind pipes and VALE ports"),
            Subject::Interface(name) => write!(f, "bind {name}"),
        }
    }
}

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Every user.
    Everyone,
    /// One user.
    User(u32),
    /// The members of a group.
    Group(u32),
}

/// What a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Everything: `*`.
    All,
    /// Ports in memory: `software`.
    Software,
    /// Interfaces whose names match: a name, or the start of one and `*`.
    Interfaces(String),
}

/// A line `allow = WHO WHAT...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about.
    pub who: Who,
    /// What it allows.
    pub what: Vec<What>,
}

/// All rules. Root, and the user that the daemon runs as, need none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The user that the daemon runs as.
    pub own: u32,
    /// The rules; what none of them allows is refused.
    pub rules: Vec<Rule>,
}

fn is(peer: &Peer, who: Who) -> bool {
    match who {
        Who::Everyone => true,
        Who::User(uid) => peer.uid == uid,
        Who::Group(gid) => peer.gid == gid || peer.groups.contains(&gid),
    }
}

fn covers(what: &What, subject: &Subject) -> bool {
    match (what, subject) {
        (_, Subject::Facts) | (What::All, _) | (What::Software, Subject::Software) => true,
        (What::Interfaces(pattern), Subject::Interface(name)) => name_matches(pattern, name),
        _ => false,
    }
}

impl Policy {
    /// Whether `peer` may do it.
    pub fn allows(&self, peer: &Peer, subject: &Subject) -> bool {
        peer.uid == 0
            || peer.uid == self.own
            || self.rules.iter().any(|rule| is(peer, rule.who) && rule.what.iter().any(|what| covers(what, subject)))
    }

    /// Whether `peer` needs no rule.
    pub fn sees_all(&self, peer: &Peer) -> bool {
        peer.uid == 0 || peer.uid == self.own
    }

    /// Whether `peer` may do anything.
    pub fn admits(&self, peer: &Peer) -> bool {
        self.allows(peer, &Subject::Facts)
    }
}

fn by_name(name: &PortName) -> Subject {
    if name.as_bytes().starts_with(b"vale") || name.as_bytes().iter().any(|b| matches!(b, b'{' | b'}')) {
        Subject::Software
    } else {
        Subject::Interface(name.to_string())
    }
}

/// What a registration is about.
pub fn subject_of(register: &Register) -> Subject {
    match register.kind() {
        Ok(PortKind::Nic) => Subject::Interface(register.name.to_string()),
        Ok(PortKind::Monitor) => by_name(&register.name),
        // A request that makes no sense is the engine's to refuse, in the right words.
        Ok(PortKind::Null | PortKind::Pipe { .. } | PortKind::Vale) | Err(_) => Subject::Software,
    }
}

/// What any other request is about.
pub fn subject_of_request(request: &Request) -> Subject {
    // `vale0:eth0`: the port that is attached.
    let attached = |name: &PortName| match name.to_string().split_once(':') {
        Some((_, port)) => Subject::Interface(port.to_string()),
        None => Subject::Software,
    };
    match request {
        Request::Register(register) => subject_of(register),
        Request::PortInfo(_) | Request::PoolsInfo(_) | Request::ValeList(_) | Request::HdrGet(_) => Subject::Facts,
        Request::ValeAttach(attach) => attached(&attach.register.name),
        Request::ValeDetach(name) => attached(name),
        Request::PollingOn(polling) | Request::PollingOff(polling) => attached(&polling.name),
        Request::HdrSet(_)
        | Request::ValeNewif(_)
        | Request::ValeDelif(_)
        | Request::ValeConfig(_)
        | Request::KloopStart(_)
        | Request::KloopStop
        | Request::CsbEnable(_) => Subject::Software,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::NR_MONITOR_TX;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer { pid: 1, uid, gid, groups: groups.to_vec() }
    }

    fn interface(name: &str) -> Subject {
        Subject::Interface(name.into())
    }

    #[test]
    fn root_and_the_owner_need_no_rule_and_others_do() {
        let policy = Policy { own: 1000, rules: vec![] };
        for uid in [0, 1000] {
            assert!(policy.allows(&peer(uid, 5, &[]), &interface("eth0")) && policy.admits(&peer(uid, 5, &[])));
        }
        assert!(!policy.admits(&peer(1001, 0, &[0])));
    }

    #[test]
    fn rules_go_by_user_group_and_name() {
        let rule = |who, what: &[&str]| Rule {
            who,
            what: what
                .iter()
                .map(|w| match *w {
                    "*" => What::All,
                    "software" => What::Software,
                    name => What::Interfaces(name.into()),
                })
                .collect(),
        };
        let rules = vec![
            rule(Who::Group(50), &["*"]),
            rule(Who::User(7), &["eth1", "veth*"]),
            rule(Who::Everyone, &["software"]),
        ];
        let policy = Policy { own: 0, rules };
        for member in [peer(9, 50, &[]), peer(9, 1, &[2, 50])] {
            assert!(policy.allows(&member, &interface("eth0")));
        }
        let seven = peer(7, 1, &[]);
        let may = |name| policy.allows(&seven, &interface(name));
        assert_eq!(["eth1", "eth10", "veth0", "veth", "eth0"].map(may), [true, false, true, true, false]);
        assert!(policy.allows(&peer(8, 1, &[]), &Subject::Software) && policy.admits(&peer(8, 1, &[])));
        assert!(!policy.allows(&peer(8, 1, &[]), &interface("eth1")));
    }

    #[test]
    fn what_a_request_is_about_shows_in_its_kind_and_name() {
        let about = |name: &str, flags| subject_of(&Register { flags, ..Register::new(PortName::new(name).unwrap()) });
        assert_eq!(about("eth0", 0), interface("eth0"));
        assert_eq!(about("eth0", NR_MONITOR_TX), interface("eth0"));
        assert_eq!(about("eth0{1", NR_MONITOR_TX), Subject::Software);
        assert_eq!(about("eth0{1", 0), Subject::Software);
        assert_eq!(about("vale0:p", 0), Subject::Software);
        let name = |text| PortName::new(text).unwrap();
        assert_eq!(subject_of_request(&Request::ValeDetach(name("vale0:eth0"))), interface("eth0"));
        assert_eq!(subject_of_request(&Request::HdrGet(name("eth0"))), Subject::Facts);
        assert_eq!(subject_of_request(&Request::ValeDelif(name("x"))), Subject::Software);
    }
}
