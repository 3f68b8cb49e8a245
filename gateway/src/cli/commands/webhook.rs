//! `plgw tenant webhook`.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    api::view::WebhookView,
    cli::{
        client::CliContext,
        commands::LabelArguments,
        output::{Format, Table},
        terminal::notice,
    },
    client::collect_pages,
    model::{Name, Reference, webhook::WebhookRequest},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Create a webhook; its signing key is shown once
    Create(Create),
    /// List webhooks with their delivery status
    List {
        /// List webhooks of this tenant only
        tenant: Option<Name>,
    },
    /// Delete a webhook
    Delete {
        /// The webhook
        #[arg(value_name = "TENANT/NAME")]
        webhook: Reference,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// The webhook
    #[arg(value_name = "TENANT/NAME")]
    webhook: Reference,
    /// The URL to deliver events to, by HTTP POST
    #[arg(long, value_name = "URL")]
    url: String,
    #[command(flatten)]
    labels: LabelArguments,
}

pub(in crate::cli) async fn run(client: &CliContext, command: Command) -> Result<()> {
    match command {
        Command::Create(arguments) => {
            let request = WebhookRequest {
                name: arguments.webhook.name,
                url: arguments.url,
                labels: arguments.labels.labels(),
            };
            let tenant = &arguments.webhook.tenant;
            let made = client.api.create_webhook(tenant, &request).await?;
            client.show(&made, |made| {
                Table::Fields(vec![
                    ("webhook", reference(&made.webhook)),
                    ("url", made.webhook.url.clone()),
                    ("secret", made.secret.clone()),
                ])
            })?;
            if client.format == Format::Table {
                notice("The secret is not shown again.");
            }
            Ok(())
        }
        Command::List { tenant } => {
            let webhooks = client
                .list_across_tenants(tenant, async |api, tenant| {
                    collect_pages(async |limit, after| {
                        api.list_webhooks(tenant, limit, after).await
                    })
                    .await
                })
                .await?;
            client.show(&webhooks, |webhooks| {
                let rows = webhooks.iter().map(|webhook| {
                    let status = &webhook.status;
                    vec![
                        reference(webhook),
                        webhook.url.clone(),
                        status.failures.to_string(),
                        status.events_lost.to_string(),
                        status.last_error.clone().unwrap_or_default(),
                    ]
                });
                let header = vec!["WEBHOOK", "URL", "FAILURES", "LOST", "LAST ERROR"];
                Table::Rows(header, rows.collect())
            })
        }
        Command::Delete { webhook } => {
            let Reference { tenant, name } = &webhook;
            client.api.delete_webhook(tenant, name).await?;
            client.print_deleted(&format!("webhook {webhook}"))
        }
    }
}

fn reference(webhook: &WebhookView) -> String {
    format!("{}/{}", webhook.tenant, webhook.meta.name)
}
