//! Finds the paths that a source file uses, and the modules that it declares.

use crate::lint::lexer::{Kind, Token, tokens};

/// The modules, names and references of one source file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// The modules that the file has inside of it, by their paths, with the file's own first.
    pub(super) modules: Vec<String>,
    /// The modules that exist in tests only, by their paths.
    pub(super) test_modules: Vec<String>,
    /// The names that `use` declarations bring into modules.
    pub(super) names: Vec<Name>,
    /// The paths that the code uses.
    pub(super) references: Vec<Reference>,
}

/// A name in a module that stands for a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) module: String,
    pub(super) name: String,
    pub(super) path: Vec<String>,
}

/// A path as written, in the module that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) module: String,
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    /// The path stands in a declaration that others use, `pub use`.
    pub(super) is_export: bool,
}

/// Reads the source of the module `module`; the crate's own is the empty path.
pub(super) fn read(module: &str, source: &str) -> Source {
    let tokens: Vec<_> = tokens(source)
        .into_iter()
        .filter(|token| !token.is_comment())
        .collect();
    let mut reader = Reader {
        tokens: &tokens,
        at: 0,
        depth: 0,
        open: vec![(module.to_owned(), 0)],
        found: Source {
            modules: vec![module.to_owned()],
            ..Source::default()
        },
    };
    reader.run();
    reader.found
}

/// Joins a module's path and a name in it.
pub(super) fn join(module: &str, name: &str) -> String {
    if module.is_empty() {
        name.to_owned()
    } else {
        format!("{module}::{name}")
    }
}

/// The state of reading one file.
struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    /// The number of braces that are open.
    depth: usize,
    /// The modules that are open, each with the depth that its content lies at.
    open: Vec<(String, usize)>,
    found: Source,
}

impl<'a> Reader<'a> {
    fn run(&mut self) {
        while let Some(token) = self.token(0) {
            match (token.kind, token.text) {
                (Kind::Sign, "#") => self.attribute(),
                (Kind::Sign, "{") => self.open_brace(),
                (Kind::Sign, "}") => self.close_brace(),
                (Kind::Name, "mod") => self.module(),
                (Kind::Name, "use") if !self.is_sign(1, "<") => self.declaration(),
                (Kind::Name, _) => self.inline_path(),
                _ => self.at += 1,
            }
        }
    }

