//! `plgw service resource`.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use crate::model::{
    Name, Reference,
    service::{Backend, Port, Resource, ServiceSpec},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Add a resource to a service
    Add(Add),
    /// Replace a resource's ports; for its backends, use `service backend`
    Update(Update),
    /// Remove a resource that no endpoint uses
    Remove(ResourceRef),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ResourceRef {
    /// The service
    #[arg(value_name = "TENANT/NAME")]
    pub(super) service: Reference,
    /// The resource's name
    #[arg(value_name = "RESOURCE")]
    name: Name,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Add {
    #[command(flatten)]
    pub(super) target: ResourceRef,
    /// A port to offer: PORT[/udp][:BACKEND_PORT], or * for every port; repeatable
    #[arg(long = "port", value_name = "PORT", required = true)]
    ports: Vec<Port>,
    /// A backend: ADDRESS[,weight=N]; repeatable
    #[arg(long = "backend", value_name = "ADDRESS")]
    backends: Vec<Backend>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Update {
    #[command(flatten)]
    pub(super) target: ResourceRef,
    /// A port to offer, replacing the present ones: PORT[/udp][:BACKEND_PORT], or *; repeatable
    #[arg(long = "port", value_name = "PORT", required = true)]
    ports: Vec<Port>,
}

impl Command {
    /// Returns the service of the resource.
    pub(super) const fn service(&self) -> &Reference {
        match self {
            Self::Add(add) => &add.target.service,
            Self::Update(update) => &update.target.service,
            Self::Remove(which) => &which.service,
        }
    }

    /// Applies the command to the service's fields.
    pub(super) fn apply(self, spec: &mut ServiceSpec) -> Result<()> {
        match self {
            Self::Add(add) => {
                let name = add.target.name;
                if spec.resource(&name).is_some() {
                    bail!(
                        "the service already has a resource {name}: change it with `service resource update`"
                    );
                }
                spec.resources.push(Resource {
                    name,
                    ports: add.ports,
                    backends: add.backends,
                });
            }
            Self::Update(update) => {
                find_resource(spec, &update.target.name)?.ports = update.ports;
            }
            Self::Remove(which) => {
                find_resource(spec, &which.name)?;
                spec.resources
                    .retain(|resource| resource.name != which.name);
            }
        }
        Ok(())
    }
}

/// Returns the service's resource with the name.
pub(super) fn find_resource<'a>(
    spec: &'a mut ServiceSpec,
    name: &Name,
) -> Result<&'a mut Resource> {
    let mut resources = spec.resources.iter_mut();
    resources
        .find(|resource| resource.name == *name)
        .with_context(|| format!("the service has no resource {name}"))
}
