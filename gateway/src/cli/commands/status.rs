//! `gateway status`.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{
    api::view::StatusView,
    cli::{client::Client, output::Table},
};

pub(in crate::cli) async fn run(client: &Client) -> Result<()> {
    let status: StatusView = client.get("/v1/status").await?;
    client.show(&status, |status| {
        let objects = &status.objects;
        let mut tables = vec![
            Table::Fields(vec![
                ("agent", format!("version {}", status.version)),
                (
                    "data path",
                    if status.in_step {
                        "in step"
                    } else {
                        "NOT in step"
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
                (
                    "flows",
                    format!(
                        "{} established, {} opening",
                        status.established_flows, status.embryonic_flows
                    ),
                ),
            ]),
            counts("PACKETS", &status.statistics),
        ];
        if !status.drops.is_empty() {
            tables.push(counts("DROPPED OR RESET", &status.drops));
        }
        if !status.problems.is_empty() {
            let problems = status.problems.iter().map(|problem| vec![problem.clone()]);
            tables.push(Table::Rows(vec!["PROBLEMS"], problems.collect()));
        }
        Table::Several(tables)
    })
}

fn counts(what: &'static str, counts: &BTreeMap<String, u64>) -> Table {
    let rows = counts
        .iter()
        .map(|(name, count)| vec![name.clone(), count.to_string()]);
    Table::Rows(vec![what, "COUNT"], rows.collect())
}
