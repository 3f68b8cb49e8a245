//! `plgw service`.

mod arguments;
mod backend;
mod resource;
mod table;

use anyhow::{Result, bail};
use clap::Subcommand;

use arguments::{Create, Update};

use crate::{
    cli::context::CliContext,
    client::{Client, types::ServiceView},
    model::{
        Kind, Name, Reference,
        record::Labels,
        service::{
            HealthCheck, NoBackendAction, Resource, ServiceRequest, ServiceSpec, SessionAffinity,
            TenantSet, UnmatchedPacketAction, default_resource,
        },
    },
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Create a service with one resource
    Create(Create),
    /// Change a service's settings; options that are not given keep their values
    Update(Update),
    /// Add, drain or remove a backend
    #[command(subcommand)]
    Backend(backend::Command),
    /// Add, change or remove a resource
    #[command(subcommand)]
    Resource(resource::Command),
    /// List services
    List {
        /// List services of this tenant only
        tenant: Option<Name>,
    },
    /// Show a service
    Show {
        /// The service
        #[arg(value_name = "TENANT/NAME")]
        service: Reference,
    },
    /// Delete a service
    Delete {
        /// The service
        #[arg(value_name = "TENANT/NAME")]
        service: Reference,
        /// Delete the service even if it has approved connections, and end their flows
        #[arg(long)]
        force: bool,
    },
}

pub(in crate::cli) async fn run(context: &CliContext, command: Command) -> Result<()> {
    match command {
        Command::Create(arguments) => create(context, arguments).await,
        Command::Update(arguments) => {
            let settings = &arguments.settings;
            let service = update_spec(
                context,
                &arguments.service,
                settings.labels.clone().labels(),
                |spec| {
                    settings.apply(spec);
                    if !arguments.nat_addresses.is_empty() {
                        spec.nat_addresses.clone_from(&arguments.nat_addresses);
                    }
                    Ok(())
                },
            );
            context.print_object(&service.await?)
        }
        Command::Backend(command) => {
            let service = command.service().clone();
            let service = update_spec(context, &service, None, |spec| command.apply(spec));
            context.print_object(&service.await?)
        }
        Command::Resource(command) => {
            let service = command.service().clone();
            let service = update_spec(context, &service, None, |spec| command.apply(spec));
            context.print_object(&service.await?)
        }
        Command::List { tenant } => context.list(tenant, Client::list_services).await,
        Command::Show { service } => context.show(&service, Client::show_service).await,
        Command::Delete { service, force } => {
            let delete = async |api: &Client, tenant: &Name, name: &Name| {
                api.delete_service(tenant, name, Some(force)).await
            };
            context.delete(Kind::Service, &service, delete).await
        }
    }
}

async fn create(context: &CliContext, arguments: Create) -> Result<()> {
    // A network name without a slash is of the service's tenant; TENANT/NAME must name that tenant.
    let network = match arguments.network.parse::<Reference>() {
        Ok(reference) if reference.tenant == arguments.service.tenant => reference.name,
        Ok(reference) => bail!(
            "network {reference} is of another tenant: name a network of tenant {}",
            arguments.service.tenant
        ),
        Err(_) => arguments.network.parse()?,
    };
    let mut spec = ServiceSpec {
        network,
        resources: vec![Resource {
            name: arguments.resource.unwrap_or_else(default_resource),
            ports: arguments.ports,
            backends: arguments.backends,
        }],
        nat_addresses: arguments.nat_addresses,
        visibility: TenantSet::None,
        auto_approval: TenantSet::None,
        denied: TenantSet::None,
        max_connections_per_tenant: None,
        timeouts: Default::default(),
        no_backend_action: NoBackendAction::default(),
        session_affinity: SessionAffinity::default(),
        preserve_privileged_ports: false,
        unmatched_packet_action: UnmatchedPacketAction::default(),
        connection_limit: None,
        new_connection_rate: None,
        packet_rate: None,
        bit_rate: None,
        health_check: HealthCheck::default(),
    };
    arguments.settings.apply(&mut spec);
    let request = ServiceRequest {
        name: Some(arguments.service.name),
        version: None,
        labels: arguments.settings.labels.labels(),
        spec,
    };
    let tenant = &arguments.service.tenant;
    let service = context.api.create_service(tenant, &request).await?;
    context.print_object(&service)
}

/// Reads a service, edits it and writes it back. Fails if the service was changed in between: the request names the
/// version that was read.
async fn update_spec(
    context: &CliContext,
    service: &Reference,
    labels: Option<Labels>,
    edit: impl FnOnce(&mut ServiceSpec) -> Result<()>,
) -> Result<ServiceView> {
    let Reference { tenant, name } = service;
    let old = context.api.show_service(tenant, name).await?;
    let mut spec = old.spec;
    edit(&mut spec)?;
    let request = ServiceRequest {
        name: None,
        version: Some(old.meta.version.public_value()),
        labels,
        spec,
    };
    context.api.update_service(tenant, name, &request).await
}
