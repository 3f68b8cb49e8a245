//! `plgw service`.

mod arguments;
mod resource;
mod table;

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use arguments::{BackendCommand, Create, Update};
use table::{connections, details};

use crate::{
    api::view::ServiceView,
    cli::{client::CliContext, output::Table},
    client::collect_pages,
    model::{
        Name, Reference,
        record::Labels,
        service::{
            Backend, HealthCheck, NoBackendAction, Resource, ServiceRequest, ServiceSpec,
            SessionAffinity, TenantSet, UnmatchedPacketAction, default_resource,
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
    Backend(BackendCommand),
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

pub(in crate::cli) async fn run(client: &CliContext, command: Command) -> Result<()> {
    match command {
        Command::Create(arguments) => create(client, arguments).await,
        Command::Update(arguments) => {
            let settings = &arguments.settings;
            let service = update_spec(
                client,
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
            client.show(&service.await?, details)
        }
        Command::Backend(command) => {
            let (arguments, act): (_, fn(&mut Resource, Backend) -> Result<()>) = match command {
                BackendCommand::Add(arguments) => (arguments, add),
                BackendCommand::Drain(arguments) => (arguments, drain),
                BackendCommand::Remove(arguments) => (arguments, remove),
            };
            let name = arguments.resource.unwrap_or_else(default_resource);
            let service = update_spec(client, &arguments.service, None, |spec| {
                act(resource::find_resource(spec, &name)?, arguments.backend)
            });
            client.show(&service.await?, details)
        }
        Command::Resource(command) => {
            let service = command.service().clone();
            let service = update_spec(client, &service, None, |spec| command.apply(spec));
            client.show(&service.await?, details)
        }
        Command::List { tenant } => {
            let services = client
                .list_across_tenants(tenant, async |api, tenant| {
                    collect_pages(async |limit, after| {
                        api.list_services(tenant, limit, after).await
                    })
                    .await
                })
                .await?;
            client.show(&services, |services| {
                let rows = services.iter().map(|service| {
                    let backends = &service.status.backends;
                    let reachable = backends.iter().filter(|backend| backend.reachable).count();
                    vec![
                        service.reference(),
                        service.spec.network.to_string(),
                        format!("{reachable}/{}", backends.len()),
                        connections(service),
                        service.status.alias.clone(),
                    ]
                });
                Table::Rows(
                    vec!["SERVICE", "NETWORK", "BACKENDS", "CONNECTIONS", "ALIAS"],
                    rows.collect(),
                )
            })
        }
        Command::Show { service } => {
            let service = client
                .api
                .show_service(&service.tenant, &service.name)
                .await?;
            client.show(&service, details)
        }
        Command::Delete { service, force } => {
            let Reference { tenant, name } = &service;
            client.api.delete_service(tenant, name, Some(force)).await?;
            client.print_deleted(&format!("service {service}"))
        }
    }
}

async fn create(client: &CliContext, arguments: Create) -> Result<()> {
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
    let service = client.api.create_service(tenant, &request).await?;
    client.show(&service, details)
}

/// Reads a service, edits it and writes it back. Fails if the service was changed in between: the request names the
/// version that was read.
async fn update_spec(
    client: &CliContext,
    service: &Reference,
    labels: Option<Labels>,
    edit: impl FnOnce(&mut ServiceSpec) -> Result<()>,
) -> Result<ServiceView> {
    let Reference { tenant, name } = service;
    let old = client.api.show_service(tenant, name).await?;
    let mut spec = old.spec;
    edit(&mut spec)?;
    let request = ServiceRequest {
        name: None,
        version: Some(old.meta.version.public_value()),
        labels,
        spec,
    };
    client.api.update_service(tenant, name, &request).await
}

fn find_backend(resource: &mut Resource, address: IpAddr) -> Option<&mut Backend> {
    resource
        .backends
        .iter_mut()
        .find(|backend| backend.address == address)
}

fn add(resource: &mut Resource, backend: Backend) -> Result<()> {
    match find_backend(resource, backend.address) {
        Some(existing) => *existing = backend,
        None => resource.backends.push(backend),
    }
    Ok(())
}

fn drain(resource: &mut Resource, backend: Backend) -> Result<()> {
    let existing = find_backend(resource, backend.address)
        .with_context(|| format!("the resource has no backend {}", backend.address))?;
    existing.drain = true;
    Ok(())
}

fn remove(resource: &mut Resource, backend: Backend) -> Result<()> {
    let old_len = resource.backends.len();
    resource
        .backends
        .retain(|other| other.address != backend.address);
    if resource.backends.len() == old_len {
        bail!("the resource has no backend {}", backend.address);
    }
    Ok(())
}
