//! Commands that are clients of the agent, one file for each kind of object.

pub(super) mod apply;
pub(super) mod backup;
pub(super) mod connection;
pub(super) mod endpoint;
pub(super) mod event;
pub(super) mod flow;
pub(super) mod identity;
pub(super) mod network;
pub(super) mod service;
pub(super) mod status;
pub(super) mod tenant;
pub(super) mod token;
pub(super) mod webhook;

use std::collections::BTreeMap;

use clap::Args;

use crate::model::record::Labels;

/// Labels of the object that is created or changed.
#[derive(Args, Clone, Debug)]
pub(super) struct LabelArguments {
    /// A label of the object; repeatable. When an object is changed, the given labels replace all present ones
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
}

impl LabelArguments {
    /// Returns the labels; none if no `--label` was given, so that the object keeps its labels.
    fn labels(self) -> Option<Labels> {
        (!self.labels.is_empty()).then(|| self.labels.into_iter().collect::<BTreeMap<_, _>>())
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("not a label: write KEY=VALUE".to_owned()),
    }
}

/// Formats labels as one line.
fn render_labels(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(" ")
}

/// Formats a list as one line.
fn joined<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

/// Formats a count with its unit; bytes get a binary prefix from ten units of it on.
fn amount(count: u64, unit: &str) -> String {
    const STEPS: [(u64, &str); 4] = [
        (1 << 40, "Ti"),
        (1 << 30, "Gi"),
        (1 << 20, "Mi"),
        (1 << 10, "Ki"),
    ];
    for (step, prefix) in STEPS {
        if count >= step * 10 && unit == "B" {
            return format!("{} {prefix}{unit}", count / step);
        }
    }
    if unit.is_empty() {
        count.to_string()
    } else {
        format!("{count} {unit}")
    }
}
