//! `gateway flow`.

use anyhow::Result;
use clap::Subcommand;

use crate::{
    api::{page::Page, view::FlowView},
    cli::{client::Client, output::Table},
    model::Reference,
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// List flows
    List {
        /// Only those of this endpoint
        #[arg(long, value_name = "TENANT/NAME")]
        endpoint: Option<Reference>,
        /// How many at the most
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
}

pub(in crate::cli) async fn run(client: &Client, command: Command) -> Result<()> {
    let Command::List { endpoint, limit } = command;
    let only = endpoint.map_or_else(String::new, |endpoint| {
        format!("&endpoint={}%2F{}", endpoint.tenant, endpoint.name)
    });
    let page: Page<FlowView> = client
        .get(&format!("/v1/flows?limit={limit}{only}"))
        .await?;
    client.show(&page.items, |flows| {
        let rows = flows.iter().map(|flow| {
            vec![
                flow.endpoint
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), ToString::to_string),
                flow.protocol.to_string(),
                flow.client.to_string(),
                flow.nat.to_string(),
                flow.backend.to_string(),
                flow.state.clone(),
                format!("{} s", flow.idle),
            ]
        });
        let head = vec![
            "ENDPOINT", "PROTO", "CLIENT", "NAT", "BACKEND", "STATE", "IDLE",
        ];
        Table::Rows(head, rows.collect())
    })
}
