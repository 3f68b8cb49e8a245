//! `plgw tenant identity`.

use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::{
    api::view::IdentityView,
    auth::authorities::{authority_from_certificate, read_certificates},
    cli::{client::CliContext, commands::LabelArguments, output::Table},
    client::collect_pages,
    model::{
        Name, Reference, Role,
        identity::{AuthorityRequest, IdentityRequest},
    },
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Map an external identity to a role of a tenant
    Create(Create),
    /// List identities
    List {
        /// List identities of this tenant only
        tenant: Option<Name>,
    },
    /// Delete an identity; its role is withdrawn at once
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
    /// The issuer of the credential: an OpenID Connect issuer's URL, or `certificate`
    #[arg(long, value_name = "URL|certificate")]
    issuer: String,
    /// The claim to match: a claim of the issuer's tokens; for certificates common_name, dns, email, uri or sha256
    #[arg(long, default_value = "sub", value_name = "CLAIM")]
    claim: String,
    /// The value that the claim must equal, or contain if it is a list
    #[arg(long, value_name = "VALUE")]
    value: String,
    /// The authority that must have issued the certificate: the authority's certificate, a PEM file, or the SHA-256 of
    /// its SubjectPublicKeyInfo; required for certificates unless the claim is sha256
    #[arg(long, value_name = "FILE|SHA256", value_parser = parse_authority)]
    authority: Option<AuthorityRequest>,
    /// The role in the tenant: viewer, consumer, provider or admin
    #[arg(long, value_name = "ROLE")]
    role: Role,
    #[command(flatten)]
    labels: LabelArguments,
}

pub(in crate::cli) async fn run(client: &CliContext, command: Command) -> Result<()> {
    match command {
        Command::Create(arguments) => {
            let request = IdentityRequest {
                name: arguments.identity.name,
                issuer: arguments.issuer,
                claim: arguments.claim,
                value: arguments.value,
                authority: arguments.authority,
                role: arguments.role,
                labels: arguments.labels.labels(),
            };
            let tenant = &arguments.identity.tenant;
            let identity = client.api.create_identity(tenant, &request).await?;
            client.show(&identity, |identity| {
                let mut fields = vec![
                    ("identity", reference(identity)),
                    ("issuer", identity.issuer.clone()),
                    ("claim", identity.claim.clone()),
                    ("value", identity.value.clone()),
                    ("role", identity.role.to_string()),
                ];
                if let Some(authority) = &identity.authority {
                    fields.push(("authority", authority.subject.clone()));
                    fields.push(("authority key", authority.key_sha256.clone()));
                }
                Table::Fields(fields)
            })
        }
        Command::List { tenant } => {
            let identities = client
                .list_across_tenants(tenant, async |api, tenant| {
                    collect_pages(async |limit, after| {
                        api.list_identities(tenant, limit, after).await
                    })
                    .await
                })
                .await?;
            client.show(&identities, |identities| {
                let rows = identities.iter().map(|identity| {
                    vec![
                        reference(identity),
                        identity.role.to_string(),
                        format!("{}={}", identity.claim, identity.value),
                        render_issuer(identity),
                    ]
                });
                let header = vec!["IDENTITY", "ROLE", "CLAIM", "ISSUER"];
                Table::Rows(header, rows.collect())
            })
        }
        Command::Delete { identity } => {
            let Reference { tenant, name } = &identity;
            client.api.delete_identity(tenant, name).await?;
            client.print_deleted(&format!("identity {identity}"))
        }
    }
}

/// Formats an identity's issuer; for certificates, with their authority.
fn render_issuer(identity: &IdentityView) -> String {
    match &identity.authority {
        Some(authority) => format!("{} of {}", identity.issuer, authority.subject),
        None => identity.issuer.clone(),
    }
}

/// Parses an authority: the hexadecimal digits of its key's hash, or the path of its certificate.
fn parse_authority(text: &str) -> Result<AuthorityRequest, String> {
    let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash {
        return Ok(AuthorityRequest {
            subject: None,
            key_sha256: text.to_ascii_lowercase(),
        });
    }
    let read = || -> Result<AuthorityRequest> {
        match &read_certificates(Path::new(text))?[..] {
            [certificate] => Ok(authority_from_certificate(certificate)?.into()),
            several => bail!(
                "{text} holds {} certificates: name a file with one",
                several.len()
            ),
        }
    };
    read().map_err(|error| format!("{error:#}"))
}

fn reference(identity: &IdentityView) -> String {
    format!("{}/{}", identity.tenant, identity.meta.name)
}
