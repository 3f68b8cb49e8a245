//! `gateway network`.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    api::view::{AttachmentStatus, NetworkView},
    cli::{
        client::Client,
        commands::{LabelArguments, path, shown},
        output::Table,
    },
    model::{
        Reference,
        network::{Attachment, NetworkRequest},
    },
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Create a network
    Create(Fields),
    /// Change a network; what is not given stays as it is
    Update(Fields),
    /// List networks
    List {
        /// Only those of this tenant
        tenant: Option<String>,
    },
    /// Show a network
    Show {
        /// The network
        #[arg(value_name = "TENANT/NAME")]
        network: Reference,
    },
    /// Delete a network that nothing is in
    Delete {
        /// The network
        #[arg(value_name = "TENANT/NAME")]
        network: Reference,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Fields {
    /// The network
    #[arg(value_name = "TENANT/NAME")]
    network: Reference,
    /// An interface that leads to it; can be given several times
    #[arg(long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Drop what is for no endpoint, instead of handing it to the host; by default that is so
    /// while the network holds no service
    #[arg(long, value_name = "BOOL")]
    isolated: Option<bool>,
    /// The largest IP packet to send into it, in bytes; by default what the interface allows
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u16>,
    #[command(flatten)]
    labels: LabelArguments,
}

impl Fields {
    fn attachments(&self) -> Vec<Attachment> {
        let attachment = |interface: &String| Attachment {
            interface: interface.clone(),
        };
        self.interfaces.iter().map(attachment).collect()
    }
}

pub(in crate::cli) async fn run(client: &Client, command: Command) -> Result<()> {
    match command {
        Command::Create(fields) => {
            let request = NetworkRequest {
                name: Some(fields.network.name.clone()),
                version: None,
                attachments: fields.attachments(),
                labels: fields.labels.labels(),
                isolated: fields.isolated,
                mtu: fields.mtu,
            };
            let path = format!("/v1/tenants/{}/networks", fields.network.tenant);
            let network: NetworkView = client.post(&path, &request).await?;
            client.show(&network, details)
        }
        Command::Update(fields) => {
            let path = path("networks", &fields.network);
            let old: NetworkView = client.get(&path).await?;
            let given = fields.attachments();
            let request = NetworkRequest {
                name: None,
                version: Some(old.meta.version),
                attachments: if given.is_empty() {
                    old.spec.attachments
                } else {
                    given
                },
                labels: fields.labels.labels(),
                isolated: fields.isolated.or(old.spec.isolated),
                mtu: fields.mtu.or(old.spec.mtu),
            };
            let network: NetworkView = client.put(&path, &request).await?;
            client.show(&network, details)
        }
        Command::List { tenant } => {
            let networks: Vec<NetworkView> = client.list_owned(tenant, "networks").await?;
            client.show(&networks, |networks| {
                let rows = networks.iter().flat_map(|network| {
                    network.status.attachments.iter().map(|attachment| {
                        vec![
                            network.reference(),
                            attachment.interface.clone(),
                            attachment.state.clone(),
                            mode(attachment),
                            yes_or_no(network.status.isolated),
                            attachment.problems.len().to_string(),
                        ]
                    })
                });
                let head = vec![
                    "NETWORK",
                    "INTERFACE",
                    "STATE",
                    "XDP",
                    "ISOLATED",
                    "PROBLEMS",
                ];
                Table::Rows(head, rows.collect())
            })
        }
        Command::Show { network } => {
            let network: NetworkView = client.get(&path("networks", &network)).await?;
            client.show(&network, details)
        }
        Command::Delete { network } => {
            client
                .delete(&path("networks", &network), &format!("network {network}"))
                .await
        }
    }
}

fn mode(attachment: &AttachmentStatus) -> String {
    attachment
        .xdp_mode
        .clone()
        .unwrap_or_else(|| "-".to_owned())
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

fn details(network: &NetworkView) -> Table {
    let attachments = network.status.attachments.iter().map(|attachment| {
        vec![
            attachment.interface.clone(),
            attachment.state.clone(),
            mode(attachment),
            attachment.mac.clone().unwrap_or_default(),
            attachment
                .mtu
                .map(|mtu| mtu.to_string())
                .unwrap_or_default(),
        ]
    });
    let fields = Table::Fields(vec![
        ("network", network.reference()),
        ("isolated", yes_or_no(network.status.isolated)),
        (
            "mtu",
            network
                .spec
                .mtu
                .map(|mtu| mtu.to_string())
                .unwrap_or_default(),
        ),
        ("labels", shown(&network.meta.labels)),
        ("created", network.meta.created_at.to_string()),
    ]);
    let head = vec!["INTERFACE", "STATE", "XDP", "MAC", "MTU"];
    let mut tables = vec![fields, Table::Rows(head, attachments.collect())];
    let problems: Vec<Vec<String>> = network
        .status
        .attachments
        .iter()
        .flat_map(|attachment| &attachment.problems)
        .map(|problem| vec![problem.clone()])
        .collect();
    if !problems.is_empty() {
        tables.push(Table::Rows(vec!["PROBLEMS"], problems));
    }
    Table::Several(tables)
}
