//! `plgw connection`.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::{
    cli::{
        commands::joined,
        context::CliContext,
        object::{ListedObject, ShownObject},
        output::Table,
    },
    client::{
        collect_pages,
        types::{ConnectionView, DecisionRequest},
    },
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

pub(in crate::cli) async fn run(context: &CliContext, command: Command) -> Result<()> {
    match command {
        Command::List { service, state } => list(context, service, state).await,
        Command::Approve(arguments) => decide(context, Decision::Approve, arguments).await,
        Command::Reject(arguments) => decide(context, Decision::Reject, arguments).await,
        Command::Remove(arguments) => decide(context, Decision::Remove, arguments).await,
    }
}

async fn list(
    context: &CliContext,
    service: Option<Reference>,
    state: Option<ConnectionState>,
) -> Result<()> {
    let api = &context.api;
    let connections = match service {
        Some(Reference { tenant, name }) => {
            collect_pages(async |limit, after| {
                api.list_service_connections(&tenant, &name, limit, after)
                    .await
            })
            .await?
        }
        None => {
            collect_pages(async |limit, after| {
                api.list_connections(None, state.as_ref(), limit, after)
                    .await
            })
            .await?
        }
    };
    context.print_list(&connections)
}

async fn decide(
    context: &CliContext,
    decision: Decision,
    arguments: DecisionArguments,
) -> Result<()> {
    let api = &context.api;
    let endpoint = &arguments.endpoint;
    let found = api.list_connections(Some(endpoint), None, None, None);
    let found = found
        .await?
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
    context.print_object(&connection)
}

impl ListedObject for ConnectionView {
    const HEADER: &'static [&'static str] = &[
        "ENDPOINT", "ADDRESS", "SERVICE", "STATE", "LINK ID", "MESSAGE",
    ];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.endpoint.to_string(),
            joined(&self.addresses),
            self.service.to_string(),
            self.connection.state.to_string(),
            self.connection.link_id.to_string(),
            self.request_message.clone(),
        ]]
    }
}

impl ShownObject for ConnectionView {
    fn details(&self) -> Table {
        let status = &self.connection;
        Table::Fields(vec![
            ("endpoint", self.endpoint.to_string()),
            ("address", joined(&self.addresses)),
            ("service", self.service.to_string()),
            ("connection", status.state.to_string()),
            ("link id", status.link_id.to_string()),
            ("reason", status.reason.clone()),
            ("decided by", status.decided_by.clone().unwrap_or_default()),
        ])
    }
}
