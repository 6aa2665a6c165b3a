//! Names of the ports of switches: pure.

use crate::abi::NETMAP_REQ_IFNAMSIZ;
use crate::ctl::{Failure, PortName};

/// Longest name of a port within its switch, and of a switch: `IFNAMSIZ` less its zero.
pub(super) const LONGEST: usize = 15;

const _: () = assert!(NETMAP_REQ_IFNAMSIZ > 2 * LONGEST);

/// A name split at its colon.
pub(super) struct Split {
    /// With its prefix.
    pub switch: Vec<u8>,
    /// Without the switch: a plain name.
    pub port: PortName,
}

/// `valeS:P` in its parts, or none if the original would not take it (`nm_bdg_name_validate`).
pub(super) fn split(name: PortName) -> Option<Split> {
    let bytes = name.as_bytes();
    let colon = bytes.iter().position(|&b| b == b':').filter(|&at| at <= LONGEST)?;
    let good = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let (switch, port) = (&bytes[..colon], &bytes[colon + 1..]);
    // The port of host rings has the mark of such behind the interface's name.
    let longest = LONGEST + usize::from(port.ends_with(b"^"));
    if !bytes.starts_with(b"vale") || !switch.iter().all(good) || port.len() > longest {
        return None;
    }
    Some(Split { switch: switch.to_vec(), port: PortName::from_field(port) })
}

/// The plain name of the port in `valeS:P`.
pub(super) fn local_name(name: PortName) -> Result<PortName, Failure> {
    split(name).map(|s| s.port).ok_or_else(|| Failure::bad_switch_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_original_takes() {
        let name = |s: &str| PortName::new(s).unwrap();
        for good in ["vale0:1", "vale:x", "vale_A9:p-1", "vale0:", "vale67890123456:123456789012345"] {
            assert!(split(name(good)).is_some(), "{good}");
        }
        for bad in ["vale0", "vale-0:1", "vale 0:1", "vale678901234567:1", "vale0:1234567890123456", "val:1", "eth0"] {
            assert!(split(name(bad)).is_none(), "{bad}");
        }
    }
}
