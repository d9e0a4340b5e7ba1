//! The source as its parser reads it: which file imports which, and how long each function is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use syn::{
    Attribute, Field, GenericArgument, ImplItemFn, ImplItemType, Item, ItemFn, ItemType, ItemUse,
    PathArguments, PathSegment, Signature, Type, UseTree, Visibility,
    spanned::Spanned,
    visit::{self, Visit},
};

/// A path from the root of the crate: `host::proc::kernel::Stat`.
type Names = Vec<String>;

/// One file that is no test.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) file: PathBuf,
    pub(super) lines: usize,
    /// Each function with its length in lines.
    pub(super) functions: Vec<(String, usize)>,
    /// What other files may use, and fails with a text: functions, types and fields.
    pub(super) text_errors: Vec<String>,
    /// What it names of the crate.
    named: Vec<Names>,
    /// What others may name as its own: a name, and where that is.
    re_exports: BTreeMap<String, Names>,
}

/// Every file below `src`, by its path of modules.
#[derive(Debug)]
pub(super) struct Sources(pub(super) BTreeMap<Names, Source>);

impl Sources {
    pub(super) fn read(src: &Path) -> Self {
        let files = files(src);
        let modules: BTreeSet<Names> = files.iter().map(|file| module(src, file)).collect();
        let read = |file: PathBuf| {
            let text = std::fs::read_to_string(&file).unwrap();
            let module = module(src, &file);
            (
                module.clone(),
                Source {
                    file,
                    ..parsed(&text, &module, &modules)
                },
            )
        };
        Self(
            files
                .into_iter()
                .filter(|file| !is_test(file))
                .map(read)
                .collect(),
        )
    }

    /// The files that each file imports; what is named through another file's re-export is where that leads.
    pub(super) fn imports(&self) -> BTreeMap<&Names, BTreeSet<&Names>> {
        let of = |(module, source): (&'_ Names, &'_ Source)| {
            let all = source
                .named
                .iter()
                .filter_map(|names| self.file_of(names, 0))
                .filter(|other| *other != module);
            all.map(Clone::clone).collect::<BTreeSet<Names>>()
        };
        let own = |names: Names| self.0.get_key_value(&names).unwrap().0;
        self.0
            .iter()
            .map(|one| (one.0, of(one).into_iter().map(own).collect()))
            .collect()
    }

    fn file_of(&self, names: &[String], depth: usize) -> Option<&Names> {
        (1..=names.len()).rev().find_map(|end| {
            let (module, source) = self.0.get_key_value(&names[..end])?;
            let led = names
                .get(end)
                .and_then(|name| source.re_exports.get(name))
                .filter(|_| depth < 8);
            Some(
                led.and_then(|to| {
                    self.file_of(&[to.as_slice(), &names[end + 1..]].concat(), depth + 1)
                })
                .unwrap_or(module),
            )
        })
    }
}

/// Every file of Rust below `dir`.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if entry.is_dir() {
            all.extend(files(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            all.push(entry);
        }
    }
    all.sort();
    all
}

pub(super) fn is_test(file: &Path) -> bool {
    file.ends_with("tests.rs")
        || file.iter().any(|part| part == "tests")
        || ["fuzz.rs", "kept.rs", "script.rs"]
            .iter()
            .any(|name| file.ends_with(name))
}

fn module(src: &Path, file: &Path) -> Names {
    let path = file.strip_prefix(src).unwrap().with_extension("");
    path.iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .filter(|part| part != "mod")
        .collect()
}

fn parsed(text: &str, module: &[String], modules: &BTreeSet<Names>) -> Source {
    let mut reader = Reader {
        module,
        modules,
        source: Source {
            lines: text.lines().count(),
            ..Source::default()
        },
    };
    reader.visit_file(&syn::parse_file(text).unwrap());
    reader.source
}

struct Reader<'a> {
    module: &'a [String],
    modules: &'a BTreeSet<Names>,
    source: Source,
}

impl Reader<'_> {
    /// Where in the crate a path leads; none where it is another crate's, or a name of this file.
    fn absolute(&self, names: &[String]) -> Option<Names> {
        let mut base = match names.first()?.as_str() {
            "crate" => return Some(names[1..].to_vec()),
            "self" | "super" => self.module.to_vec(),
            child
                if self
                    .modules
                    .contains(&[self.module, &[child.to_owned()]].concat()) =>
            {
                return Some([self.module, names].concat());
            }
            _ => return None,
        };
        let mut rest = names;
        while let Some(("super" | "self", behind)) = rest
            .split_first()
            .map(|(first, behind)| (first.as_str(), behind))
        {
            if rest[0] == "super" {
                base.pop();
            }
            rest = behind;
        }
        Some([base.as_slice(), rest].concat())
    }

    fn tree(&mut self, tree: &UseTree, before: &mut Names, is_public: bool) {
        let (name, alias) = match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(&path.tree, before, is_public);
                before.pop();
                return;
            }
            UseTree::Group(group) => {
                group
                    .items
                    .iter()
                    .for_each(|tree| self.tree(tree, before, is_public));
                return;
            }
            UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
            UseTree::Rename(rename) => (rename.ident.to_string(), rename.rename.to_string()),
            UseTree::Glob(_) => (String::new(), String::new()),
        };
        let own = (!name.is_empty() && name != "self").then_some(name);
        let names: Names = before.iter().cloned().chain(own).collect();
        let Some(names) = self.absolute(&names) else {
            return;
        };
        if is_public {
            self.source.re_exports.insert(alias, names);
        } else {
            self.source.named.push(names);
        }
    }

    /// Notes `name` if other files may use it and its type has a text as its error.
    fn error(&mut self, name: &syn::Ident, vis: &Visibility, is_text: bool) {
        if is_text && !matches!(vis, Visibility::Inherited) {
            self.source.text_errors.push(name.to_string());
        }
    }

    fn function(&mut self, name: &syn::Ident, lines: usize) {
        self.source.functions.push((name.to_string(), lines));
    }
}

