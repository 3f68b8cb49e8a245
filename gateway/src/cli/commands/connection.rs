//! `plgw connection`.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::{
    api::connections::DecisionRequest,
    cli::{client::CliContext, commands::joined, output::Table},
    client::collect_pages,
    model::{ConnectionState, Decision, Reference},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// List connections
    List {
        /// List connections to this service only
        #[arg(value_name = "TENANT/SERVICE")]
        service: Option<Reference>,
        /// List connections in this state only: Pending, Approved, Rejected
        #[arg(long, value_name = "STATE", conflicts_with = "service")]
        state: Option<ConnectionState>,
    },
    /// Approve a connection, so that it carries traffic
    Approve(DecisionArguments),
    /// Reject a connection and end its flows; it can be approved later
    Reject(DecisionArguments),
    /// Remove a connection permanently
    Remove(DecisionArguments),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DecisionArguments {
    /// The endpoint of the connection
    #[arg(value_name = "TENANT/ENDPOINT")]
    endpoint: Reference,
    /// The reason, shown to the consumer
    #[arg(long, default_value = "", value_name = "TEXT")]
    reason: String,
}

pub(in crate::cli) async fn run(client: &CliContext, command: Command) -> Result<()> {
    let (decision, arguments) = match command {
        Command::List { service, state } => {
            let listed = match service {
                Some(Reference { tenant, name }) => {
                    let api = &client.api;
                    collect_pages(async |limit, after| {
                        api.list_service_connections(&tenant, &name, limit, after)
                            .await
                    })
                    .await?
                }
                None => {
                    let api = &client.api;
                    collect_pages(async |limit, after| {
                        api.list_connections(None, state.as_ref(), limit, after)
                            .await
                    })
                    .await?
                }
            };
            return client.show(&listed, |listed| {
                let rows = listed.iter().map(|connection| {
                    vec![
                        connection.endpoint.to_string(),
                        joined(&connection.addresses),
                        connection.service.to_string(),
                        connection.connection.state.to_string(),
                        connection.connection.link_id.to_string(),
                        connection.request_message.clone(),
                    ]
                });
                let header = vec![
                    "ENDPOINT", "ADDRESS", "SERVICE", "STATE", "LINK ID", "MESSAGE",
                ];
                Table::Rows(header, rows.collect())
            });
        }
        Command::Approve(arguments) => (Decision::Approve, arguments),
        Command::Reject(arguments) => (Decision::Reject, arguments),
        Command::Remove(arguments) => (Decision::Remove, arguments),
    };
    let api = &client.api;
    let endpoint = &arguments.endpoint;
    let found = api
        .list_connections(Some(endpoint), None, None, None)
        .await?;
    let found = found
        .items
        .into_iter()
        .next()
        .with_context(|| format!("endpoint {endpoint} has no connection"))?;
    let Reference { tenant, name } = &found.service;
    let link_id = found.connection.link_id;
    let request = DecisionRequest {
        reason: arguments.reason,
        // Makes the decision fail if the connection has changed since it was read above.
        version: Some(found.version),
    };
    let connection = match decision {
        Decision::Approve => {
            api.approve_connection(tenant, name, link_id, &request)
                .await?
        }
        Decision::Reject => {
            api.reject_connection(tenant, name, link_id, &request)
                .await?
        }
        Decision::Remove => {
            api.remove_connection(tenant, name, link_id, &request)
                .await?
        }
    };
    client.show(&connection, |connection| {
        let status = &connection.connection;
        Table::Fields(vec![
            ("endpoint", connection.endpoint.to_string()),
            ("address", joined(&connection.addresses)),
            ("service", connection.service.to_string()),
            ("connection", status.state.to_string()),
            ("link id", status.link_id.to_string()),
            ("reason", status.reason.clone()),
            ("decided by", status.decided_by.clone().unwrap_or_default()),
        ])
    })
}
