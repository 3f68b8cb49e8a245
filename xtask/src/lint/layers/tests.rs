//! Tests of the layers' check, on small crates.

use super::{
    source::{Reference, read},
    *,
};

/// Reads a module and returns the paths that it uses, each with its line and the module it is in.
fn references(module: &str, source: &str) -> Vec<String> {
    read(module, source)
        .references
        .iter()
        .map(|it: &Reference| format!("{}:{} {}", it.module, it.line, it.path.join("::")))
        .collect()
}

/// Makes the files of crate `one` of paths in `src` and their text.
fn files(files: &[(&str, &str)]) -> Vec<SourceFile> {
    files
        .iter()
        .map(|(path, text)| SourceFile::new(&format!("one/src/{path}"), (*text).to_owned()))
        .collect()
}

fn edges(sources: &[(&str, &str)]) -> Vec<String> {
    let table = Table::parse("[one]\n").unwrap();
    let code = crate_of(&table.0[0], &files(sources));
    code.edges
        .iter()
        .map(|edge| format!("{} -> {}", edge.from, edge.to))
        .collect()
}

fn findings(table: &str, sources: &[(&str, &str)]) -> Vec<String> {
    let table = Table::parse(table).unwrap();
    check(&table, "layers.txt", &["one"], &files(sources))
        .findings
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn reads_trees_of_paths() {
    assert_eq!(
        references(
            "a",
            "use crate::{b::{self, C as D}, e::*,\n f};\npub(crate) use super::g;\nuse ::h::i;"
        ),
        [
            "a:1 crate::b",
            "a:1 crate::b::C",
            "a:1 crate::e",
            "a:2 crate::f",
            "a:3 super::g",
            "a:4 ::h::i",
        ]
    );
}

#[test]
fn reads_paths_in_code() {
    assert_eq!(
        references(
            "a",
            "fn f(x: &crate::b::C) -> impl Fn() + use<'_> {\n x.y::<Z>(super::d()) }\n\
             pub(in crate::e) struct S; // crate::no\nmacro_rules! m { () => { $crate::g::h() } }"
        ),
        ["a:1 crate::b::C", "a:2 super::d", "a:4 crate::g::h"]
    );
}

#[test]
fn knows_inline_modules_and_passes_tests() {
    let source = "mod b { use super::c::D; }\nuse crate::e;\n#[cfg(test)]\nmod t { use crate::no; }\n\
                  #[cfg(test)]\n#[path = \"x.rs\"]\nmod u;\n#[cfg(test)]\nuse crate::{no};\n\
                  struct S { #[cfg(test)] f: crate::no::N<(u8, u8)>, g: crate::g::G }\n\
                  #[cfg(any(test, feature = \"sim\"))]\nuse crate::h;\n\
                  #[cfg(test)]\nimpl<A, B> S<A, B> { fn f() { crate::no::n() } }\nuse crate::i;";
    assert_eq!(
        references("a", source),
        [
            "a::b:1 super::c::D",
            "a:2 crate::e",
            "a:10 crate::g::G",
            "a:12 crate::h",
            "a:15 crate::i",
        ]
    );
    assert_eq!(read("a", source).test_modules, ["a::t", "a::u"]);
    assert_eq!(read("a", source).modules, ["a", "a::b"]);
}

#[test]
fn follows_the_names_of_the_crate_and_of_modules() {
    assert_eq!(
        edges(&[
            (
                "lib.rs",
                "mod a; mod b;\npub use b::{B, deep::Deep as Shallow};"
            ),
            ("a.rs", "use crate::{B, Shallow};\nuse std::fmt;"),
            (
                "b/mod.rs",
                "mod deep;\npub use deep::Deep;\npub struct B;\nuse deep::f;"
            ),
            ("b/deep.rs", "pub struct Deep;"),
        ]),
        ["a -> b", "a -> b::deep", "b -> b::deep"]
    );
}

#[test]
fn follows_modules_that_are_imported_whole() {
    assert_eq!(
        edges(&[
            ("a.rs", "use crate::b;\nfn f() { b::deep::g(); fmt::h(); }"),
            ("b/mod.rs", "pub mod deep;"),
            ("b/deep.rs", "use super::super::a;\nuse super::X;"),
        ]),
        ["a -> b", "a -> b::deep", "b::deep -> a", "b::deep -> b"]
    );
}

#[test]
fn names_that_lead_in_circles_lead_nowhere() {
    assert_eq!(
        edges(&[("a.rs", "use x::x;\nuse y;\nfn f() { x::z(); y::z(); }")]),
        [""; 0]
    );
}

#[test]
fn files_of_tests_may_use_anything() {
    let sources = [
        (
            "a.rs",
            "#[cfg(test)]\nmod tests;\n#[cfg(test)] mod fixture;",
        ),
        ("a/tests.rs", "use crate::b;"),
        ("a/tests/more.rs", "use crate::b;"),
        ("a/fixture.rs", "use crate::b;"),
        ("a_tests.rs", "use crate::b;"),
        ("b.rs", ""),
    ];
    assert_eq!(edges(&sources), [""; 0]);
    assert_eq!(findings("[one]\na ->\nb ->\n", &sources), [""; 0]);
}

#[test]
fn reports_edges_that_are_not_in_the_table() {
    let sources = [
        ("a.rs", "use crate::b;\nuse crate::c::{D, E};\n"),
        ("b.rs", "\nuse crate::c;\nfn f() { crate::c::g(); }"),
        ("c.rs", ""),
    ];
    assert_eq!(
        findings("[one]\na -> b c\nb -> c\nc ->\n", &sources),
        [""; 0]
    );
    assert_eq!(
        findings("[one]\na -> b\nb ->\nc ->\n", &sources),
        [
            "one/src/a.rs:2: `a` must not use `c`: allowed are b: move the item down, or say in \
             layers.txt why",
            "one/src/b.rs:2: `b` must not use `c`: allowed are none: move the item down, or say in \
             layers.txt why",
        ]
    );
}

#[test]
fn rows_of_deeper_modules_have_rules_of_their_own() {
    let sources = [
        ("agent/mod.rs", "mod status;\nmod core;\n"),
        ("agent/core.rs", "use super::status::S;"),
        ("agent/status.rs", "use crate::b;"),
        ("b.rs", ""),
    ];
    let table = "[one]\nagent -> agent::status\nagent::status -> b\nb ->\n";
    assert_eq!(findings(table, &sources), [""; 0]);
    assert_eq!(findings("[one]\nagent -> b\nb ->\n", &sources), [""; 0]);
}

#[test]
fn reports_a_circle_in_the_table() {
    let sources = [
        ("a.rs", "use crate::b;"),
        ("b.rs", "use crate::c;"),
        ("c.rs", "use crate::a;"),
    ];
    assert_eq!(
        findings("[one]\na -> b\nb -> c\nc -> a\n", &sources),
        [
            "layers.txt:2: a circle of 3 modules of one: a -> b -> c -> a: break it by moving items down"
        ]
    );
}

#[test]
fn reports_entries_that_are_not_used_and_modules_without_a_row() {
    assert_eq!(
        findings(
            "[one]\na -> b\nb ->\nd ->\n",
            &[("a.rs", ""), ("b.rs", ""), ("c/mod.rs", ""), ("c/e.rs", "")]
        ),
        [
            "layers.txt:1: `c` of one has no row: add one",
            "layers.txt:2: `a` does not use `b`: remove it",
            "layers.txt:4: one has no module `d`: remove the row",
        ]
    );
}

#[test]
fn reports_a_crate_without_rows() {
    assert_eq!(
        findings("[two]\n", &[("a.rs", "")]),
        ["layers.txt:1: no rows for one: begin with `[one]`"]
    );
}

#[test]
fn a_draft_is_a_table_that_the_code_fulfils() {
    let sources = files(&[
        ("lib.rs", "pub use a::A;"),
        ("a.rs", "use crate::{b::deep::D, c::C};"),
        ("b/mod.rs", ""),
        ("b/deep.rs", "use crate::a::A;"),
        ("c.rs", ""),
    ]);
    let table = Table::parse("[one]\nb::deep ->\n").unwrap();
    let text = draft(&table, &sources, 1);
    assert_eq!(
        text,
        "[one]\n# 3 edges, 1 circles\n# circle of 2: a b::deep\n#   a -> b::deep -> a\n\
         a -> b::deep c\nb ->\nb::deep -> a\nc ->\n\n"
    );
    let report = check(
        &Table::parse(&text).unwrap(),
        "layers.txt",
        &["one"],
        &sources,
    );
    assert_eq!(
        report.summary,
        "layers: 4 modules, 3 edges, 1 circles in the table, 1 between files"
    );
    assert_eq!(report.findings.len(), 1);
}

#[test]
fn long_rows_go_over_several_lines() {
    let names: Vec<_> = (0..20)
        .map(|number| format!("module_{number:02}"))
        .collect();
    let used: BTreeSet<String> = names.iter().cloned().collect();
    let text = row_text("a", &used);
    assert!(text.lines().all(|line| line.len() <= MAX_COLUMNS), "{text}");
    let table = Table::parse(&format!("[one]\n{text}")).unwrap();
    assert_eq!(table.0[0].rows[0].allowed, used);
}
