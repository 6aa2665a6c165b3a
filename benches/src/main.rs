//! `make bench`: what netmap-xdp costs, always against a peer in the same run.
//!
//! | subcommand | question | peer |
//! |---|---|---|
//! | `nic` | sending and receiving over veth, by the Rust API and by a preloaded C program | a bare AF_XDP loop |
//! | `forward` | forwarding from veth to veth by these two and by `bridge` | a bare AF_XDP loop; DPDK's testpmd, from Debian |
//! | `host` | TCP of a host through its host rings | the same without netmap |
//! | `layer` | time and instructions of one sync per packet, without the kernel | a stand-in for the kernel's side |
//! | `pipe`, `vale` | packets between two busy processes, through netmapd | a bare ring in shared memory, a copy per packet |
//! | `instructions` | instructions per packet, by callgrind: a guard that any machine can run | a budget |
//! | `wakeup` | how late a sleeping receiver is | a FIFO |
//! | `preload` | price of a call that has nothing to do | the system call itself, without the preload |
//!
//! Rates of a machine say little by themselves, and this one may be busy with other things: every number that counts is
//! a ratio of two contenders of the same round. Needs root for `nic`, `forward`, `host` and `preload`, which make
//! network namespaces of their own and delete them.

mod bare;
mod count;
mod forward;
mod host;
mod layer;
mod machine;
mod memory;
mod nic;
mod pairs;
mod preload;
mod stats;
mod wakeup;
mod worker;

use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

/// Measures netmap-xdp against bare AF_XDP; without a subcommand, everything.
#[derive(Parser)]
#[command(name = "netmap-xdp-benches")]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    effort: Effort,
}

/// How much to measure.
#[derive(Args, Clone, Copy)]
pub struct Effort {
    /// A short run that shows that everything works; its numbers are rough
    #[arg(long, global = true)]
    quick: bool,
    /// End with status 1 if a goal is missed
    #[arg(long, global = true)]
    check: bool,
    /// Rounds; every contender runs once in each
    #[arg(long, global = true)]
    rounds: Option<usize>,
}

impl Effort {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 9 }).max(1)
    }

    /// Rounds at most: with `--check`, a goal that is missed by no more than chance gets others.
    fn most_rounds(&self) -> usize {
        if self.check { 5 * self.rounds() } else { self.rounds() }
    }

    /// How long one contender is measured in one round.
    fn window(&self) -> Duration {
        Duration::from_millis(if self.quick { 150 } else { 500 })
    }

    /// How often one contender has its turn in one round, where turns are short.
    fn turns(&self) -> usize {
        if self.quick { 4 } else { 40 }
    }
}

#[derive(Subcommand)]
enum What {
    /// Sending and receiving over veth
    Nic(nic::Choice),
    /// Forwarding from veth to veth, against DPDK's testpmd too; installs it (Debian)
    Forward,
    /// TCP of a host through its host rings
    Host,
    /// One sync per packet, without the kernel
    Layer,
    /// Calls that have nothing to do
    Preload,
    /// Pipes between two busy processes
    Pipe,
    /// Switches between two busy processes
    Vale,
    /// How late a sleeping receiver is
    Wakeup,
    /// Instructions per packet, against budgets
    Instructions,
    /// One end of a pair, in a process of its own
    #[command(hide = true)]
    Pair(pairs::Job),
    /// A contender of `nic`, in a process of its own
    #[command(hide = true)]
    Worker(worker::Job),
    /// What `instructions` counts
    #[command(hide = true)]
    Count(count::Count),
}

/// Whether every goal of a benchmark was reached.
type Reached = bool;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let effort = cli.effort;
    let reached = match cli.what {
        Some(What::Worker(job)) => return worker::run(&job),
        Some(What::Count(count)) => return count::count(&count),
        Some(What::Pair(job)) => return pairs::run(&job),
        Some(What::Nic(choice)) => all(&effort, &[&|effort: &Effort| nic::some(effort, &choice)]),
        Some(What::Forward) => all(&effort, &[&forward::run]),
        Some(What::Host) => all(&effort, &[&host::run]),
        Some(What::Layer) => all(&effort, &[&layer::run]),
        Some(What::Preload) => all(&effort, &[&preload::run]),
        Some(What::Pipe) => all(&effort, &[&memory::pipe]),
        Some(What::Vale) => all(&effort, &[&memory::vale]),
        Some(What::Instructions) => all(&effort, &[&count::run]),
        Some(What::Wakeup) => all(&effort, &[&wakeup::run]),
        None => all(
            &effort,
            &[
                &layer::run,
                &count::run,
                &memory::pipe,
                &memory::vale,
                &wakeup::run,
                &preload::run,
                &nic::run,
                &forward::run_with_what_is_installed,
                &host::run,
            ],
        ),
    };
    if effort.check && !reached {
        eprintln!("a goal was missed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn all(effort: &Effort, benches: &[&dyn Fn(&Effort) -> Reached]) -> Reached {
    machine::describe();
    // Every one runs, whatever the others say.
    benches.iter().filter(|bench| !bench(effort)).count() == 0
}
