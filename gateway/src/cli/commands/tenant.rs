//! `plgw tenant`.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    cli::{
        commands::{LabelArguments, identity, render_labels, token, webhook},
        context::CliContext,
        object::{ListedObject, ShownObject},
        output::Table,
    },
    client::{collect_pages, types::TenantView},
    model::{
        Name,
        tenant::{Quotas, TenantRequest},
    },
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Create a tenant
    Create(TenantArguments),
    /// Change a tenant's quotas and labels
    Update(TenantArguments),
    /// List tenants
    List,
    /// Show a tenant
    Show {
        /// The tenant
        name: Name,
    },
    /// Delete a tenant that owns nothing
    Delete {
        /// The tenant
        name: Name,
    },
    /// Manage a tenant's tokens, the bearer secrets for its API access
    #[command(subcommand)]
    Token(token::Command),
    /// Map external identities (OIDC claims, client certificates) to tenant roles
    #[command(subcommand)]
    Identity(identity::Command),
    /// Manage a tenant's webhooks, the URLs that its events are delivered to
    #[command(subcommand)]
    Webhook(webhook::Command),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TenantArguments {
    /// The tenant
    name: Name,
    /// Maximum number of networks
    #[arg(long, value_name = "N")]
    networks: Option<u32>,
    /// Maximum number of services
    #[arg(long, value_name = "N")]
    services: Option<u32>,
    /// Maximum number of endpoints
    #[arg(long, value_name = "N")]
    endpoints: Option<u32>,
    #[command(flatten)]
    labels: LabelArguments,
}

pub(in crate::cli) async fn run(context: &CliContext, command: Command) -> Result<()> {
    match command {
        Command::Token(command) => token::run(context, command).await,
        Command::Identity(command) => identity::run(context, command).await,
        Command::Webhook(command) => webhook::run(context, command).await,
        Command::Create(fields) => {
            let request = TenantRequest {
                name: Some(fields.name),
                version: None,
                labels: fields.labels.labels(),
                quotas: Quotas {
                    networks: fields.networks,
                    services: fields.services,
                    endpoints: fields.endpoints,
                },
            };
            let tenant = context.api.create_tenant(&request).await?;
            context.print_object(&tenant)
        }
        Command::Update(fields) => {
            let old = context.api.show_tenant(&fields.name).await?;
            let quotas = old.spec.quotas;
            let request = TenantRequest {
                name: None,
                version: Some(old.meta.version.public_value()),
                labels: fields.labels.labels(),
                quotas: Quotas {
                    networks: fields.networks.or(quotas.networks),
                    services: fields.services.or(quotas.services),
                    endpoints: fields.endpoints.or(quotas.endpoints),
                },
            };
            let tenant = context.api.update_tenant(&fields.name, &request).await?;
            context.print_object(&tenant)
        }
        Command::List => {
            let api = &context.api;
            let tenants =
                collect_pages(async |limit, after| api.list_tenants(limit, after).await).await?;
            context.print_list(&tenants)
        }
        Command::Show { name } => {
            let tenant = context.api.show_tenant(&name).await?;
            context.print_object(&tenant)
        }
        Command::Delete { name } => {
            context.api.delete_tenant(&name).await?;
            context.print_message(&format!("tenant {name} deleted"))
        }
    }
}

impl ListedObject for TenantView {
    const HEADER: &'static [&'static str] = &["NAME", "NETWORKS", "SERVICES", "ENDPOINTS"];

    fn rows(&self) -> Vec<Vec<String>> {
        let usage = &self.status.usage;
        vec![vec![
            self.meta.name.to_string(),
            usage.networks.to_string(),
            usage.services.to_string(),
            usage.endpoints.to_string(),
        ]]
    }
}

impl ShownObject for TenantView {
    fn details(&self) -> Table {
        let (quotas, usage) = (&self.spec.quotas, &self.status.usage);
        let usage_of_quota = |used: usize, quota: Option<u32>| match quota {
            Some(quota) => format!("{used} of {quota}"),
            None => used.to_string(),
        };
        Table::Fields(vec![
            ("tenant", self.meta.name.to_string()),
            ("networks", usage_of_quota(usage.networks, quotas.networks)),
            ("services", usage_of_quota(usage.services, quotas.services)),
            (
                "endpoints",
                usage_of_quota(usage.endpoints, quotas.endpoints),
            ),
            ("labels", render_labels(&self.meta.labels)),
            ("created", self.meta.created_at.to_string()),
        ])
    }
}
