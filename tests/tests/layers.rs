//! The order of the layers (DESIGN.md 3), checked in the source: a module uses only those below it, `unsafe` stays where it
//! belongs, and no file grows without being noticed.
//!
//! Works on tokens, not on a syntax tree: it sees every `use` and every path that starts at `crate`, `self`, `super` or
//! `netmap_xdp`, in tests too. It does not see through macros or renamed crates; it refuses what would hide an edge from it
//! (`use crate::*`, `use netmap_xdp as x`).

use netmap_xdp_tests::workspace;
use std::path::{Path, PathBuf};

/// Modules of the library, the lowest first. Those in one line do not use each other.
const LAYERS: [&[&str]; 11] = [
    &["sync", "index"],
    &["abi"],
    &["sys"],
    &["shm"],
    &["ring", "xsk"],
    &["port"],
    &["ctl"],
    &["engine"],
    &["proto"],
    &["client", "daemon"],
    &["api"],
];
/// Modules whose children know their parent but not each other.
const STRANGERS: [&str; 1] = ["port"];
/// What other crates use of the library.
const OUTSIDERS: [(&str, &[&str]); 4] = [
    ("compat-c/src", &["client", "abi", "sys", "sync"]),
    ("libbpf/src", &["xsk", "sys"]),
    ("tools", &["api"]),
    ("netmapd/src", &["daemon"]),
];
/// Modules of the library that may be unsafe. Outside of it: the shims, the tests and the benchmarks.
const UNSAFE_MODULES: [&str; 4] = ["sys", "shm", "xsk", "abi"];
/// What the tools may do that std has no safe call for: CPU affinity and signal handlers.
const UNSAFE_IN_TOOLS: [&str; 2] = ["tools/src/cpu.rs", "tools/src/signal.rs"];

/// Lines that a source file may have.
const LONGEST: usize = 800;
/// Files that are longer, and why that is right.
const LONG_FILES: [(&str, &str); 0] = [];

/// A word, a path separator or a single punctuation mark, with its line.
#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

/// The tokens of Rust source, without comments, literals and lifetimes.
fn tokens(source: &str) -> Vec<Token> {
    let text: Vec<char> = source.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    let mut found = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < text.len() {
        let start = i;
        match at(i) {
            '/' if at(i + 1) == '/' => i = end_of(&text, i, |c, _| c == '\n'),
            '/' if at(i + 1) == '*' => i = end_of_comment(&text, i),
            '"' => i = end_of_string(&text, i),
            'r' | 'b' | 'c' if literal_prefix(&text, i).is_some() => i = literal_prefix(&text, i).unwrap_or(i + 1),
            '\'' if at(i + 1) == '\\' => i = end_of(&text, i + 3, |c, _| c == '\'') + 1,
            '\'' if at(i + 2) == '\'' => i += 3,
            '\'' => i = end_of(&text, i + 1, |c, _| !is_word(c)),
            c if is_word(c) => {
                i = end_of(&text, i, |c, _| !is_word(c));
                found.push(Token { text: text[start..i].iter().collect(), line });
            }
            c if c.is_whitespace() => i += 1,
            c => {
                let word = if c == ':' && at(i + 1) == ':' { "::".to_string() } else { c.to_string() };
                i += word.len();
                found.push(Token { text: word, line });
            }
        }
        line += text[start..i.min(text.len())].iter().filter(|c| **c == '\n').count();
    }
    found
}

/// Position of the first character from `i` on for which `stop` holds; it is given the position too.
fn end_of(text: &[char], i: usize, stop: impl Fn(char, usize) -> bool) -> usize {
    (i..text.len()).find(|j| stop(text[*j], *j)).unwrap_or(text.len())
}

fn end_of_comment(text: &[char], mut i: usize) -> usize {
    let mut depth = 0;
    while i < text.len() {
        match (text[i], text.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 1),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 1),
            _ => {}
        }
        i += 1;
        if depth == 0 {
            break;
        }
    }
    i
}

