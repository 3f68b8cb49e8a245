//! `plgw flow`.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Subcommand;

use crate::{
    cli::{client::CliContext, output::Table},
    model::Reference,
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// List active flows
    List {
        /// List flows of this endpoint only
        #[arg(long, value_name = "TENANT/NAME")]
        endpoint: Option<Reference>,
        /// Maximum number of flows
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u64,
    },
}

pub(in crate::cli) async fn run(client: &CliContext, command: Command) -> Result<()> {
    let Command::List { endpoint, limit } = command;
    let page = client
        .api
        .list_flows(endpoint.as_ref(), Some(limit))
        .await?;
    client.show(&page.items, |flows| {
        let rows = flows.iter().map(|flow| {
            vec![
                flow.endpoint
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), ToString::to_string),
                flow.protocol.to_string(),
                flow.client.to_string(),
                render_address(flow.nat),
                render_address(flow.backend),
                flow.state.clone(),
                format!("{} s", flow.idle),
            ]
        });
        let header = vec![
            "ENDPOINT", "PROTO", "CLIENT", "NAT", "BACKEND", "STATE", "IDLE",
        ];
        Table::Rows(header, rows.collect())
    })
}

fn render_address(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "-".to_owned(), |address| address.to_string())
}
