//! `vale-ctl`: switches and their ports, with the options of the original's program of that name.
//!
//! What is printed on standard output is for scripts and keeps the original's shape.

use clap::Parser;
use netmap_xdp::api::Error;
use netmap_xdp::api::control::{self, Info, NETMAP_POLLING_MODE_MULTI_CPU, NETMAP_POLLING_MODE_SINGLE_CPU, Shape};
use std::process::ExitCode;

/// Make, attach, detach and list the ports of VALE switches; without an option, list them all.
#[derive(Parser, Debug)]
#[command(name = "vale-ctl", version, disable_help_flag = true)]
struct Options {
    /// Describe a port
    #[arg(short = 'g', value_name = "PORT")]
    info: Option<String>,
    /// Detach valeS:NAME
    #[arg(short = 'd', value_name = "PORT")]
    detach: Option<String>,
    /// Attach valeS:NAME
    #[arg(short = 'a', value_name = "PORT")]
    attach: Option<String>,
    /// Attach valeS:NAME together with its host rings
    #[arg(short = 'h', value_name = "PORT")]
    attach_host: Option<String>,
    /// Make a persistent port
    #[arg(short = 'n', value_name = "NAME")]
    create: Option<String>,
    /// Delete it
    #[arg(short = 'r', value_name = "NAME")]
    remove: Option<String>,
    /// Show the indexes of switch and port
    #[arg(short = 'l', value_name = "PORT")]
    list: Option<String>,
    /// Start polling an attached NIC
    #[arg(short = 'p', value_name = "PORT")]
    poll: Option<String>,
    /// Stop it
    #[arg(short = 'P', value_name = "PORT")]
    unpoll: Option<String>,
    /// With -n and -a: SLOTS[,RX-SLOTS[,RINGS[,RX-RINGS]]]; with -p: 0,CPU (one CPU for all rings) or 1,FIRST,COUNT
    #[arg(short = 'C', value_name = "NUMBERS")]
    config: Option<String>,
    /// With -n and -a: the region to use, by memory id or by a port that lives in it, netmap:NAME
    #[arg(short = 'm', value_name = "REGION")]
    region: Option<String>,
    /// Say more
    #[arg(short = 'v')]
    verbose: bool,
    /// This text
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Numbers with commas between them.
fn numbers(text: Option<&str>) -> Result<Vec<u32>, String> {
    let parse = |word: &str| word.trim().parse().map_err(|_| format!("-C: {word:?} is not a number"));
    text.filter(|t| !t.is_empty()).map_or(Ok(Vec::new()), |t| t.split(',').map(parse).collect())
}

/// The memory id that `-m` names, 0 if it is left to the engine.
fn memory(region: Option<&str>) -> Result<u16, String> {
    let Some(text) = region else { return Ok(0) };
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return text.parse().map_err(|_| format!("-m: {text} is not a memory id"));
    }
    let name = match text.strip_prefix("netmap:") {
        Some(name) => name,
        None if text.starts_with("vale") => text,
        None => return Err(format!("-m: {text:?} is neither a memory id nor netmap:NAME")),
    };
    control::info(name).map(|i| i.shape.mem_id).map_err(|e| format!("-m: {e}"))
}

/// The shape that `-C` asks for: a number that is left out is that of the other direction.
fn shape(config: Option<&str>, mem_id: u16) -> Result<Shape, String> {
    let n = numbers(config)?;
    if n.len() > 4 {
        return Err(format!("-C: at most four numbers are understood, not {}", n.len()));
    }
    let at = |i: usize| n.get(i).copied();
    let rings = |r: Option<u32>| {
        let r = r.unwrap_or(0);
        u16::try_from(r).map_err(|_| format!("-C: {r} rings are too many"))
    };
    Ok(Shape {
        tx_slots: at(0).unwrap_or(0),
        rx_slots: at(1).or(at(0)).unwrap_or(0),
        tx_rings: rings(at(2))?,
        rx_rings: rings(at(3).or(at(2)))?,
        mem_id,
    })
}

/// Mode, first CPU and number of CPUs that `-C` asks for.
fn polling(config: Option<&str>) -> Result<(u32, u32, u32), String> {
    let n = numbers(config)?;
    match *n.as_slice() {
        [0, cpu] => Ok((NETMAP_POLLING_MODE_SINGLE_CPU, cpu, 1)),
        [mode, first, count] if mode != 0 => Ok((NETMAP_POLLING_MODE_MULTI_CPU, first, count)),
        _ => Err("-p needs -C 0,CPU or -C 1,FIRST,COUNT".to_string()),
    }
}

fn describe(i: &Info) -> String {
    let s = &i.shape;
    format!(
        "memsize:    {}\ntx_slots:   {}\nrx_slots:   {}\ntx_rings:   {}\nrx_rings    {}\nmem_id:     {}\n",
        i.memsize, s.tx_slots, s.rx_slots, s.tx_rings, s.rx_rings, s.mem_id
    )
}

