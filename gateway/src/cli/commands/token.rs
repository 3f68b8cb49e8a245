//! `plgw tenant token`.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use jiff::{Span, Timestamp, tz::TimeZone};

use crate::{
    cli::{
        client::CliContext,
        commands::LabelArguments,
        output::{Format, Table},
        terminal::notice,
    },
    client::collect_pages,
    model::{Name, Reference, Role, token::TokenRequest},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Create a token; its secret is shown once
    Create(Create),
    /// List tokens, without their secrets
    List {
        /// List tokens of this tenant only
        tenant: Option<Name>,
    },
    /// Revoke a token; takes effect at once
    Revoke {
        /// The token
        #[arg(value_name = "TENANT/NAME")]
        token: Reference,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// The token
    #[arg(value_name = "TENANT/NAME")]
    token: Reference,
    /// The bearer's role in the tenant: viewer, consumer, provider or admin
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// The time until the token expires, such as 90d or 12h; by default it never expires
    #[arg(long, value_name = "TIME")]
    expires_in: Option<Span>,
    /// Write the secret to this new file, readable by its owner only, instead of printing it
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    #[command(flatten)]
    labels: LabelArguments,
}

pub(in crate::cli) async fn run(client: &CliContext, command: Command) -> Result<()> {
    match command {
        Command::Create(arguments) => create(client, arguments).await,
        Command::List { tenant } => {
            let tokens = client
                .list_across_tenants(tenant, async |api, tenant| {
                    collect_pages(async |limit, after| api.list_tokens(tenant, limit, after).await)
                        .await
                })
                .await?;
            client.show(&tokens, |tokens| {
                let rows = tokens.iter().map(|token| {
                    let end = token.expires_at.map(|end| end.to_string());
                    vec![
                        format!("{}/{}", token.tenant, token.meta.name),
                        token.role.to_string(),
                        token.meta.created_at.to_string(),
                        end.unwrap_or_else(|| "never".to_owned()),
                    ]
                });
                let header = vec!["TOKEN", "ROLE", "CREATED", "EXPIRES"];
                Table::Rows(header, rows.collect())
            })
        }
        Command::Revoke { token } => {
            client.api.delete_token(&token.tenant, &token.name).await?;
            client.print_message(&format!("token {token} revoked"))
        }
    }
}

async fn create(client: &CliContext, arguments: Create) -> Result<()> {
    let expires_at = match arguments.expires_in {
        None => None,
        Some(span) => {
            let now = TimeZone::UTC.to_datetime(Timestamp::now());
            let end = now
                .checked_add(span)
                .context("--expires-in is too long: the expiry can't be represented")?;
            Some(TimeZone::UTC.to_timestamp(end)?)
        }
    };
    let request = TokenRequest {
        name: arguments.token.name.clone(),
        role: arguments.role,
        expires_at,
        labels: arguments.labels.labels(),
    };
    // The file is created before the token: a secret that can't be written would be lost.
    let file = match &arguments.output_file {
        None => None,
        Some(path) => {
            let file = fs::OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(path)
                .with_context(|| format!("the file {} can't be created", path.display()))?;
            Some((path, file))
        }
    };
    let made = client.api.create_token(&arguments.token.tenant, &request);
    let made = match made.await {
        Ok(made) => made,
        Err(error) => {
            if let Some((path, _)) = &file {
                let _ = fs::remove_file(path);
            }
            return Err(error);
        }
    };
    if let Some((path, mut file)) = file {
        writeln!(file, "{}", made.secret)
            .with_context(|| format!("{} can't be written", path.display()))?;
        return client.print_message(&format!(
            "token {} written to {}",
            arguments.token,
            path.display()
        ));
    }
    client.show(&made, |made| {
        Table::Fields(vec![
            ("token", arguments.token.to_string()),
            ("role", made.token.role.to_string()),
            (
                "expires",
                made.token
                    .expires_at
                    .map_or_else(|| "never".to_owned(), |end| end.to_string()),
            ),
            ("secret", made.secret.clone()),
        ])
    })?;
    if client.format == Format::Table {
        notice("The secret is not shown again.");
    }
    Ok(())
}
