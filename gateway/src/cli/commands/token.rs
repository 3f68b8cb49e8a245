//! `plgw tenant token`.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use jiff::{Span, Timestamp, tz::TimeZone};

use crate::{
    cli::{
        commands::LabelArguments,
        context::CliContext,
        object::ListedObject,
        output::{Format, Table},
        terminal::notice,
    },
    client::{Client, types::TokenView},
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

pub(in crate::cli) async fn run(context: &CliContext, command: Command) -> Result<()> {
    match command {
        Command::Create(arguments) => create(context, arguments).await,
        Command::List { tenant } => context.list(tenant, Client::list_tokens).await,
        Command::Revoke { token } => {
            context.api.delete_token(&token.tenant, &token.name).await?;
            context.print_message(&format!("token {token} revoked"))
        }
    }
}

impl ListedObject for TokenView {
    const HEADER: &'static [&'static str] = &["TOKEN", "ROLE", "CREATED", "EXPIRES"];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec![
            format!("{}/{}", self.tenant, self.meta.name),
            self.role.to_string(),
            self.meta.created_at.to_string(),
            render_expiry(self.expires_at),
        ]]
    }
}

/// Formats the expiry of a token.
fn render_expiry(expires_at: Option<Timestamp>) -> String {
    expires_at.map_or_else(|| "never".to_owned(), |time| time.to_string())
}

async fn create(context: &CliContext, arguments: Create) -> Result<()> {
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
    let made = context.api.create_token(&arguments.token.tenant, &request);
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
        return context.print_message(&format!(
            "token {} written to {}",
            arguments.token,
            path.display()
        ));
    }
    context.print_value(&made, |made| {
        Table::Fields(vec![
            ("token", arguments.token.to_string()),
            ("role", made.token.role.to_string()),
            ("expires", render_expiry(made.token.expires_at)),
            ("secret", made.secret.clone()),
        ])
    })?;
    if context.format == Format::Table {
        notice("The secret is not shown again.");
    }
    Ok(())
}
