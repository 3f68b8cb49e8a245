//! `plgw status`.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{
    cli::{context::CliContext, output::Table},
    client::types::Backends,
};

pub(in crate::cli) async fn run(context: &CliContext) -> Result<()> {
    let status = context.api.show_status().await?;
    context.print_value(&status, |status| {
        let objects = &status.objects;
        let mut tables = vec![
            Table::Fields(vec![
                ("agent", format!("version {}", status.version)),
                (
                    "data path",
                    if status.in_sync {
                        "in sync"
                    } else {
                        "not in sync"
                    }
                    .to_owned(),
                ),
                ("XDP program", status.program_id.to_string()),
                (
                    "objects",
                    format!(
                        "{} tenants, {} networks, {} services, {} endpoints",
                        objects.tenants, objects.networks, objects.services, objects.endpoints
                    ),
                ),
                ("backends", backends(&status.backends)),
                (
                    "flows",
                    format!(
                        "{} established, {} half-open; each table is made for {}",
                        status.established_flows, status.half_open_flows, status.flow_table_size
                    ),
                ),
            ]),
            counts("PACKETS", &status.statistics),
        ];
        if !status.drops.is_empty() {
            tables.push(counts("DROPPED OR REJECTED", &status.drops));
        }
        if !status.problems.is_empty() {
            let problems = status.problems.iter().map(|problem| vec![problem.clone()]);
            tables.push(Table::Rows(vec!["PROBLEMS"], problems.collect()));
        }
        Table::Several(tables)
    })
}

/// Shows the authenticated identity and its roles.
pub(in crate::cli) async fn whoami(context: &CliContext) -> Result<()> {
    let caller = context.api.show_caller().await?;
    context.print_value(&caller, |caller| {
        let roles = caller.roles.iter();
        let roles: Vec<String> = roles
            .map(|(tenant, role)| format!("{role} of {tenant}"))
            .collect();
        let may = if caller.operator {
            "everything (operator)".to_owned()
        } else if roles.is_empty() {
            "nothing: no tenant has an identity or token for you".to_owned()
        } else {
            roles.join(", ")
        };
        Table::Fields(vec![
            ("name", caller.name.clone()),
            ("from", caller.from.clone()),
            ("may do", may),
        ])
    })
}

/// Formats the numbers of backends as one line.
fn backends(backends: &Backends) -> String {
    let mut text = format!("{} of {} available", backends.available, backends.total);
    if backends.unavailable_resources > 0 {
        text.push_str(&format!(
            "; resources without an available backend: {}",
            backends.unavailable_resources
        ));
    }
    text
}

fn counts(what: &'static str, counts: &BTreeMap<String, u64>) -> Table {
    let rows = counts
        .iter()
        .map(|(name, count)| vec![name.clone(), count.to_string()]);
    Table::Rows(vec![what, "COUNT"], rows.collect())
}