/// The end of a string literal whose opening quote is at `i`.
fn end_of_string(text: &[char], mut i: usize) -> usize {
    i += 1;
    while i < text.len() && text[i] != '"' {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The end of a literal that starts with letters at `i`: raw, byte and C strings, byte characters.
fn literal_prefix(text: &[char], i: usize) -> Option<usize> {
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let letters = end_of(text, i, |c, _| !"rbc".contains(c));
    let marks = end_of(text, letters, |c, _| c != '#');
    let raw = text[i..letters.min(text.len())].contains(&'r');
    match at(marks) {
        '"' if raw => {
            let closes = |j: usize| (1..=marks - letters).all(|k| at(j + k) == '#');
            Some(end_of(text, marks + 1, |c, j| c == '"' && closes(j)) + 1 + marks - letters)
        }
        '"' if marks == letters => Some(end_of_string(text, letters)),
        '\'' if marks == letters && letters == i + 1 && at(i) == 'b' => {
            let first = if at(letters + 1) == '\\' { letters + 3 } else { letters + 2 };
            Some(end_of(text, first, |c, _| c == '\'') + 1)
        }
        _ => None,
    }
}

/// A path that the source names, from the root of its crate or from the library's name on.
#[derive(Debug, PartialEq)]
struct Mention {
    /// Whether it starts at `netmap_xdp`, and not at the crate's own root.
    outside: bool,
    path: Vec<String>,
    line: usize,
}

/// All paths that a file names; `home` is the module path of the file.
fn mentions(source: &str, home: &[String]) -> Vec<Mention> {
    let tokens = tokens(source);
    let mut here = home.to_vec();
    // The brace depth at which each inline module was opened.
    let mut opened: Vec<usize> = Vec::new();
    let mut depth = 0;
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let before = i.checked_sub(1).map(|j| tokens[j].text.as_str());
        match tokens[i].text.as_str() {
            "mod" if tokens.get(i + 2).is_some_and(|t| t.text == "{") => {
                here.push(tokens[i + 1].text.clone());
                opened.push(depth);
                i += 1;
            }
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if opened.last() == Some(&depth) {
                    opened.pop();
                    here.pop();
                }
            }
            // `crate` is a keyword of paths, but for `extern crate`.
            "crate" if before == Some("extern") => {
                i = use_tree(&tokens, i + 1, &[], &here, &mut found);
                continue;
            }
            "use" => {
                i = use_tree(&tokens, i + 1, &[], &here, &mut found);
                continue;
            }
            "crate" | "self" | "super" | "netmap_xdp"
                if before != Some("::") && tokens.get(i + 1).is_some_and(|t| t.text == "::") =>
            {
                i = use_tree(&tokens, i, &[], &here, &mut found);
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    found
}

/// Reads a path, or a tree of them in braces, from token `i` on; returns the position after it.
fn use_tree(tokens: &[Token], mut i: usize, prefix: &[String], here: &[String], found: &mut Vec<Mention>) -> usize {
    let mut path = prefix.to_vec();
    let line = tokens.get(i).map_or(0, |t| t.line);
    let text = |i: usize| tokens.get(i).map_or("", |t| t.text.as_str());
    if text(i) == "::" {
        i += 1;
    }
    loop {
        match text(i) {
            "{" => {
                i += 1;
                while !matches!(text(i), "}" | "") {
                    i = if text(i) == "," { i + 1 } else { use_tree(tokens, i, &path, here, found).max(i + 1) };
                }
                return i + 1;
            }
            "*" => path.push("*".into()),
            // Generic arguments of a path in code: they are read again as paths of their own.
            "<" => break,
            word if word.starts_with(|c: char| c == '_' || c.is_alphanumeric()) => path.push(word.into()),
            _ => break,
        }
        i += 1;
        if text(i) != "::" {
            break;
        }
        i += 1;
    }
    if let Some(mention) = resolve(&path, here, line) {
        found.push(mention);
    }
    if text(i) == "as" { i + 2 } else { i }
}

/// Makes a path absolute; `None` for one that leads elsewhere.
fn resolve(path: &[String], here: &[String], line: usize) -> Option<Mention> {
    let mut base = match path.first()?.as_str() {
        "netmap_xdp" => return Some(Mention { outside: true, path: path[1..].to_vec(), line }),
        "crate" => Vec::new(),
        "self" | "super" => here.to_vec(),
        _ => return None,
    };
    for word in path {
        match word.as_str() {
            "crate" | "self" => {}
            "super" => drop(base.pop()),
            _ => base.push(word.clone()),
        }
    }
    Some(Mention { outside: false, path: base, line })
}

/// The place of a module in the order.
fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&module))
}

