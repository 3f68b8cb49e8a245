//! `gateway tenant identity`.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    api::view::IdentityView,
    cli::{client::Client, commands::LabelArguments, output::Table},
    client::all,
    model::{Name, Reference, Role, identity::IdentityRequest},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Say who, of those that another system knows, acts for a tenant
    Create(Create),
    /// List identities
    List {
        /// Only those of this tenant
        tenant: Option<Name>,
    },
    /// Remove an identity: those who were meant act for the tenant no more
    Delete {
        /// The identity
        #[arg(value_name = "TENANT/NAME")]
        identity: Reference,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// The identity
    #[arg(value_name = "TENANT/NAME")]
    identity: Reference,
    /// Who vouches for them: an OpenID Connect issuer's URL, or `certificate`
    #[arg(long, value_name = "URL|certificate")]
    issuer: String,
    /// What is looked at: a claim of the issuer's tokens; of certificates common_name, dns, email, uri
    /// or sha256
    #[arg(long, default_value = "sub", value_name = "CLAIM")]
    claim: String,
    /// What it must say, or hold if it is a list
    #[arg(long, value_name = "VALUE")]
    value: String,
    /// What they are within the tenant: viewer, consumer, provider or admin
    #[arg(long, value_name = "ROLE")]
    role: Role,
    #[command(flatten)]
    labels: LabelArguments,
}

pub(in crate::cli) async fn run(client: &Client, command: Command) -> Result<()> {
    match command {
        Command::Create(arguments) => {
            let request = IdentityRequest {
                name: arguments.identity.name,
                issuer: arguments.issuer,
                claim: arguments.claim,
                value: arguments.value,
                role: arguments.role,
                labels: arguments.labels.labels(),
            };
            let tenant = &arguments.identity.tenant;
            let identity = client.api.create_identity(tenant, &request).await?;
            client.show(&identity, |identity| {
                Table::Fields(vec![
                    ("identity", reference(identity)),
                    ("issuer", identity.issuer.clone()),
                    ("claim", identity.claim.clone()),
                    ("value", identity.value.clone()),
                    ("role", identity.role.to_string()),
                ])
            })
        }
        Command::List { tenant } => {
            let identities = client
                .of_tenants(tenant, async |api, tenant| {
                    all(async |limit, after| api.list_identities(tenant, limit, after).await).await
                })
                .await?;
            client.show(&identities, |identities| {
                let rows = identities.iter().map(|identity| {
                    vec![
                        reference(identity),
                        identity.role.to_string(),
                        format!("{}={}", identity.claim, identity.value),
                        identity.issuer.clone(),
                    ]
                });
                let head = vec!["IDENTITY", "ROLE", "WHO", "ISSUER"];
                Table::Rows(head, rows.collect())
            })
        }
        Command::Delete { identity } => {
            let Reference { tenant, name } = &identity;
            client.api.delete_identity(tenant, name).await?;
            client.gone(&format!("identity {identity}"))
        }
    }
}

fn reference(identity: &IdentityView) -> String {
    format!("{}/{}", identity.tenant, identity.meta.name)
}
