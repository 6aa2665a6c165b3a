//! `nmx`: what netmap ports there are (`status`), how fast they run (`top`), whether an interface will work (`doctor`).
//!
//! A guest: it asks and looks, and binds, starts and changes nothing.

mod doctor;
mod status;
mod top;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// See what netmap-xdp does on this machine.
#[derive(Parser, Debug)]
#[command(name = "nmx", version)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Regions, ports, rings, who holds them, and where every buffer is
    Status(status::Options),
    /// Rates of every ring, again and again
    Top(top::Options),
    /// Whether an interface will work, and what mends it if not
    Doctor(doctor::Options),
}

/// The program.
pub fn main() -> ExitCode {
    let done = match Options::parse().what {
        What::Status(options) => status::run(&options),
        What::Top(options) => top::run(&options),
        What::Doctor(options) => doctor::run(&options),
    };
    done.unwrap_or_else(|message| {
        eprintln!("nmx: {message}");
        ExitCode::from(2)
    })
}

/// Packets, bytes and drops as people read them: three digits and a prefix.
fn short(value: u64) -> String {
    match value {
        0..10_000 => value.to_string(),
        10_000..10_000_000 => format!("{}k", value / 1000),
        10_000_000..10_000_000_000 => format!("{}M", value / 1_000_000),
        _ => format!("{}G", value / 1_000_000_000),
    }
}

/// Rows under each other, the columns as wide as they must be; the first `left` columns are words, the others numbers.
fn table(rows: &[Vec<String>], left: usize, indent: &str) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cell = |(c, cell): (usize, &String)| {
            if c < left { format!("{cell:<w$}", w = widths[c]) } else { format!("{cell:>w$}", w = widths[c]) }
        };
        let line = row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ");
        text.push_str(&format!("{indent}{}\n", line.trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = vec![vec!["ring".into(), "packets".into()], vec!["tx 0".into(), "5".into()]];
        assert_eq!(table(&rows, 1, " "), " ring  packets\n tx 0        5\n");
        assert_eq!(table(&[], 1, ""), "");
    }

    #[test]
    fn numbers_are_short() {
        let of = [7, 9999, 10_000, 12_345_678, 99_000_000_000].map(short);
        assert_eq!(of, ["7", "9999", "10k", "12M", "99G"]);
    }

    #[test]
    fn the_command_line_makes_sense() {
        use clap::CommandFactory;
        Options::command().debug_assert();
        assert!(Options::try_parse_from(["nmx", "doctor"]).is_err());
        assert!(Options::try_parse_from(["nmx", "top", "-i", "0"]).is_err());
    }
}
