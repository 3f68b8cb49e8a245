//! `plgw flow`.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Subcommand;

use crate::{
    cli::{context::CliContext, object::ListedObject},
    client::types::FlowView,
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

pub(in crate::cli) async fn run(context: &CliContext, command: Command) -> Result<()> {
    let Command::List { endpoint, limit } = command;
    let page = context
        .api
        .list_flows(endpoint.as_ref(), Some(limit))
        .await?;
    context.print_list(&page.items)
}

impl ListedObject for FlowView {
    const HEADER: &'static [&'static str] = &[
        "ENDPOINT", "PROTO", "CLIENT", "NAT", "BACKEND", "STATE", "IDLE",
    ];

    fn rows(&self) -> Vec<Vec<String>> {
        let endpoint = self.endpoint.as_ref();
        vec![vec![
            endpoint.map_or_else(|| "-".to_owned(), ToString::to_string),
            self.protocol.to_string(),
            self.client.to_string(),
            render_address(self.nat),
            render_address(self.backend),
            self.state.clone(),
            format!("{} s", self.idle),
        ]]
    }
}

fn render_address(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "-".to_owned(), |address| address.to_string())
}
