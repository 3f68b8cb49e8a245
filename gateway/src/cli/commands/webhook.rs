//! `plgw tenant webhook`.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    cli::{
        commands::LabelArguments,
        context::CliContext,
        object::ListedObject,
        output::{Format, Table},
        terminal::notice,
    },
    client::{Client, types::WebhookView},
    model::{Kind, Name, Reference, webhook::WebhookRequest},
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

pub(in crate::cli) async fn run(context: &CliContext, command: Command) -> Result<()> {
    match command {
        Command::Create(arguments) => {
            let request = WebhookRequest {
                name: arguments.webhook.name,
                url: arguments.url,
                labels: arguments.labels.labels(),
            };
            let tenant = &arguments.webhook.tenant;
            let made = context.api.create_webhook(tenant, &request).await?;
            context.print_value(&made, |made| {
                Table::Fields(vec![
                    ("webhook", reference(&made.webhook)),
                    ("url", made.webhook.url.clone()),
                    ("secret", made.secret.clone()),
                ])
            })?;
            if context.format == Format::Table {
                notice("The secret is not shown again.");
            }
            Ok(())
        }
        Command::List { tenant } => context.list(tenant, Client::list_webhooks).await,
        Command::Delete { webhook } => {
            let delete = Client::delete_webhook;
            context.delete(Kind::Webhook, &webhook, delete).await
        }
    }
}

impl ListedObject for WebhookView {
    const HEADER: &'static [&'static str] = &["WEBHOOK", "URL", "FAILURES", "LOST", "LAST ERROR"];

    fn rows(&self) -> Vec<Vec<String>> {
        let status = &self.status;
        vec![vec![
            reference(self),
            self.url.clone(),
            status.failures.to_string(),
            status.events_lost.to_string(),
            status.last_error.clone().unwrap_or_default(),
        ]]
    }
}

fn reference(webhook: &WebhookView) -> String {
    format!("{}/{}", webhook.tenant, webhook.meta.name)
}
