//! `nmx doctor IF`: everything that decides whether an interface will work, with the command that mends what will not.

use super::table;
use clap::Args;
use netmap_xdp::api::doctor::{Report, Verdict, examine};
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Args, Debug)]
pub struct Options {
    /// The interface
    interface: String,
    /// As JSON, on one line
    #[arg(long)]
    json: bool,
}

/// Status 0: it will work; 1: it will not.
pub fn run(options: &Options) -> Result<ExitCode, String> {
    let report = examine(&options.interface).map_err(|e| e.to_string())?;
    if options.json {
        println!("{}", as_json(&report));
    } else {
        print!("{}", as_text(&report));
    }
    Ok(if report.worst() == Verdict::Fail { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn as_text(report: &Report) -> String {
    let mut rows = Vec::new();
    for f in &report.findings {
        rows.push(vec![f.verdict.to_string(), f.topic.to_string(), f.text.clone()]);
        if let Some(mend) = &f.mend {
            rows.push(vec![String::new(), String::new(), format!("-> {mend}")]);
        }
    }
    let sum = match report.mode {
        Some(mode) => format!("{} will work, in {mode} mode as far as can be told without trying", report.interface),
        None => format!("{} will not work as things are", report.interface),
    };
    format!("{}{sum}\n", table(&rows, 3, ""))
}

fn as_json(report: &Report) -> Value {
    let finding = |f: &netmap_xdp::api::doctor::Finding| json!({ "topic": f.topic, "verdict": f.verdict.to_string(), "text": f.text, "mend": f.mend });
    json!({
        "shape": 1,
        "interface": report.interface,
        "works": report.worst() != Verdict::Fail,
        "mode": report.mode,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_examined_and_an_absent_one_is_an_error() {
        let report = examine("lo").unwrap();
        let text = as_text(&report);
        for topic in ["kernel", "driver", "queues", "link", "xdp", "netmapd", "rights", "memlock", "bpf", "hugepages"] {
            assert!(report.findings.iter().any(|f| f.topic == topic), "{topic} is not in\n{text}");
        }
        let json = as_json(&report);
        assert_eq!(json["interface"], "lo");
        assert_eq!(json["works"], report.worst() != Verdict::Fail);
        assert_eq!(json["findings"].as_array().map(Vec::len), Some(report.findings.len()));
        assert!(examine("no-such-if-0").is_err());
    }
}