    fn token(&self, ahead: usize) -> Option<Token<'a>> {
        self.tokens.get(self.at + ahead).copied()
    }

    fn before(&self) -> Option<Token<'a>> {
        self.at
            .checked_sub(1)
            .and_then(|at| self.tokens.get(at).copied())
    }

    fn is_sign(&self, ahead: usize, sign: &str) -> bool {
        self.token(ahead).is_some_and(|token| token.is_sign(sign))
    }

    fn is_name(&self, ahead: usize, name: &str) -> bool {
        self.token(ahead).is_some_and(|token| token.is_name(name))
    }

    fn is_path_separator(&self, ahead: usize) -> bool {
        self.is_sign(ahead, ":") && self.is_sign(ahead + 1, ":")
    }

    /// Returns the path of the innermost module that is open.
    fn here(&self) -> String {
        self.open
            .last()
            .map_or_else(String::new, |(module, _)| module.clone())
    }

    fn open_brace(&mut self) {
        self.depth += 1;
        self.at += 1;
    }

    fn close_brace(&mut self) {
        if self.open.len() > 1
            && self
                .open
                .last()
                .is_some_and(|&(_, depth)| depth == self.depth)
        {
            self.open.pop();
        }
        self.depth = self.depth.saturating_sub(1);
        self.at += 1;
    }

    /// Passes an attribute. One that asks for tests takes the item after it along.
    fn attribute(&mut self) {
        let inner = self.is_sign(1, "!");
        let start = self.at + 1 + usize::from(inner);
        if !self
            .tokens
            .get(start)
            .is_some_and(|token| token.is_sign("["))
        {
            self.at += 1;
            return;
        }
        self.at = start;
        self.pass_group();
        let content = &self.tokens[start + 1..self.at.saturating_sub(1).max(start + 1)];
        if is_for_tests(content) {
            if inner {
                let module = self.here();
                self.found.test_modules.push(module);
            } else {
                self.pass_test_item();
            }
        }
    }

    /// Passes a group in brackets, from the token that opens it.
    fn pass_group(&mut self) {
        let mut depth = 0_usize;
        while let Some(token) = self.token(0) {
            self.at += 1;
            if token.kind == Kind::Sign {
                match token.text {
                    "(" | "[" | "{" => depth += 1,
                    ")" | "]" | "}" => {
                        depth = depth.saturating_sub(1);
                        if depth == 0 {
                            return;
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Passes an item, a statement or a field that exists in tests only.
    fn pass_test_item(&mut self) {
        while self.is_sign(0, "#") && self.is_sign(1, "[") {
            self.at += 1;
            self.pass_group();
        }
        if self.is_name(0, "pub") {
            self.at += 1;
            if self.is_sign(0, "(") {
                self.pass_group();
            }
        }
        if self.is_name(0, "mod")
            && let Some(name) = self.token(1)
        {
            let module = join(&self.here(), name.text);
            self.found.test_modules.push(module);
        }
        let is_declaration = self.is_name(0, "use");
        let is_item = self.token(0).is_some_and(|token| {
            let items = [
                "mod",
                "use",
                "fn",
                "impl",
                "struct",
                "enum",
                "union",
                "const",
                "static",
                "type",
                "trait",
                "unsafe",
                "async",
                "extern",
                "macro_rules",
            ];
            token.kind == Kind::Name && items.contains(&token.text)
        });
        while let Some(token) = self.token(0) {
            match token.text {
                _ if token.kind != Kind::Sign => self.at += 1,
                "(" | "[" => self.pass_group(),
                "{" => {
                    self.pass_group();
                    if !is_declaration {
                        return;
                    }
                }
                // What is around ends here: the attribute stood at the last of its fields.
                "}" | ")" | "]" => return,
                ";" => {
                    self.at += 1;
                    return;
                }
                "," if !is_item => {
                    self.at += 1;
                    return;
                }
                _ => self.at += 1,
            }
        }
    }

    /// Enters a module whose content is here.
    fn module(&mut self) {
        if let Some(name) = self.token(1)
            && name.kind == Kind::Name
            && self.is_sign(2, "{")
        {
            let module = join(&self.here(), name.text);
            self.found.modules.push(module.clone());
            self.depth += 1;
            self.open.push((module, self.depth));
            self.at += 3;
        } else {
            self.at += 1;
        }
    }

    /// Reads a `use` declaration.
    fn declaration(&mut self) {
        let is_export = self.before().is_some_and(|before| {
            // No other bracket stands before a declaration than that of `pub(crate)`.
            before.is_name("pub") || before.is_sign(")")
        });
        let first = self.found.references.len();
        self.at += 1;
        self.tree(&[]);
        for reference in &mut self.found.references[first..] {
            reference.is_export = is_export;
        }
    }

    /// Reads a tree of paths, as `a::{b, c::*, d as e}` is one, below `prefix`.
    fn tree(&mut self, prefix: &[String]) {
        let mut path = prefix.to_vec();
        let line = self.token(0).map_or(0, |token| token.line);
        if self.is_path_separator(0) {
            // The path of another crate: the empty first part leads nowhere.
            path.push(String::new());
            self.at += 2;
        }
        while let Some(token) = self.token(0) {
            self.at += 1;
            match (token.kind, token.text) {
                (Kind::Sign, "$") => {}
                (Kind::Sign, "*") => return self.end_of_path(path, None, token.line),
                (Kind::Sign, "{") => {
                    while !self.is_sign(0, "}") && self.token(0).is_some() {
                        self.tree(&path);
                        if self.is_sign(0, ",") {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                (Kind::Name, name) => {
                    if name != "self" || path.is_empty() {
                        path.push(name.to_owned());
                    }
                    if self.is_path_separator(0) {
                        self.at += 2;
                        continue;
                    }
                    let mut bound = path.last().cloned();
                    if self.is_name(0, "as") {
                        bound = self.token(1).map(|token| token.text.to_owned());
                        self.at += 2;
                    }
                    return self.end_of_path(path, bound, line);
                }
                _ => return,
            }
        }
    }

    fn end_of_path(&mut self, path: Vec<String>, bound: Option<String>, line: usize) {
        let module = self.here();
        if let Some(name) = bound {
            self.found.names.push(Name {
                module: module.clone(),
                name,
                path: path.clone(),
            });
        }
        self.found.references.push(Reference {
            module,
            path,
            line,
            is_export: false,
        });
    }

    /// Reads a path in code, and passes any other name.
    fn inline_path(&mut self) {
        let begins = self.before().is_none_or(|before| {
            let is_method = before.is_sign(".");
            let is_visibility = before.is_name("in") && self.is_visibility();
            let goes_on =
                before.is_sign(":") && self.at >= 2 && self.tokens[self.at - 2].is_sign(":");
            !is_method && !is_visibility && !goes_on
        });
        let line = self.token(0).map_or(0, |token| token.line);
        let mut path = Vec::new();
        while let Some(token) = self.token(0)
            && token.kind == Kind::Name
        {
            path.push(token.text.to_owned());
            self.at += 1;
            if !self.is_path_separator(0) || !self.token(2).is_some_and(|it| it.kind == Kind::Name)
            {
                break;
            }
            self.at += 2;
        }
        // A name without `::` is no path to another module, but for `use`.
        if begins && path.len() > 1 {
            self.found.references.push(Reference {
                module: self.here(),
                path,
                line,
                is_export: false,
            });
        }
    }

    /// Tells whether the `in` before this token is that of `pub(in …)`.
    fn is_visibility(&self) -> bool {
        self.at >= 3
            && self.tokens[self.at - 2].is_sign("(")
            && self.tokens[self.at - 3].is_name("pub")
    }
}

/// Tells whether an attribute's content is `cfg(test)`, or `cfg(all(test, …))`.
fn is_for_tests(content: &[Token<'_>]) -> bool {
    let texts: Vec<_> = content.iter().map(|token| token.text).collect();
    matches!(
        texts[..],
        ["cfg", "(", "test", ")"] | ["cfg", "(", "all", "(", "test", ..]
    )
}
