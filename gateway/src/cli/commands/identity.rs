//! `plgw tenant identity`.

use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::{
    auth::authorities::{authority_from_certificate, read_certificates},
    cli::{
        commands::LabelArguments,
        context::CliContext,
        object::{ListedObject, ShownObject},
        output::Table,
    },
    client::{Client, types::IdentityView},
    model::{
        Kind, Name, Reference, Role,
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

pub(in crate::cli) async fn run(context: &CliContext, command: Command) -> Result<()> {
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
            let identity = context.api.create_identity(tenant, &request).await?;
            context.print_object(&identity)
        }
        Command::List { tenant } => context.list(tenant, Client::list_identities).await,
        Command::Delete { identity } => {
            let delete = Client::delete_identity;
            context.delete(Kind::Identity, &identity, delete).await
        }
    }
}

impl ShownObject for IdentityView {
    fn details(&self) -> Table {
        let mut fields = vec![
            ("identity", reference(self)),
            ("issuer", self.issuer.clone()),
            ("claim", self.claim.clone()),
            ("value", self.value.clone()),
            ("role", self.role.to_string()),
        ];
        if let Some(authority) = &self.authority {
            fields.push(("authority", authority.subject.clone()));
            fields.push(("authority key", authority.key_sha256.clone()));
        }
        Table::Fields(fields)
    }
}

impl ListedObject for IdentityView {
    const HEADER: &'static [&'static str] = &["IDENTITY", "ROLE", "CLAIM", "ISSUER"];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec![
            reference(self),
            self.role.to_string(),
            format!("{}={}", self.claim, self.value),
            render_issuer(self),
        ]]
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
