//! `plgw service resource`.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use crate::model::{
    Name, Reference,
    service::{Backend, Port, Resource, ServiceSpec},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Offer one more; endpoints that ask for it are bound to it alone
    Add(Add),
    /// Give it other ports; backends have a command of their own
    Update(Update),
    /// Take it away, when no endpoint is bound to it any more
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
    /// A port to offer: PORT[/udp][:BACKEND_PORT], or * for every port; can be given several times
    #[arg(long = "port", value_name = "PORT", required = true)]
    ports: Vec<Port>,
    /// A server: ADDRESS[,weight=N]; can be given several times
    #[arg(long = "backend", value_name = "ADDRESS")]
    backends: Vec<Backend>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Update {
    #[command(flatten)]
    pub(super) target: ResourceRef,
    /// A port, in place of those it offers: PORT[/udp][:BACKEND_PORT], or *; can be given several times
    #[arg(long = "port", value_name = "PORT", required = true)]
    ports: Vec<Port>,
}

impl Command {
    /// The service that it is about.
    pub(super) const fn service(&self) -> &Reference {
        match self {
            Self::Add(add) => &add.target.service,
            Self::Update(update) => &update.target.service,
            Self::Remove(which) => &which.service,
        }
    }

    /// Does it to the service's fields.
    pub(super) fn apply(self, spec: &mut ServiceSpec) -> Result<()> {
        match self {
            Self::Add(add) => {
                let name = add.target.name;
                if spec.resource(&name).is_some() {
                    bail!("the service has a resource {name} already");
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

/// The service's resource of the name.
pub(super) fn find_resource<'a>(
    spec: &'a mut ServiceSpec,
    name: &Name,
) -> Result<&'a mut Resource> {
    let mut resources = spec.resources.iter_mut();
    resources
        .find(|resource| resource.name == *name)
        .with_context(|| format!("the service has no resource {name}"))
}
