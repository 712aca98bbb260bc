//! What can a program that uses the library name?
//!
//! `flowmeter/api.txt` lists it as Rust without bodies, so that a change of the library's face is seen
//! in review. It is read from the source: what macros make (the derived methods `with_…` of
//! `Setters`, say) is not in it, their input is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use syn::{
    Attribute, Fields, ImplItem, Item, ItemImpl, ItemMod, ItemUse, Meta, TraitItem, Type, UseTree,
    Visibility, parse_quote,
};

use crate::{Committed, root};

/// Compares the list with the committed one, or writes it anew.
pub fn api(committed: Committed) -> Result<()> {
    let library = root().join("flowmeter");
    let is_updated = committed == Committed::Update;
    let (list, source) = (library.join("api.txt"), library.join("src/lib.rs"));
    let items = Module::read(&source)?.public()?;
    let file = syn::File { shebang: None, attrs: Vec::new(), items };
    let now = without_bodies(&prettyplease::unparse(&file));
    if is_updated {
        return fs::write(&list, now)
            .with_context(|| format!("failed to write `{}`", list.display()));
    }
    let before = fs::read_to_string(&list)
        .with_context(|| format!("failed to read `{}`", list.display()))?;
    if now == before {
        println!("api: ok");
        return Ok(());
    }
    let (before, now): (BTreeSet<_>, BTreeSet<_>) =
        (before.lines().collect(), now.lines().collect());
    for gone in before.difference(&now) {
        eprintln!("api: - {}", gone.trim());
    }
    for new in now.difference(&before) {
        eprintln!("api: + {}", new.trim());
    }
    bail!("what the library shows has changed; `cargo xtask api --update` writes flowmeter/api.txt")
}

/// A module as it is written.
struct Module {
    items: Vec<Item>,
    /// Where the modules are that it names.
    folder: PathBuf,
}

