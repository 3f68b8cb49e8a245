//! `plgw flow`.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use clap::Subcommand;

use crate::{
    cli::{context::CliContext, object::ListedObject},
    client::types::FlowView,
    model::{Name, Reference},
};

/// Maximum number of flows that one request returns.
const PAGE_SIZE: u64 = 1_000;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// List active flows
    List {
        /// List flows of this endpoint only
        #[arg(long, value_name = "TENANT/NAME")]
        endpoint: Option<Reference>,
        /// List flows of this tenant's endpoints only
        #[arg(long, value_name = "TENANT")]
        tenant: Option<Name>,
        /// List flows of this client only
        #[arg(long, value_name = "ADDRESS")]
        client: Option<IpAddr>,
        /// List flows to this backend only
        #[arg(long, value_name = "ADDRESS")]
        backend: Option<IpAddr>,
        /// Maximum number of flows
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u64,
    },
}

pub(in crate::cli) async fn run(context: &CliContext, command: Command) -> Result<()> {
    let Command::List {
        endpoint,
        tenant,
        client,
        backend,
        limit,
    } = command;
    let mut flows: Vec<FlowView> = Vec::new();
    let mut after = None;
    loop {
        let wanted = limit.saturating_sub(u64::try_from(flows.len())?);
        let page = context
            .api
            .list_flows(
                endpoint.as_ref(),
                tenant.as_ref(),
                client.as_ref(),
                backend.as_ref(),
                after.as_deref(),
                Some(wanted.min(PAGE_SIZE)),
            )
            .await?;
        flows.extend(page.items);
        after = page.next;
        if after.is_none() || u64::try_from(flows.len())? >= limit {
            break;
        }
    }
    context.print_list(&flows)
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
