//! `plgw endpoint`.

use std::net::IpAddr;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::{
    cli::{
        commands::{LabelArguments, amount, joined, render_labels},
        context::CliContext,
        object::{ListedObject, ShownObject},
        output::Table,
    },
    client::{
        Client,
        types::{AddressStatus, EndpointView},
    },
    model::{
        Kind, Name, Reference,
        endpoint::{EndpointRequest, ReconnectRequest},
    },
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Create an endpoint and request a connection to its service
    Create(Create),
    /// List endpoints
    List {
        /// List endpoints of this tenant only
        tenant: Option<Name>,
    },
    /// Show an endpoint
    Show {
        /// The endpoint
        #[arg(value_name = "TENANT/NAME")]
        endpoint: Reference,
    },
    /// Ask again for a connection that is Disconnected; name and addresses stay
    Reconnect(Reconnect),
    /// Delete an endpoint and end its connection
    Delete {
        /// The endpoint
        #[arg(value_name = "TENANT/NAME")]
        endpoint: Reference,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// The endpoint
    #[arg(value_name = "TENANT/NAME")]
    endpoint: Reference,
    /// The consumer's network
    #[arg(long, value_name = "NET")]
    network: String,
    /// The service's private address in that network; one of each family can be given. By default, free addresses of
    /// the network's pool are allocated
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// The service: its alias, or TENANT/NAME
    #[arg(long, value_name = "SERVICE")]
    service: String,
    /// The resource, if not the default one
    #[arg(long, value_name = "NAME")]
    resource: Option<Name>,
    /// A message to the provider
    #[arg(long, default_value = "", value_name = "TEXT")]
    message: String,
    #[command(flatten)]
    labels: LabelArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Reconnect {
    /// The endpoint
    #[arg(value_name = "TENANT/NAME")]
    endpoint: Reference,
    /// The service, if not the present one: its alias, or TENANT/NAME. A service that was created again has another
    /// alias
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// The resource, if not the present one
    #[arg(long, value_name = "NAME")]
    resource: Option<Name>,
    /// A message to the provider that replaces the present one
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
}

pub(in crate::cli) async fn run(context: &CliContext, command: Command) -> Result<()> {
    match command {
        Command::Create(arguments) => {
            let tenant = arguments.endpoint.tenant;
            let network = match arguments.network.parse::<Reference>() {
                Ok(reference) if reference.tenant == tenant => reference.name,
                Ok(reference) => {
                    bail!(
                        "network {reference} is of another tenant: name a network of tenant {tenant}"
                    )
                }
                Err(_) => arguments.network.parse()?,
            };
            let request = EndpointRequest {
                name: Some(arguments.endpoint.name),
                version: None,
                labels: arguments.labels.labels(),
                network,
                addresses: arguments.addresses,
                service: arguments.service,
                resource: arguments.resource,
                request_message: arguments.message,
            };
            let endpoint = context.api.create_endpoint(&tenant, &request).await?;
            context.print_object(&endpoint)
        }
        Command::List { tenant } => context.list(tenant, Client::list_endpoints).await,
        Command::Show { endpoint } => context.show(&endpoint, Client::show_endpoint).await,
        Command::Reconnect(arguments) => {
            let Reference { tenant, name } = &arguments.endpoint;
            let request = ReconnectRequest {
                version: None,
                service: arguments.service,
                resource: arguments.resource,
                request_message: arguments.message,
            };
            let endpoint = context.api.reconnect_endpoint(tenant, name, &request);
            context.print_object(&endpoint.await?)
        }
        Command::Delete { endpoint } => {
            let delete = Client::delete_endpoint;
            context.delete(Kind::Endpoint, &endpoint, delete).await
        }
    }
}

impl ListedObject for EndpointView {
    const HEADER: &'static [&'static str] =
        &["ENDPOINT", "ADDRESS", "SERVICE", "CONNECTION", "FLOWS"];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.reference(),
            joined(&self.spec.addresses),
            self.spec.service.clone(),
            self.status.connection.state.to_string(),
            self.status.counters.flows_opened.to_string(),
        ]]
    }
}

impl ShownObject for EndpointView {
    fn details(&self) -> Table {
        let spec = &self.spec;
        let connection = &self.status.connection;
        let counters = &self.status.counters;
        let crossed = |packets: u64, bytes: u64| {
            format!("{} packets, {}", amount(packets, ""), amount(bytes, "B"))
        };
        let drops = counters
            .drops
            .iter()
            .flatten()
            .map(|(reason, count)| format!("{count} {reason}"));
        Table::Fields(vec![
            ("endpoint", self.reference()),
            ("network", spec.network.to_string()),
            ("address", addresses(&self.status.addresses)),
            ("service", spec.service.clone()),
            ("resource", spec.resource.to_string()),
            ("message", spec.request_message.clone()),
            ("connection", connection.state.to_string()),
            ("link id", connection.link_id.to_string()),
            ("reason", connection.reason.clone()),
            (
                "decided by",
                connection.decided_by.clone().unwrap_or_default(),
            ),
            (
                "decided at",
                connection
                    .decided_at
                    .map(|at| at.to_string())
                    .unwrap_or_default(),
            ),
            (
                "problem",
                match self.status.service_available {
                    Some(false) => {
                        "the service has no backend that can take new flows: ask its provider"
                    }
                    _ => "",
                }
                .to_owned(),
            ),
            (
                "programmed",
                if self.status.programmed { "yes" } else { "no" }.to_owned(),
            ),
            (
                "flows",
                format!(
                    "{} now, {} opened",
                    self.status.flows, counters.flows_opened
                ),
            ),
            (
                "to service",
                crossed(counters.packets_to_service, counters.bytes_to_service),
            ),
            (
                "to consumer",
                crossed(counters.packets_to_consumer, counters.bytes_to_consumer),
            ),
            ("dropped", drops.collect::<Vec<_>>().join(", ")),
            ("labels", render_labels(&self.meta.labels)),
            ("created", self.meta.created_at.to_string()),
        ])
    }
}

/// Formats addresses with their problems.
fn addresses(addresses: &[AddressStatus]) -> String {
    let shown = addresses.iter().map(|status| {
        let address = status.address;
        let mac_address = status.mac_address.as_deref().unwrap_or_default();
        if let Some(problem) = &status.problem {
            return format!("{address} (not in use: {problem})");
        }
        match status.state.as_str() {
            "in_use" => address.to_string(),
            "conflict" => format!("{address} (not in use: MAC address {mac_address} has it)"),
            "disputed" => format!("{address} (disputed: MAC address {mac_address} claims it)"),
            other => format!("{address} ({other})"),
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}