/// Finds `Result<_, String>`.
#[derive(Default)]
struct TextErrors(bool);

impl<'ast> Visit<'ast> for TextErrors {
    fn visit_path_segment(&mut self, segment: &'ast PathSegment) {
        if let PathArguments::AngleBracketed(arguments) = &segment.arguments
            && segment.ident == "Result"
            && let Some(GenericArgument::Type(error)) = arguments.args.iter().nth(1)
        {
            self.0 |= is_string(error);
        }
        visit::visit_path_segment(self, segment);
    }
}

fn is_string(of: &Type) -> bool {
    matches!(of, Type::Path(of) if of.path.is_ident("String"))
}

fn returns_text_error(signature: &Signature) -> bool {
    let mut found = TextErrors::default();
    found.visit_return_type(&signature.output);
    found.0
}

fn has_text_error(of: &Type) -> bool {
    let mut found = TextErrors::default();
    found.visit_type(of);
    found.0
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|ident| ident == "test")
    };
    attributes.iter().any(is_test)
}

/// The lines that something covers.
fn lines(of: &impl Spanned) -> usize {
    of.span().end().line - of.span().start().line + 1
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_public = !matches!(item.vis, Visibility::Inherited);
        self.tree(&item.tree, &mut Names::new(), is_public);
    }

    // `pub(in crate::x)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Names = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if names.len() > 1
            && let Some(names) = self.absolute(&names)
        {
            self.source.named.push(names);
        }
        visit::visit_path(self, path);
    }

    fn visit_item_type(&mut self, item: &'ast ItemType) {
        self.error(&item.ident, &item.vis, has_text_error(&item.ty));
        visit::visit_item_type(self, item);
    }

    fn visit_field(&mut self, field: &'ast Field) {
        if let Some(name) = &field.ident {
            self.error(name, &field.vis, has_text_error(&field.ty));
        }
        visit::visit_field(self, field);
    }

    // The error of `FromStr` and `TryFrom`.
    fn visit_impl_item_type(&mut self, item: &'ast ImplItemType) {
        if (item.ident == "Err" || item.ident == "Error") && is_string(&item.ty) {
            self.source.text_errors.push(item.ident.to_string());
        }
        visit::visit_impl_item_type(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.error(&item.sig.ident, &item.vis, returns_text_error(&item.sig));
        self.function(
            &item.sig.ident,
            lines(&item.sig).max(1) + lines(&item.block) - 1,
        );
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.error(&item.sig.ident, &item.vis, returns_text_error(&item.sig));
        self.function(
            &item.sig.ident,
            lines(&item.sig).max(1) + lines(&item.block) - 1,
        );
        visit::visit_impl_item_fn(self, item);
    }
}

#[test]
fn imports_are_found_in_every_spelling() {
    let names = |text: &str| text.split("::").map(str::to_owned).collect::<Names>();
    let modules: BTreeSet<Names> = ["a", "a::b", "a::c", "d"]
        .iter()
        .map(|path| names(path))
        .collect();
    let text = "use crate::d::{self, E, f::{g as h}};\nuse super::d as e;\npub(crate) use self::b::I;\n#[cfg(test)]\nmod tests { use crate::x; }\n\
                pub(in crate::y) fn f(a: b::J) -> std::io::Result<()> { c::k(crate::d::L) }";
    let source = parsed(text, &names("a"), &modules);
    let found: Vec<String> = source.named.iter().map(|names| names.join("::")).collect();
    assert_eq!(
        found,
        ["d", "d::E", "d::f::g", "d", "a::b::J", "a::c::k", "d::L"]
    );
    assert_eq!(
        source.re_exports,
        BTreeMap::from([("I".to_owned(), names("a::b::I"))])
    );
    assert_eq!(source.functions, [("f".to_owned(), 1)]);
}

#[test]
fn an_error_that_is_a_text_is_found() {
    let text = "pub fn a() -> Result<(), String> { b() }
                fn b() -> Result<(), String> { Ok(()) }
                pub(crate) fn c() -> Vec<Result<u8, String>> { Vec::new() }
                pub(crate) fn d() -> Result<String, u8> { Ok(String::new()) }
                struct E { pub(super) e: Option<Result<u8, String>>, f: Result<u8, String> }
                impl std::str::FromStr for E { type Err = String; }
                pub(super) type G = Result<u8, String>;
                #[cfg(test)]
                mod tests { pub fn h() -> Result<(), String> { Ok(()) } }";
    let source = parsed(text, &["a".to_owned()], &BTreeSet::new());
    assert_eq!(source.text_errors, ["a", "c", "e", "Err", "G"]);
}
