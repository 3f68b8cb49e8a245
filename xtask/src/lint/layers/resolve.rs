//! Follows paths to the modules that have what they name.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    source::{Reference, Source, join, read},
    table::is_within,
};

/// The number of names that a path may go through: enough for all code, and an end for circles.
const MAX_NAMES: usize = 16;

/// One module's use of another, at one place. The crate's own module is `crate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: String,
    pub(super) to: String,
    /// The file's path in the workspace.
    pub(super) file: String,
    pub(super) line: usize,
}

/// The modules of one crate and what they use.
pub(super) struct Crate {
    /// The modules outside of tests, the crate's own excepted.
    pub(super) modules: BTreeSet<String>,
    pub(super) edges: Vec<Edge>,
}

impl Crate {
    /// Reads a crate of files: each with its path in the workspace, its path in `src`, and its text.
    pub(super) fn from_sources(files: &[(&str, &str, &str)]) -> Self {
        let sources: Vec<(&str, Source)> = files
            .iter()
            .filter_map(|(path, in_crate, text)| Some((*path, read(&module_of(in_crate)?, text))))
            .collect();
        let mut scope = Scope::default();
        let mut tests = BTreeSet::new();
        for (_, source) in &sources {
            scope.modules.extend(source.modules.iter().cloned());
            tests.extend(source.test_modules.iter().cloned());
            for name in &source.names {
                scope
                    .names
                    .entry((name.module.clone(), name.name.clone()))
                    .or_insert_with(|| name.path.clone());
            }
        }
        let is_test = |module: &str| {
            let mut inner = module;
            loop {
                if tests.contains(inner) {
                    return true;
                }
                match inner.rsplit_once("::") {
                    Some((outer, _)) => inner = outer,
                    None => return false,
                }
            }
        };
        let mut edges = Vec::new();
        for (file, source) in &sources {
            for reference in &source.references {
                if is_test(&reference.module) {
                    continue;
                }
                if let Some(to) = scope.target(reference)
                    && to != reference.module
                    // A folder's module that only passes on what lies in it does not use it.
                    && !(reference.is_export && is_within(&to, &reference.module))
                {
                    edges.push(Edge {
                        from: named(&reference.module),
                        to: named(&to),
                        file: (*file).to_owned(),
                        line: reference.line,
                    });
                }
            }
        }
        let modules = scope.modules.into_iter();
        Self {
            modules: modules
                .filter(|module| !module.is_empty() && !is_test(module))
                .collect(),
            edges,
        }
    }
}

/// Returns the name of a module in findings and in the table.
fn named(module: &str) -> String {
    let name = if module.is_empty() { "crate" } else { module };
    name.to_owned()
}

/// Returns the module of a file in `src`, or nothing for files of tests.
fn module_of(in_crate: &str) -> Option<String> {
    let path = in_crate.strip_suffix(".rs")?;
    let mut parts: Vec<_> = path.split('/').collect();
    let is_test = |part: &&str| *part == "tests" || part.ends_with("_tests");
    if parts.iter().any(is_test) {
        return None;
    }
    match parts.last() {
        Some(&"mod") => {
            parts.pop();
        }
        Some(&("lib" | "main")) if parts.len() == 1 => parts.clear(),
        _ => {}
    }
    Some(parts.join("::"))
}

/// All modules and names of a crate.
#[derive(Default)]
struct Scope {
    modules: BTreeSet<String>,
    /// Paths by the module and the name that `use` gives them there.
    names: BTreeMap<(String, String), Vec<String>>,
}

impl Scope {
    /// Returns the module that a reference leads to, if it is one of this crate.
    fn target(&self, reference: &Reference) -> Option<String> {
        self.follow(&reference.module, &reference.path, MAX_NAMES)
    }

    fn is_module(&self, module: &str, name: &str) -> bool {
        self.modules.contains(&join(module, name))
    }

    /// Follows a path that is written in `module`.
    fn follow(&self, module: &str, path: &[String], names_left: usize) -> Option<String> {
        let mut here = module.to_owned();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => {
                here.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    here = here
                        .rsplit_once("::")
                        .map_or_else(String::new, |(outer, _)| outer.to_owned());
                    rest = &rest[1..];
                }
            }
            first => {
                let is_here = self.is_module(&here, first)
                    || self.names.contains_key(&(here.clone(), first.to_owned()));
                // Any other first part is a crate, or a type of the module itself.
                if !is_here {
                    return None;
                }
            }
        }
        self.descend(here, rest, names_left)
    }

    /// Goes down a path from a module, through the names that it has from elsewhere.
    fn descend(&self, mut here: String, mut rest: &[String], names_left: usize) -> Option<String> {
        while let Some((part, after)) = rest.split_first() {
            if self.is_module(&here, part) {
                here = join(&here, part);
                rest = after;
                continue;
            }
            let Some(path) = self.names.get(&(here.clone(), part.clone())) else {
                break;
            };
            let path: Vec<_> = path.iter().chain(after).cloned().collect();
            return self.follow(&here, &path, names_left.checked_sub(1)?);
        }
        Some(here)
    }
}
