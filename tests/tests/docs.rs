//! `docs/netmap-api.md` says what is there: its tests exist, and no constant of the headers and no errno is missing; nor is a
//! setting in `docs/settings.md`.

use netmap_xdp::ctl::Condition;
use netmap_xdp_tests::workspace;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

fn read(path: &str) -> String {
    let path = workspace().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of all tables, cell by cell, without the heads.
fn rows(doc: &str) -> Vec<Vec<&str>> {
    let cells = |line: &'_ str| line.trim_matches('|').split(" | ").count();
    let lines: Vec<_> = doc.lines().collect();
    let head = |i: usize| lines.get(i + 1).is_some_and(|next| next.starts_with("|---"));
    let rows = lines.iter().enumerate().filter(|(i, l)| l.starts_with("| ") && !head(*i) && cells(l) >= 2);
    rows.map(|(_, l)| l.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// The source of the tests that the page calls `name`, if there are any of that name.
fn source(name: &str) -> Option<String> {
    let places = match name.strip_prefix("ctl/") {
        Some(part) => vec![format!("netmap-xdp/src/ctl/tests/{part}.rs"), format!("netmap-xdp/src/ctl/{part}.rs")],
        None => vec![
            format!("tests/tests/{name}.rs"),
            format!("netmap-xdp/src/{name}.rs"),
            format!("netmap-xdp/src/{name}/tests.rs"),
        ],
    };
    let found: Vec<PathBuf> = places.iter().map(|p| workspace().join(p)).filter(|p| p.exists()).collect();
    let text: String = found.iter().filter_map(|p| std::fs::read_to_string(p).ok()).collect();
    text.contains("#[test]").then_some(text)
}

/// The tests in a source: functions, and the names in a list of scenarios.
fn tests_in(text: &str) -> HashSet<String> {
    let word = |line: &str| line.trim().trim_end_matches(',').to_owned();
    let functions = text.split("#[test]").skip(1).filter_map(|after| {
        let name = after.split("fn ").nth(1)?.split('(').next()?;
        Some(name.to_owned())
    });
    let lists = text.split("scenarios! {").skip(1).filter_map(|after| after.split('}').next());
    functions.chain(lists.flat_map(str::lines).map(word)).collect()
}

#[test]
fn every_row_names_a_test_that_exists() {
    let doc = read("docs/netmap-api.md");
    let (mut known, mut wrong): (HashMap<&str, HashSet<String>>, Vec<String>) = Default::default();
    let rows = rows(&doc);
    assert!(rows.len() > 120, "{} rows", rows.len());
    for row in &rows {
        let (mut file, mut functions) = (None, 0);
        for name in quoted(row[row.len() - 1]) {
            if let Some(text) = source(name) {
                file = Some(name);
                known.entry(name).or_insert_with(|| tests_in(&text));
            } else if file.and_then(|f| known.get(f)).is_some_and(|tests| tests.contains(name)) {
                functions += 1;
            } else {
                wrong.push(format!("{}: no test {name} in {file:?}", row[0]));
            }
        }
        if functions == 0 {
            wrong.push(format!("{}: no test at all", row[0]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Names that a header defines: macros and members of enumerations.
fn constants(header: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut comment = false;
    for line in header.lines() {
        let mut line = line.to_owned();
        if comment {
            let Some(end) = line.find("*/") else { continue };
            line.replace_range(..end + 2, "");
            comment = false;
        }
        if let Some(start) = line.find("/*") {
            comment = !line[start..].contains("*/");
            line.truncate(start);
        }
        let line = line.trim();
        let name = match line.strip_prefix("#define ") {
            Some(rest) => rest.split(|c: char| !c.is_alphanumeric() && c != '_').next(),
            None => line
                .split_once(" = ")
                .map(|(name, _)| name)
                .filter(|n| n.chars().all(|c| c == '_' || c.is_ascii_uppercase())),
        };
        names.extend(name.filter(|n| !n.starts_with('_')).map(str::to_owned));
    }
    names
}

#[test]
fn every_constant_of_the_headers_has_a_row() {
    let doc = read("docs/netmap-api.md");
    let words: HashSet<&str> =
        quoted(&doc).flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_')).collect();
    let names =
        ["netmap.h", "netmap_legacy.h"].map(|h| constants(&read(&format!("compat-c/include/net/{h}")))).concat();
    assert!(names.len() > 85 && names.iter().any(|n| n == "NETMAP_REQ_CSB_ENABLE"), "{names:?}");
    let short = |name: &str| name.replace("NETMAP_REQ_OPT_", "").replace("NETMAP_REQ_", "");
    let missing: Vec<_> =
        names.iter().filter(|n| !words.contains(n.as_str()) && !words.contains(short(n).as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Functions, macros and enumerated names that a header offers to programs: those in lower case begin with `nm`.
fn offered(header: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let functions = header.lines().filter(|l| !l.starts_with([' ', '\t', '/'])).filter_map(|line| {
        let name = line.split('(').next().filter(|_| line.contains('('))?;
        let name = name.rsplit([' ', '*']).next()?;
        (name.starts_with("nm") && word(name) == name).then(|| name.to_owned())
    });
    functions.chain(constants(header)).collect()
}

#[test]
fn every_function_and_macro_for_programs_has_a_row() {
    let doc = read("docs/netmap-api.md");
    let words: HashSet<&str> =
        quoted(&doc).flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_')).collect();
    // Steps of the library in netmap_user.h that no program calls, and guards.
    let inner = [
        "LIBNETMAP_H_",
        "NM_LIB_FUNCTION",
        "NM_PARSE_ERRLEN",
        "NMREQ_OPTION_AT_",
        "nm_debug_allowed",
        "nm_debug_print",
        "nm_is_identifier",
        "nm_open_inherit",
        "nm_open_ring_range",
        "nm_open_steps",
        "nm_parse_failed",
        "nm_ring_absent",
        "nm_inject_ring",
        "nm_take_packet",
    ];
    let names = ["net/netmap_user.h", "libnetmap.h"].map(|h| offered(&read(&format!("compat-c/include/{h}")))).concat();
    assert!(
        names.len() > 80 && ["nm_nextpkt", "nmctx_lock", "NETMAP_BUF"].iter().all(|n| names.iter().any(|m| m == n))
    );
    let missing: Vec<_> =
        names.iter().filter(|n| !words.contains(n.as_str()) && !inner.contains(&n.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The body of a test function, or of the whole source if the function is one of a list.
fn body<'a>(text: &'a str, name: &str) -> &'a str {
    let Some(start) = text.find(&format!("fn {name}(")) else { return text };
    let rest = &text[start..];
    &rest[..rest.find("#[test]").unwrap_or(rest.len())]
}

#[test]
fn every_errno_has_a_row_and_a_test_that_expects_it() {
    let doc = read("docs/netmap-api.md");
    let start = doc.find("## Errnos").expect("the section of errnos");
    let rows = rows(&doc[start..]);
    let names: Vec<_> = rows.iter().filter_map(|row| quoted(row[0]).next()).collect();
    assert_eq!(
        names,
        Condition::ALL.iter().map(|c| c.name()).collect::<Vec<_>>(),
        "the rows of the table, in its order"
    );
    for (row, condition) in rows.iter().zip(Condition::ALL) {
        let errno = condition.errno_name();
        assert_eq!(quoted(row[1]).next(), Some(errno), "{}", condition.name());
        let names: Vec<_> = quoted(row[2]).collect();
        let text = source(names[0]).unwrap_or_default();
        assert!(
            names[1..]
                .iter()
                .any(|test| body(&text, test).contains(errno) || body(&text, test).contains(condition.name())),
            "{}: {names:?} does not speak of {errno}",
            condition.name()
        );
    }
}

#[test]
fn every_setting_is_in_the_table() {
    let doc = read("docs/settings.md");
    let source = read("netmap-xdp/src/sys/settings.rs");
    let names: HashSet<&str> = source.split('"').filter(|text| text.starts_with("NETMAP_XDP_")).collect();
    assert!(names.len() > 10, "{names:?}");
    let missing: Vec<_> = names.into_iter().filter(|name| !quoted(&doc).any(|q| q == *name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