/// Module path of a file below `src`: `port/nic.rs` is `port::nic`.
fn module_path(relative: &Path) -> Vec<String> {
    let mut path: Vec<String> = relative.with_extension("").iter().map(|p| p.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| last == "mod" || last == "lib") {
        path.pop();
    }
    path
}

/// Faults of one file of the library. `strangers` are the module paths of all children in [`STRANGERS`].
fn library_faults(relative: &Path, source: &str, strangers: &[Vec<String>]) -> Vec<String> {
    let home = module_path(relative);
    let name = relative.display();
    let mut faults = Vec::new();
    let own = home.first().map(String::as_str);
    if let Some(own) = own
        && layer(own).is_none()
    {
        faults.push(format!("{name}: module {own} is not in the table of layers"));
    }
    for mention in mentions(source, &home) {
        let at = format!("{name}:{}", mention.line);
        let path = mention.path.join("::");
        let Some(own) = own else { continue };
        let Some(other) = mention.path.first().map(String::as_str) else {
            faults.push(format!("{at}: names the root of the crate by itself, which hides what it uses"));
            continue;
        };
        if mention.outside {
            faults.push(format!("{at}: the library names itself: netmap_xdp::{path}"));
        } else if own != other {
            match (layer(own), layer(other)) {
                (_, None) => faults.push(format!("{at}: {path} does not start with a module of the table of layers")),
                (Some(from), Some(to)) if to == from => faults.push(format!("{at}: sideways edge {own} -> {path}")),
                (Some(from), Some(to)) if to > from => faults.push(format!("{at}: upward edge {own} -> {path}")),
                _ => {}
            }
        } else if let Some(sibling) = strangers.iter().find(|s| mention.path.starts_with(s))
            && home.len() > 1
            && !home.starts_with(sibling)
        {
            faults.push(format!("{at}: sideways edge {} -> {path}", home.join("::")));
        }
    }
    if own.is_none_or(|own| !UNSAFE_MODULES.contains(&own)) {
        faults.extend(unsafe_lines(source).map(|line| format!("{name}:{line}: unsafe outside of {UNSAFE_MODULES:?}")));
    }
    faults
}

/// Faults of one file of a crate that uses the library.
fn outsider_faults(name: &Path, source: &str, allowed: &[&str]) -> Vec<String> {
    let outside = mentions(source, &[]).into_iter().filter(|m| m.outside);
    let wrong = outside.filter(|m| m.path.first().is_none_or(|module| !allowed.contains(&module.as_str())));
    let fault = |m: Mention| {
        format!("{}:{}: uses netmap_xdp::{}, and may use only {allowed:?}", name.display(), m.line, m.path.join("::"))
    };
    wrong.map(fault).collect()
}

fn unsafe_lines(source: &str) -> impl Iterator<Item = usize> {
    tokens(source).into_iter().filter(|t| t.text == "unsafe").map(|t| t.line)
}

/// Faults of a file's length.
fn length_fault(name: &str, lines: usize, listed: &[(&str, &str)]) -> Option<String> {
    match (lines > LONGEST, listed.iter().any(|(file, _)| *file == name)) {
        (true, false) => {
            Some(format!("{name}: {lines} lines, more than {LONGEST}: split it, or list it with the reason"))
        }
        (false, true) => Some(format!("{name}: listed as long, and is not")),
        _ => None,
    }
}