impl Module {
    /// Of a file, which may be a crate's root or `mod.rs`.
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("failed to read `{}`", path.display()))?;
        let file = syn::parse_file(&text)
            .with_context(|| format!("failed to parse `{}`", path.display()))?;
        let is_head = path.ends_with("mod.rs") || path.ends_with("lib.rs");
        let folder = if is_head { path.parent().map(Path::to_owned) } else { None };
        Ok(Self { items: file.items, folder: folder.unwrap_or_else(|| path.with_extension("")) })
    }

    /// The module that is named in this one.
    fn child(&self, module: &ItemMod) -> Result<Self> {
        let name = module.ident.to_string();
        if let Some((_, items)) = &module.content {
            return Ok(Self { items: items.clone(), folder: self.folder.join(name) });
        }
        let file = self.folder.join(format!("{name}.rs"));
        let path = if file.exists() { file } else { self.folder.join(&name).join("mod.rs") };
        ensure!(path.exists(), "no file of the module `{name}` in `{}`", self.folder.display());
        Self::read(&path)
    }

    fn private_child(&self, name: &str) -> Result<Option<Self>> {
        let is_it =
            |item: &&Item| matches!(item, Item::Mod(m) if m.ident == name && !is_public(&m.vis));
        match self.items.iter().find(is_it) {
            Some(Item::Mod(module)) => self.child(module).map(Some),
            _ => Ok(None),
        }
    }

    /// What can be named from outside, in order: a module's items, and those of its private modules
    /// that it exports as its own.
    fn public(&self) -> Result<Vec<Item>> {
        let mut shown = Vec::new();
        let mut names = BTreeSet::new();
        for item in self.items.iter().filter(|item| !is_for_tests(attributes(item))) {
            match item {
                Item::Mod(module) if is_public(&module.vis) => {
                    let items = self.child(module)?.public()?;
                    let (vis, ident) = (&module.vis, &module.ident);
                    shown.push(parse_quote!(#vis mod #ident { #(#items)* }));
                }
                Item::Use(export) if is_public(&export.vis) => {
                    self.export(export, &mut shown)?;
                }
                other => shown.extend(seen(other, &mut names)),
            }
        }
        for item in &self.items {
            if let Item::Impl(block) = item
                && names.contains(&name_of(&block.self_ty))
            {
                shown.extend(without_private(block));
            }
        }
        Ok(shown)
    }

    /// What a `pub use` shows: items of a private module, as if they stood here, or else the line.
    fn export(&self, export: &ItemUse, shown: &mut Vec<Item>) -> Result<()> {
        let mut path = Vec::new();
        let mut tree = &export.tree;
        while let UseTree::Path(step) = tree {
            if step.ident != "self" {
                path.push(step.ident.to_string());
            }
            tree = &step.tree;
        }
        let private = match path.as_slice() {
            [module] => self.private_child(module)?,
            _ => None,
        };
        let Some(private) = private else {
            let mut export = export.clone();
            keep_telling(&mut export.attrs);
            shown.push(Item::Use(export));
            return Ok(());
        };
        let mut wanted = BTreeSet::new();
        names_in(tree, &mut wanted);
        for item in private.public()? {
            let is_wanted = match &item {
                Item::Impl(block) => wanted.contains(&name_of(&block.self_ty)),
                Item::Use(export) => {
                    let mut names = BTreeSet::new();
                    names_in(last_of(&export.tree), &mut names);
                    !names.is_disjoint(&wanted)
                }
                other => name(other).is_some_and(|name| wanted.contains(&name)),
            };
            if is_wanted {
                shown.push(item);
            }
        }
        Ok(())
    }
}

/// The item as it is seen from outside, if it is; its name is noted.
fn seen(item: &Item, names: &mut BTreeSet<String>) -> Option<Item> {
    let mut item = item.clone();
    let (vis, name) = match &mut item {
        Item::Const(it) => (&it.vis, &it.ident),
        Item::Enum(it) => (&it.vis, &it.ident),
        Item::Fn(it) => (&it.vis, &it.sig.ident),
        Item::Static(it) => (&it.vis, &it.ident),
        Item::Struct(it) => (&it.vis, &it.ident),
        Item::Trait(it) => (&it.vis, &it.ident),
        Item::Type(it) => (&it.vis, &it.ident),
        Item::Union(it) => (&it.vis, &it.ident),
        _ => return None,
    };
    if !is_public(vis) {
        return None;
    }
    names.insert(name.to_string());
    match &mut item {
        Item::Const(it) => *it.expr = parse_quote!(_),
        Item::Static(it) => *it.expr = parse_quote!(_),
        Item::Fn(it) => *it.block = parse_quote!({}),
        Item::Struct(it) => keep_public(&mut it.fields),
        Item::Enum(it) => {
            for variant in &mut it.variants {
                keep_telling(&mut variant.attrs);
                for field in &mut variant.fields {
                    keep_telling(&mut field.attrs);
                }
            }
        }
        Item::Trait(it) => {
            for member in &mut it.items {
                match member {
                    TraitItem::Fn(f) => {
                        keep_telling(&mut f.attrs);
                        f.default = f.default.is_some().then(|| parse_quote!({}));
                    }
                    TraitItem::Const(c) => keep_telling(&mut c.attrs),
                    TraitItem::Type(t) => keep_telling(&mut t.attrs),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    if let Some(attributes) = attributes_mut(&mut item) {
        keep_telling(attributes);
    }
    Some(item)
}

/// A block with what is public in it; of a trait's, that it is there.
fn without_private(block: &ItemImpl) -> Option<Item> {
    let mut block = block.clone();
    if is_for_tests(&block.attrs) {
        return None;
    }
    block.attrs.clear();
    if block.trait_.is_some() {
        block.items.clear();
        return Some(Item::Impl(block));
    }
    block.items.retain(|item| match item {
        ImplItem::Fn(f) => is_public(&f.vis) && !is_for_tests(&f.attrs),
        ImplItem::Const(c) => is_public(&c.vis),
        _ => false,
    });
    for item in &mut block.items {
        match item {
            ImplItem::Fn(f) => {
                keep_telling(&mut f.attrs);
                f.block = parse_quote!({});
            }
            ImplItem::Const(c) => {
                keep_telling(&mut c.attrs);
                c.expr = parse_quote!(_);
            }
            _ => {}
        }
    }
    (!block.items.is_empty()).then_some(Item::Impl(block))
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

fn keep_public(fields: &mut Fields) {
    match fields {
        Fields::Named(fields) => {
            let kept = std::mem::take(&mut fields.named).into_iter();
            fields.named = kept.filter(|field| is_public(&field.vis)).collect();
        }
        Fields::Unnamed(fields) => {
            let kept = std::mem::take(&mut fields.unnamed).into_iter();
            fields.unnamed = kept.filter(|field| is_public(&field.vis)).collect();
        }
        Fields::Unit => {}
    }
    for field in fields {
        keep_telling(&mut field.attrs);
    }
}

/// Attributes that a user of the item has to know.
fn keep_telling(attributes: &mut Vec<Attribute>) {
    const TELLING: [&str; 5] = ["derive", "non_exhaustive", "must_use", "cfg", "setters"];
    attributes.retain(|a| TELLING.iter().any(|telling| a.path().is_ident(telling)));
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|a| match &a.meta {
        Meta::List(list) => a.path().is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

/// The last part of a `use`.
fn last_of(mut tree: &UseTree) -> &UseTree {
    while let UseTree::Path(step) = tree {
        tree = &step.tree;
    }
    tree
}

/// Every name in the last part of a `use`, as it is called here.
fn names_in(tree: &UseTree, names: &mut BTreeSet<String>) {
    match tree {
        UseTree::Name(name) => {
            names.insert(name.ident.to_string());
        }
        UseTree::Rename(rename) => {
            names.insert(rename.ident.to_string());
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| names_in(tree, names)),
        UseTree::Path(_) | UseTree::Glob(_) => {}
    }
}

/// The last part of a type's path.
fn name_of(of: &Type) -> String {
    match of {
        Type::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
        _ => None,
    }
    .unwrap_or_default()
}

fn name(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(it) => it.ident.to_string(),
        Item::Enum(it) => it.ident.to_string(),
        Item::Fn(it) => it.sig.ident.to_string(),
        Item::Mod(it) => it.ident.to_string(),
        Item::Static(it) => it.ident.to_string(),
        Item::Struct(it) => it.ident.to_string(),
        Item::Trait(it) => it.ident.to_string(),
        Item::Type(it) => it.ident.to_string(),
        Item::Union(it) => it.ident.to_string(),
        _ => return None,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Union(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

fn attributes_mut(item: &mut Item) -> Option<&mut Vec<Attribute>> {
    Some(match item {
        Item::Const(it) => &mut it.attrs,
        Item::Enum(it) => &mut it.attrs,
        Item::Fn(it) => &mut it.attrs,
        Item::Static(it) => &mut it.attrs,
        Item::Struct(it) => &mut it.attrs,
        Item::Trait(it) => &mut it.attrs,
        Item::Type(it) => &mut it.attrs,
        Item::Union(it) => &mut it.attrs,
        _ => return None,
    })
}

/// Functions and constants without their empty bodies, for reading.
fn without_bodies(text: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    for line in text.lines() {
        let line = match line.strip_suffix(" {}") {
            Some(head) if line.contains("fn ") || line.trim_start().starts_with(')') => {
                format!("{head};")
            }
            _ => line.replace(" = _;", ";"),
        };
        lines.push_str(&line);
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let items = syn::parse_file(text).expect("it is Rust").items;
        let items = Module { items, folder: PathBuf::new() }.public().expect("no file is read");
        without_bodies(&prettyplease::unparse(&syn::File {
            shebang: None,
            attrs: Vec::new(),
            items,
        }))
    }

    #[test]
    fn what_is_private_is_not_shown() {
        let text = "/// Doc.\n#[derive(Debug)]\npub struct A { pub a: u8, b: u8 }\nstruct B;\n\
                    impl A { pub fn f(&self) -> u8 { 1 } fn g() {} }\nimpl B { pub fn h() {} }\n\
                    impl Clone for A { fn clone(&self) -> A { A } }\npub const N: u8 = 2;\n\
                    pub(crate) fn p() {}\n#[cfg(test)]\npub mod tests { pub fn t() {} }";
        let expected = "#[derive(Debug)]\npub struct A {\n    pub a: u8,\n}\npub const N: u8;\n\
                        impl A {\n    pub fn f(&self) -> u8;\n}\nimpl Clone for A {}\n";
        assert_eq!(shown(text), expected);
    }

    #[test]
    fn what_a_private_module_gives_away_is_shown_where_it_is_named() {
        let text = "mod inner { pub struct A; pub struct B; impl A { pub fn f() {} } }\n\
                    pub use inner::A;\npub use other::C;\npub mod open { pub fn g() {} }";
        let expected = "pub struct A;\nimpl A {\n    pub fn f();\n}\npub use other::C;\n\
                        pub mod open {\n    pub fn g();\n}\n";
        assert_eq!(shown(text), expected);
    }
}
