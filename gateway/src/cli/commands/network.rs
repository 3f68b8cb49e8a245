//! `plgw network`.

use std::net::IpAddr;

use anyhow::Result;
use clap::{Args, Subcommand};
use ipnet::IpNet;

use crate::{
    cli::{
        commands::{LabelArguments, joined, render_labels},
        context::CliContext,
        object::{ListedObject, ShownObject},
        output::Table,
    },
    client::{
        Client,
        types::{AttachmentStatus, NetworkView},
    },
    model::{
        Kind, Name, Reference,
        address::AddressRange,
        network::{Attachment, NetworkRequest},
    },
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Create a network
    Create(NetworkArguments),
    /// Change a network; options that are not given keep their values
    Update(NetworkArguments),
    /// List networks
    List {
        /// List networks of this tenant only
        tenant: Option<Name>,
    },
    /// Show a network
    Show {
        /// The network
        #[arg(value_name = "TENANT/NAME")]
        network: Reference,
    },
    /// Delete a network without services and endpoints
    Delete {
        /// The network
        #[arg(value_name = "TENANT/NAME")]
        network: Reference,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct NetworkArguments {
    /// The network
    #[arg(value_name = "TENANT/NAME")]
    network: Reference,
    /// A host interface to attach; repeatable
    #[arg(long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Drop packets to addresses that are not endpoints, instead of passing them to the host; by default true while the
    /// network has no service
    #[arg(long, value_name = "BOOL")]
    isolated: Option<bool>,
    /// The maximum IP packet size in bytes; by default the MTU of the interface
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u16>,
    /// A prefix of the addresses of the network's hosts; repeatable
    #[arg(long = "prefix", value_name = "CIDR")]
    prefixes: Vec<IpNet>,
    /// A router of the network; repeatable
    #[arg(long = "router", value_name = "IP")]
    routers: Vec<IpAddr>,
    /// Addresses for endpoints that are created without one; repeatable
    #[arg(long = "pool", value_name = "CIDR|FIRST-LAST")]
    pool: Vec<AddressRange>,
    /// Attach interfaces even if the gateway's host needs them itself
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    labels: LabelArguments,
}

/// Returns the given values, or the current ones if none were given.
fn given_or_current<T>(given: Vec<T>, current: Vec<T>) -> Vec<T> {
    if given.is_empty() { current } else { given }
}

impl NetworkArguments {
    fn attachments(&self) -> Vec<Attachment> {
        let attachment = |interface: &String| Attachment {
            interface: interface.clone(),
        };
        self.interfaces.iter().map(attachment).collect()
    }
}

pub(in crate::cli) async fn run(context: &CliContext, command: Command) -> Result<()> {
    match command {
        Command::Create(fields) => {
            let request = NetworkRequest {
                name: Some(fields.network.name.clone()),
                version: None,
                attachments: fields.attachments(),
                labels: fields.labels.labels(),
                isolated: fields.isolated,
                mtu: fields.mtu,
                prefixes: fields.prefixes,
                routers: fields.routers,
                pool: fields.pool,
                force: fields.force,
            };
            let network = context
                .api
                .create_network(&fields.network.tenant, &request)
                .await?;
            context.print_object(&network)
        }
        Command::Update(fields) => {
            let Reference { tenant, name } = &fields.network;
            let old = context.api.show_network(tenant, name).await?;
            let attachments = fields.attachments();
            let request = NetworkRequest {
                name: None,
                version: Some(old.meta.version.public_value()),
                attachments: given_or_current(attachments, old.spec.attachments),
                labels: fields.labels.labels(),
                isolated: fields.isolated.or(old.spec.isolated),
                mtu: fields.mtu.or(old.spec.mtu),
                prefixes: given_or_current(fields.prefixes, old.spec.prefixes),
                routers: given_or_current(fields.routers, old.spec.routers),
                pool: given_or_current(fields.pool, old.spec.pool),
                force: fields.force,
            };
            let network = context.api.update_network(tenant, name, &request).await?;
            context.print_object(&network)
        }
        Command::List { tenant } => context.list(tenant, Client::list_networks).await,
        Command::Show { network } => context.show(&network, Client::show_network).await,
        Command::Delete { network } => {
            let delete = Client::delete_network;
            context.delete(Kind::Network, &network, delete).await
        }
    }
}

impl ListedObject for NetworkView {
    const HEADER: &'static [&'static str] = &[
        "NETWORK",
        "INTERFACE",
        "STATE",
        "XDP",
        "ISOLATED",
        "PROBLEMS",
    ];

    fn rows(&self) -> Vec<Vec<String>> {
        let rows = self.status.attachments.iter().map(|attachment| {
            vec![
                self.reference(),
                attachment.interface.clone(),
                attachment.state.clone(),
                mode(attachment),
                yes_or_no(self.status.isolated),
                attachment.problems.len().to_string(),
            ]
        });
        rows.collect()
    }
}

fn mode(attachment: &AttachmentStatus) -> String {
    attachment
        .xdp_mode
        .clone()
        .unwrap_or_else(|| "-".to_owned())
}

/// Returns the time at which the interface received packets last, as far as the gateway has watched it.
fn last_received(attachment: &AttachmentStatus) -> String {
    match (attachment.last_received_at, attachment.watched_since) {
        (Some(at), _) => format!("{at:.0}"),
        (None, Some(_)) if attachment.received_packets == Some(0) => "never".to_owned(),
        (None, Some(since)) => format!("before {since:.0}"),
        (None, None) => String::new(),
    }
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

impl ShownObject for NetworkView {
    fn details(&self) -> Table {
        let attachments = self.status.attachments.iter().map(|attachment| {
            vec![
                attachment.interface.clone(),
                attachment.state.clone(),
                mode(attachment),
                attachment.mac.clone().unwrap_or_default(),
                attachment
                    .mtu
                    .map(|mtu| mtu.to_string())
                    .unwrap_or_default(),
                attachment
                    .received_packets
                    .map(|packets| packets.to_string())
                    .unwrap_or_default(),
                last_received(attachment),
            ]
        });
        let fields = Table::Fields(vec![
            ("network", self.reference()),
            ("isolated", yes_or_no(self.status.isolated)),
            (
                "mtu",
                self.spec.mtu.map(|mtu| mtu.to_string()).unwrap_or_default(),
            ),
            ("prefixes", joined(&self.spec.prefixes)),
            ("routers", joined(&self.spec.routers)),
            ("pool", joined(&self.spec.pool)),
            ("labels", render_labels(&self.meta.labels)),
            ("created", self.meta.created_at.to_string()),
        ]);
        let header = vec![
            "INTERFACE",
            "STATE",
            "XDP",
            "MAC",
            "MTU",
            "RECEIVED",
            "LAST RECEIVED",
        ];
        let mut tables = vec![fields, Table::Rows(header, attachments.collect())];
        let attachments = self.status.attachments.iter();
        let drops: Vec<Vec<String>> = attachments
            .flat_map(|attachment| {
                let row = |(reason, count): (&String, &u64)| {
                    vec![
                        attachment.interface.clone(),
                        reason.clone(),
                        count.to_string(),
                    ]
                };
                attachment.drops.iter().map(row).collect::<Vec<_>>()
            })
            .collect();
        if !drops.is_empty() {
            let header = vec!["INTERFACE", "DROPPED OR REJECTED", "COUNT"];
            tables.push(Table::Rows(header, drops));
        }
        let draining = self.status.draining_addresses.iter();
        let draining: Vec<Vec<String>> = draining
            .map(|draining| vec![draining.address.to_string(), draining.flows.to_string()])
            .collect();
        if !draining.is_empty() {
            tables.push(Table::Rows(
                vec!["DRAINING SNAT ADDRESS", "FLOWS"],
                draining,
            ));
        }
        let problems: Vec<Vec<String>> = self
            .status
            .attachments
            .iter()
            .flat_map(|attachment| &attachment.problems)
            .map(|problem| vec![problem.clone()])
            .collect();
        if !problems.is_empty() {
            tables.push(Table::Rows(vec!["PROBLEMS"], problems));
        }
        let attachments = self.status.attachments.iter();
        let notes: Vec<Vec<String>> = attachments
            .flat_map(|attachment| &attachment.notes)
            .map(|note| vec![note.clone()])
            .collect();
        if !notes.is_empty() {
            tables.push(Table::Rows(vec!["NOTES"], notes));
        }
        Table::Several(tables)
    }
}
