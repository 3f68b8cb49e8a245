//! `plgw apply` and `plgw export`.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    cli::{
        context::CliContext,
        output::{Format, yaml},
        terminal::{StyledText, print, print_pieces},
    },
    client::types::Applied,
    model::{
        manifest::Manifest,
        operations::{DiffAction, ObjectDiff},
    },
};

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct ApplyArguments {
    /// The manifest: YAML (one or more documents), JSON or TOML; - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Show the changes without applying them
    #[arg(long)]
    dry_run: bool,
    /// Delete objects that are not in the manifest
    #[arg(long)]
    prune: bool,
    /// Delete services even if they have approved connections, and attach interfaces that the host needs itself
    #[arg(long)]
    force: bool,
    /// Replace endpoints whose network, address, service, resource or message changes; they need a new approval
    #[arg(long)]
    replace: bool,
}

pub(in crate::cli) async fn apply(context: &CliContext, arguments: ApplyArguments) -> Result<()> {
    let manifest = read(&arguments.file)?;
    let ApplyArguments {
        dry_run,
        prune,
        force,
        replace,
        ..
    } = arguments;
    let applied = context
        .api
        .apply(
            Some(dry_run),
            Some(prune),
            Some(force),
            Some(replace),
            &manifest,
        )
        .await?;
    match context.format {
        Format::Table => print_pieces(&render_diff(&applied, dry_run)),
        Format::Json => print(&(serde_json::to_string_pretty(&applied)? + "\n")),
        Format::Yaml => print(&yaml(&applied)?),
    }
}

pub(in crate::cli) async fn export(context: &CliContext) -> Result<()> {
    let manifest = context.api.export().await?;
    match context.format {
        // A manifest has no table form: YAML can be read by people and by `plgw apply`.
        Format::Table | Format::Yaml => print(&yaml(&manifest)?),
        Format::Json => print(&(serde_json::to_string_pretty(&manifest)? + "\n")),
    }
}

/// Reads a manifest from a file. A file name that ends in `.toml` selects TOML. All else is YAML, of which JSON is a
/// subset.
fn read(path: &Path) -> Result<Manifest> {
    let shown = path.display();
    let text = if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("standard input can't be read")?;
        text
    } else {
        fs::read_to_string(path).with_context(|| format!("{shown} can't be read"))?
    };
    let is_toml = path
        .extension()
        .is_some_and(|extension| extension == "toml");
    let values = if is_toml {
        vec![toml::from_str(&text).with_context(|| format!("{shown} is not valid TOML"))?]
    } else {
        let documents = serde_norway::Deserializer::from_str(&text);
        documents
            .map(serde::Deserialize::deserialize)
            .collect::<Result<Vec<Value>, _>>()
            .with_context(|| format!("{shown} is not valid YAML"))?
    };
    let mut manifest = Manifest::default();
    for value in values {
        if value.is_null() {
            continue;
        }
        let part: Manifest = serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            anyhow::anyhow!("{shown}, at {path}: {}", error.into_inner())
        })?;
        manifest.tenants.extend(part.tenants);
        manifest.identities.extend(part.identities);
        manifest.networks.extend(part.networks);
        manifest.services.extend(part.services);
        manifest.endpoints.extend(part.endpoints);
        manifest.connections.extend(part.connections);
    }
    let empty = serde_json::to_value(&manifest)?
        .as_object()
        .is_none_or(serde_json::Map::is_empty);
    if empty {
        // With --prune an empty manifest would delete every object.
        bail!("{shown} describes no object: add objects, or delete them one by one");
    }
    Ok(manifest)
}

/// Formats the changes as lines for people.
fn render_diff(applied: &Applied, dry_run: bool) -> Vec<Vec<StyledText>> {
    let plain = |text: String| vec![StyledText { colour: None, text }];
    let mut lines = Vec::new();
    let mut counts = [0; 3];
    for ObjectDiff {
        action: fate,
        kind,
        object,
        fields,
    } in &applied.differences
    {
        let (index, colour, sign) = match fate {
            DiffAction::Create => (0, 32, "+"),
            DiffAction::Update => (1, 33, "~"),
            DiffAction::Delete => (2, 31, "-"),
        };
        counts[index] += 1;
        lines.push(vec![StyledText {
            colour: Some(colour),
            text: format!("{sign} {kind} {object}"),
        }]);
        for field in fields {
            lines.push(plain(match (&field.old, &field.new) {
                (Some(old), Some(new)) => format!("    {}: {old} -> {new}", field.field),
                (None, Some(new)) => format!("    {}: {new}", field.field),
                (Some(old), None) => format!("    {}: {old} -> (none)", field.field),
                (None, None) => continue,
            }));
        }
    }
    let [created, updated, deleted] = counts;
    lines.push(plain(match (counts, dry_run) {
        ([0, 0, 0], _) => "nothing to change".to_owned(),
        (_, true) => format!(
            "would create {created}, change {updated} and delete {deleted}; nothing was changed"
        ),
        (_, false) => format!("{created} created, {updated} changed, {deleted} deleted"),
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, text: &str) -> Result<Manifest> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn yaml_toml_and_json_parse_to_the_same_manifest() {
        let yaml = parse(
            "m.yaml",
            "tenants: [{name: a}]\n---\nnetworks:\n- {tenant: a, name: net, attachments: [{interface: veth0}]}\n",
        )
        .unwrap();
        let toml = parse(
            "m.toml",
            "[[tenants]]\nname = 'a'\n[[networks]]\ntenant = 'a'\nname = 'net'\nattachments = [{ interface = 'veth0' }]\n",
        )
        .unwrap();
        let json = parse("m.json", &serde_json::to_string(&yaml).unwrap()).unwrap();
        let text = |manifest: &Manifest| serde_json::to_string(manifest).unwrap();
        assert_eq!(text(&yaml), text(&toml));
        assert_eq!(text(&yaml), text(&json));
    }

    #[test]
    fn errors_of_manifests_name_the_path() {
        for (text, says) in [
            ("", "describes no object"),
            ("tenants: [", "not valid YAML"),
            ("tenant: []", "unknown field `tenant`"),
            ("tenants: [{name: A}]", "tenants[0]"),
            (
                "networks: [{name: n, attachments: []}]",
                "has no owner: set tenant",
            ),
            (
                "networks: [{tenant: a, name: n, attachments: [], x: 1}]",
                "unknown field `x`",
            ),
            (
                "networks: [{tenant: a, name: n, attachments: [], alias: x}]",
                "unknown field `alias`",
            ),
        ] {
            let refusal = format!("{:#}", parse("m.yaml", text).unwrap_err());
            assert!(refusal.contains(says), "{text}: {refusal}");
        }
    }
}