/// Files with one of the extensions, in and below `dir`.
fn files(dir: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if path.is_dir() && !hidden && !["target", "build"].iter().any(|skip| path.ends_with(skip)) {
            found.extend(files(&path, extensions));
        } else if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[track_caller]
fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_library_keeps_its_layers() {
    let root = workspace().join("netmap-xdp/src");
    let sources = files(&root, &["rs"]);
    assert!(sources.len() > 10, "the source is not where it was");
    let relative = |path: &Path| path.strip_prefix(&root).expect("below the root").to_path_buf();
    let modules = sources.iter().map(|p| module_path(&relative(p)));
    let mut strangers: Vec<Vec<String>> =
        modules.filter(|m| m.len() > 1 && STRANGERS.contains(&m[0].as_str())).map(|m| m[..2].to_vec()).collect();
    strangers.dedup();
    assert_none(sources.iter().flat_map(|p| library_faults(&relative(p), &read(p), &strangers)).collect());
}

#[test]
fn other_crates_use_only_what_they_may() {
    let mut faults = Vec::new();
    for (dir, allowed) in OUTSIDERS {
        for path in files(&workspace().join(dir), &["rs"]) {
            let name = path.strip_prefix(workspace()).expect("below the workspace");
            let source = read(&path);
            faults.extend(outsider_faults(name, &source, allowed));
            if dir == "tools" && !UNSAFE_IN_TOOLS.iter().any(|file| name == Path::new(file)) {
                faults.extend(unsafe_lines(&source).map(|line| format!("{}:{line}: unsafe in a tool", name.display())));
            }
        }
    }
    assert_none(faults);
}

#[test]
fn no_file_grows_unnoticed() {
    let all = files(workspace(), &["rs", "c", "sh"]);
    let named = all.iter().map(|p| (p.strip_prefix(workspace()).expect("below").to_string_lossy().into_owned(), p));
    let mut faults: Vec<String> =
        named.filter_map(|(name, p)| length_fault(&name, read(p).lines().count(), &LONG_FILES)).collect();
    let gone = LONG_FILES.iter().filter(|(file, _)| !workspace().join(file).exists());
    faults.extend(gone.map(|(file, _)| format!("{file}: listed as long, and does not exist")));
    assert_none(faults);
}

mod the_checker {
    use super::*;

    fn faults(file: &str, source: &str) -> Vec<String> {
        let child = |name: &str| vec!["port".to_string(), name.to_string()];
        library_faults(Path::new(file), source, &[child("nic"), child("pipe")])
    }

    #[track_caller]
    fn finds(file: &str, source: &str, what: &str) {
        let faults = faults(file, source);
        assert!(faults.len() == 1 && faults[0].contains(what), "{what:?} expected in {faults:?}");
    }

    #[track_caller]
    fn accepts(file: &str, source: &str) {
        assert_none(faults(file, source));
    }

    #[test]
    fn finds_an_upward_edge() {
        finds("ring/mod.rs", "use crate::port::Port;", "ring/mod.rs:1: upward edge ring -> port::Port");
        finds("sys/fd.rs", "\n\nfn f() { crate::engine::start() }", "sys/fd.rs:3: upward edge sys -> engine::start");
        finds("shm/plan.rs", "use crate::{abi, sys::{Errno}, client::{Fd}};", "upward edge shm -> client::Fd")
    }

    #[test]
    fn finds_a_sideways_edge() {
        finds("ring/mod.rs", "use crate::{abi::netmap_ring, xsk::Umem};", "sideways edge ring -> xsk::Umem");
        finds("xsk/mod.rs", "use super::ring;", "sideways edge xsk -> ring");
        finds("xsk/umem.rs", "use super::super::ring::Kring;", "sideways edge xsk -> ring::Kring");
        finds("client/table.rs", "pub use crate::daemon;", "sideways edge client -> daemon");
    }

    #[test]
    fn finds_siblings_that_meet() {
        finds("port/nic.rs", "use super::pipe::Pipe;", "sideways edge port::nic -> port::pipe::Pipe");
        finds("port/nic/rx.rs", "use crate::port::pipe;", "sideways edge port::nic::rx -> port::pipe");
        accepts("port/nic/rx.rs", "use super::tx::Kick; use crate::port::{Port, nic::Nic};");
        accepts("port/mod.rs", "mod nic; mod pipe; use self::nic::Nic; pub use crate::port::pipe::Pipe;");
    }

    #[test]
    fn finds_edges_in_inline_modules() {
        finds("ring/mod.rs", "mod tests { use super::*; use crate::api::Port; }", "upward edge ring -> api::Port");
        finds("ring/mod.rs", "mod tests { use super::super::xsk; }", "sideways edge ring -> xsk");
        accepts(
            "ring/mod.rs",
            "mod tests { use super::*; fn f() { if x { super::f(); } super::g() } } use self::k::K;",
        );
        finds("ring/mod.rs", "mod tests { fn f() { { } } } use super::xsk;", "sideways edge ring -> xsk");
    }

    #[test]
    fn finds_what_would_hide_an_edge() {
        finds("ring/mod.rs", "use crate::*;", "* does not start with a module");
        finds("ring/mod.rs", "use crate as all;", "");
        finds("ring/mod.rs", "use super::*;", "* does not start with a module");
        finds("ring/mod.rs", "use crate::Port;", "Port does not start with a module");
        finds("api/mod.rs", "use netmap_xdp::client;", "the library names itself");
        finds("extra/mod.rs", "", "module extra is not in the table");
    }

    #[test]
    fn accepts_downward_edges() {
        accepts("api/mod.rs", "use crate::client::{self, Table}; use crate::sys;\nuse std::fmt;");
        accepts("abi/legacy.rs", "use super::{IFNAMSIZ, netmap::pod}; pub(in crate::abi) fn f() {}");
        accepts("engine/mod.rs", "macro_rules! m { () => { $crate::sys::log!() } } fn f(x: Vec<crate::shm::Plan>) {}");
        accepts("lib.rs", "pub mod api; pub use crate::api::Port; pub use self::api::*;");
        accepts("xsk/mod.rs", "impl X { fn f(self) -> Self { self.umem; Self::new(self) } }");
    }

    #[test]
    fn reads_over_comments_and_literals() {
        let hidden = r####"
            //! See [`crate::api`].
            /* crate::api::x /* nested crate::api::y */ crate::api::z */
            const A: &str = "crate::api::a \" unsafe {"; const B: &[u8] = b"crate::api";
            const C: &str = r#"crate::api "quoted" unsafe"#; const D: (char, char, u8) = ('"', '\'', b'"');
            fn f<'a>(x: &'a str, l: char) -> char { 'x' }
        "####;
        accepts("ring/mod.rs", hidden);
        finds("ring/mod.rs", &format!("{hidden}\nuse crate::api;"), "ring/mod.rs:8: upward edge ring -> api");
    }

    #[test]
    fn finds_unsafe_where_it_does_not_belong() {
        finds("ring/mod.rs", "fn f() {\n  unsafe { g() }\n}", "ring/mod.rs:2: unsafe");
        finds("lib.rs", "unsafe fn f() {}", "lib.rs:1: unsafe");
        accepts("lib.rs", "#![deny(unsafe_code)]");
        for module in UNSAFE_MODULES {
            accepts(&format!("{module}/mod.rs"), "unsafe fn f() {}");
        }
    }

    #[test]
    fn finds_a_crate_that_reaches_too_deep() {
        let check = |source: &str| outsider_faults(Path::new("tools/src/x.rs"), source, &["api"]);
        assert!(
            check("use netmap_xdp::api::{Port, Error}; fn f() { ::netmap_xdp::api::g() } use crate::sys;").is_empty()
        );
        for deep in
            ["use netmap_xdp::{api::Port, sys};", "fn f() { netmap_xdp::client::open(0) }", "use ::netmap_xdp::shm;"]
        {
            assert_eq!(check(deep).len(), 1, "{deep}");
        }
        for hiding in ["use netmap_xdp as n;", "use netmap_xdp::*;", "use netmap_xdp;", "extern crate netmap_xdp as n;"]
        {
            assert_eq!(check(hiding).len(), 1, "{hiding}");
        }
    }

    #[test]
    fn finds_a_long_file_and_a_list_that_is_out_of_date() {
        let listed = [("long.rs", "tables")];
        assert!(length_fault("new.rs", LONGEST + 1, &listed).is_some());
        assert!(length_fault("new.rs", LONGEST, &listed).is_none());
        assert!(length_fault("long.rs", LONGEST + 1, &listed).is_none());
        assert!(length_fault("long.rs", LONGEST, &listed).is_some());
    }
}