/// What is to be done, and how it is called in an error.
fn act(o: &Options) -> Result<String, String> {
    let config = o.config.as_deref();
    let failed = |what: &str, name: &str, e: Error| format!("failed to {what} {name}: {e}");
    if let Some(name) = &o.info {
        return control::info(name).map(|i| describe(&i)).map_err(|e| failed("obtain info for", name, e));
    }
    if let Some(name) = &o.detach {
        return control::detach(name).map(|i| index(o, i)).map_err(|e| failed("detach", name, e));
    }
    if let Some(name) = o.attach.as_ref().or(o.attach_host.as_ref()) {
        let wanted = shape(config, memory(o.region.as_deref())?)?;
        let done = control::attach(name, o.attach.is_none(), wanted);
        return done.map(|i| index(o, i)).map_err(|e| failed("attach", name, e));
    }
    if let Some(name) = &o.create {
        let wanted = shape(config, memory(o.region.as_deref())?)?;
        let got = control::create(name, wanted).map_err(|e| failed("create", name, e))?;
        let text = format!(
            "tx_slots:   {}\nrx_slots:   {}\ntx_rings:   {}\nrx_ring:    {}\nmem_id:     {}\n",
            got.tx_slots, got.rx_slots, got.tx_rings, got.rx_rings, got.mem_id
        );
        return Ok(if o.verbose { text } else { String::new() });
    }
    if let Some(name) = &o.remove {
        return control::remove(name).map(|()| String::new()).map_err(|e| failed("remove", name, e));
    }
    if let Some(name) = &o.list {
        let found = control::find(name).map_err(|e| failed("list", name, e))?;
        return Ok(format!("bridge_idx: {}\nport_idx:   {}\n", found.bridge, found.port));
    }
    if let Some(name) = o.poll.as_ref().or(o.unpoll.as_ref()) {
        let on = o.poll.is_some();
        let (mode, first, count) = if on { polling(config)? } else { (0, 0, 0) };
        let what = if on { "enable polling on" } else { "disable polling on" };
        let done = control::polling(name, on, mode, first, count);
        return done.map(|()| String::new()).map_err(|e| failed(what, name, e));
    }
    let all = control::list().map_err(|e| format!("failed to list all: {e}"))?;
    let line = |p: &control::Listed| format!("{} bridge_idx {} port_idx {}\n", p.name, p.bridge, p.port);
    Ok(all.iter().map(line).collect())
}

fn index(o: &Options, port: u32) -> String {
    if o.verbose { format!("port_index: {port}\n") } else { String::new() }
}

/// The program.
pub fn main() -> ExitCode {
    match act(&Options::parse()) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("vale-ctl: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<String, String> {
        act(&Options::try_parse_from(["vale-ctl"].iter().chain(args)).map_err(|e| e.to_string())?)
    }

    #[test]
    fn numbers_that_are_left_out_are_those_of_the_other_direction() {
        let of = |t| shape(Some(t), 7).map(|s| (s.tx_slots, s.rx_slots, s.tx_rings, s.rx_rings));
        assert_eq!(of("64"), Ok((64, 64, 0, 0)));
        assert_eq!(of("64,32,2"), Ok((64, 32, 2, 2)));
        assert_eq!(of("64,32,2,3"), Ok((64, 32, 2, 3)));
        assert_eq!(of(""), Ok((0, 0, 0, 0)));
        assert!(of("64,x").is_err() && of("1,2,3,4,5").is_err() && of("1,2,99999").is_err());
        assert_eq!(polling(Some("0,3")), Ok((NETMAP_POLLING_MODE_SINGLE_CPU, 3, 1)));
        assert_eq!(polling(Some("1,2,4")), Ok((NETMAP_POLLING_MODE_MULTI_CPU, 2, 4)));
        assert!(polling(None).is_err() && polling(Some("0,1,2")).is_err());
    }

    #[test]
    fn a_port_is_made_attached_listed_and_removed() {
        assert_eq!(run(&["-n", "ctl0", "-C", "64"]), Ok(String::new()));
        assert_eq!(run(&["-v", "-a", "valectl:ctl0"]), Ok("port_index: 0\n".into()));
        assert_eq!(run(&[]), Ok("valectl:ctl0 bridge_idx 0 port_idx 0\n".into()));
        assert_eq!(run(&["-l", "valectl:ctl0"]), Ok("bridge_idx: 0\nport_idx:   0\n".into()));
        assert!(run(&["-g", "valectl:ctl0"]).unwrap().contains("tx_slots:   64\n"));
        assert!(run(&["-r", "ctl0"]).unwrap_err().contains("in use"));
        assert!(run(&["-p", "valectl:ctl0", "-C", "0,1"]).unwrap_err().contains("attached"));
        assert!(run(&["-P", "valectl:ctl0"]).unwrap_err().contains("attached"));
        let id =
            run(&["-g", "valectl:ctl0"]).unwrap().lines().last().unwrap().replace("mem_id:", "").trim().to_string();
        assert!(run(&["-v", "-n", "ctl1", "-m", "netmap:ctl0"]).unwrap().contains(&format!("mem_id:     {id}\n")));
        assert_eq!(run(&["-r", "ctl1"]), Ok(String::new()));
        assert_eq!(run(&["-a", "valectl2:ctl0"]), Ok(String::new()), "a second switch");
        assert!(run(&["-d", "valectl:ctl0"]).unwrap_err().contains("in use"));
        assert_eq!(run(&["-d", "valectl2:ctl0"]), Ok(String::new()));
        assert!(run(&["-n", "ctl2", "-m", "ctl0"]).unwrap_err().contains("netmap:NAME"));
        assert!(run(&["-n", "ctl2", "-m", "99999"]).is_err() && run(&["-n", "ctl2", "-m", "netmap:none"]).is_err());
        assert_eq!(run(&["-d", "valectl:ctl0"]), Ok(String::new()));
        assert_eq!(run(&["-r", "ctl0"]), Ok(String::new()));
        assert_eq!(run(&[]), Ok(String::new()));
    }
}
