//! `gateway connection`.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::{
    api::{
        connections::DecisionRequest,
        view::{ConnectionView, ServiceView},
    },
    cli::{
        client::Client,
        commands::{joined, path},
        output::Table,
    },
    model::Reference,
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// List connections
    List {
        /// Only those to this service
        #[arg(value_name = "TENANT/SERVICE")]
        service: Option<Reference>,
    },
    /// Let an endpoint's connection carry traffic
    Approve(Decide),
    /// Refuse a connection, or cut it off; it can be approved later
    Reject(Decide),
    /// End a connection for good
    Remove(Decide),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Decide {
    /// The endpoint whose connection it is
    #[arg(value_name = "TENANT/ENDPOINT")]
    endpoint: Reference,
    /// What the consumer is told about it
    #[arg(long, default_value = "", value_name = "TEXT")]
    reason: String,
}

/// A connection and the service that it leads to.
#[derive(serde::Serialize)]
struct Listed {
    service: String,
    #[serde(flatten)]
    connection: ConnectionView,
}

pub(in crate::cli) async fn run(client: &Client, command: Command) -> Result<()> {
    let (decision, arguments) = match command {
        Command::List { service } => {
            let listed = list(client, service).await?;
            return client.show(&listed, |listed| {
                let rows = listed.iter().map(
                    |Listed {
                         service,
                         connection,
                     }| {
                        vec![
                            connection.endpoint.to_string(),
                            joined(&connection.addresses),
                            service.clone(),
                            connection.connection.state.to_string(),
                            connection.connection.link_id.to_string(),
                            connection.request_message.clone(),
                        ]
                    },
                );
                let head = vec![
                    "ENDPOINT", "ADDRESS", "SERVICE", "STATE", "LINK ID", "MESSAGE",
                ];
                Table::Rows(head, rows.collect())
            });
        }
        Command::Approve(arguments) => ("approve", arguments),
        Command::Reject(arguments) => ("reject", arguments),
        Command::Remove(arguments) => ("remove", arguments),
    };
    let mut listed = list(client, None).await?.into_iter();
    let found = listed
        .find(|listed| listed.connection.endpoint == arguments.endpoint)
        .with_context(|| {
            format!(
                "no connection of an endpoint {} is there",
                arguments.endpoint
            )
        })?;
    let service: Reference = found.service.parse()?;
    let link_id = found.connection.connection.link_id;
    let path = format!(
        "{}/connections/{link_id}/{decision}",
        path("services", &service)
    );
    let request = DecisionRequest {
        reason: arguments.reason,
    };
    let connection: ConnectionView = client.post(&path, &request).await?;
    client.show(&connection, |connection| {
        let status = &connection.connection;
        Table::Fields(vec![
            ("endpoint", connection.endpoint.to_string()),
            ("address", joined(&connection.addresses)),
            ("service", found.service.clone()),
            ("connection", status.state.to_string()),
            ("link id", status.link_id.to_string()),
            ("reason", status.reason.clone()),
            ("decided by", status.decided_by.clone().unwrap_or_default()),
        ])
    })
}

/// The connections to one service, or to all.
async fn list(client: &Client, service: Option<Reference>) -> Result<Vec<Listed>> {
    let services = match service {
        Some(service) => vec![service],
        None => {
            let services: Vec<ServiceView> = client.list_owned(None, "services").await?;
            services
                .iter()
                .map(|service| service.reference().parse())
                .collect::<Result<_, _>>()?
        }
    };
    let mut listed = Vec::new();
    for service in services {
        let connections: Vec<ConnectionView> = client
            .list(&format!("{}/connections", path("services", &service)))
            .await?;
        listed.extend(connections.into_iter().map(|connection| Listed {
            service: service.to_string(),
            connection,
        }));
    }
    Ok(listed)
}
