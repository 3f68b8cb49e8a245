//! `plgw service backend`.

use std::{net::IpAddr, str::FromStr};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use jiff::{Span, Timestamp, tz::TimeZone};

use crate::model::{
    Name, Reference,
    service::{Backend, Resource, ServiceSpec, default_resource},
};

use super::resource::find_resource;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Add a backend, or change the weight of a present one
    Add(Add),
    /// Drain a backend: it gets no new flows, and keeps its open ones
    Drain(Drain),
    /// Give a draining backend new flows again
    Undrain(Target),
    /// Remove a backend and reset its flows
    Remove(Target),
}

/// A backend of a service.
#[derive(Debug, Args)]
pub(in crate::cli) struct Target {
    /// The service
    #[arg(value_name = "TENANT/NAME")]
    service: Reference,
    /// The backend's address
    #[arg(value_name = "ADDRESS")]
    address: IpAddr,
    /// The resource, if not the default one
    #[arg(long, value_name = "NAME")]
    resource: Option<Name>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Add {
    /// The service
    #[arg(value_name = "TENANT/NAME")]
    service: Reference,
    /// The backend: ADDRESS[,weight=N]
    #[arg(value_name = "ADDRESS")]
    backend: Addition,
    /// The resource, if not the default one
    #[arg(long, value_name = "NAME")]
    resource: Option<Name>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Drain {
    #[command(flatten)]
    target: Target,
    /// The time after which the open flows are reset, such as 5m; by default they continue until they end
    #[arg(long, value_name = "TIME")]
    deadline: Option<Span>,
}

/// A backend to add, with the options that were given.
#[derive(Clone, Copy, Debug)]
struct Addition {
    backend: Backend,
    has_weight: bool,
}

impl FromStr for Addition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self {
            backend: text.parse()?,
            has_weight: text.contains(",weight="),
        })
    }
}

impl Command {
    /// Returns the service of the backend.
    pub(super) const fn service(&self) -> &Reference {
        match self {
            Self::Add(add) => &add.service,
            Self::Drain(drain) => &drain.target.service,
            Self::Undrain(target) | Self::Remove(target) => &target.service,
        }
    }

    /// Applies the command to the service's fields.
    pub(super) fn apply(self, spec: &mut ServiceSpec) -> Result<()> {
        match self {
            Self::Add(Add {
                backend, resource, ..
            }) => add(in_resource(spec, resource)?, backend),
            Self::Drain(Drain { target, deadline }) => {
                let deadline = deadline.map(deadline_after).transpose()?;
                let backend = find_backend(spec, target)?;
                (backend.drain, backend.drain_deadline) = (true, deadline);
                Ok(())
            }
            Self::Undrain(target) => {
                let address = target.address;
                let backend = find_backend(spec, target)?;
                if !backend.drain {
                    bail!("backend {address} is not draining");
                }
                (backend.drain, backend.drain_deadline) = (false, None);
                Ok(())
            }
            Self::Remove(target) => {
                let resource = in_resource(spec, target.resource)?;
                let mut backends = resource.backends.iter();
                let index = backends.position(|backend| backend.address == target.address);
                let index = index.with_context(|| no_backend(target.address))?;
                resource.backends.remove(index);
                Ok(())
            }
        }
    }
}

/// Adds a backend. Of a present one, only what is given changes.
fn add(resource: &mut Resource, addition: Addition) -> Result<()> {
    let Addition {
        backend,
        has_weight,
    } = addition;
    let mut backends = resource.backends.iter_mut();
    let Some(existing) = backends.find(|other| other.address == backend.address) else {
        resource.backends.push(backend);
        return Ok(());
    };
    if !has_weight && !backend.drain {
        bail!(
            "the resource has backend {} already, with weight {}: give a weight to change it ({0},weight=N), or use \
             `drain`, `undrain` or `remove`",
            backend.address,
            existing.weight
        );
    }
    if has_weight {
        existing.weight = backend.weight;
    }
    existing.drain |= backend.drain;
    Ok(())
}

fn in_resource(spec: &mut ServiceSpec, name: Option<Name>) -> Result<&mut Resource> {
    find_resource(spec, &name.unwrap_or_else(default_resource))
}

fn find_backend(spec: &mut ServiceSpec, target: Target) -> Result<&mut Backend> {
    let resource = in_resource(spec, target.resource)?;
    let mut backends = resource.backends.iter_mut();
    backends
        .find(|backend| backend.address == target.address)
        .with_context(|| no_backend(target.address))
}

fn no_backend(address: IpAddr) -> String {
    format!("the resource has no backend {address}")
}

/// Returns the time that is the span from now.
fn deadline_after(span: Span) -> Result<Timestamp> {
    let now = TimeZone::UTC.to_datetime(Timestamp::now());
    let end = now.checked_add(span);
    let end = end.context("--deadline is too long: the time can't be represented")?;
    Ok(TimeZone::UTC.to_timestamp(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource() -> Resource {
        Resource {
            name: default_resource(),
            ports: Vec::new(),
            backends: vec!["10.1.0.10,weight=7,drain".parse().unwrap()],
        }
    }

    #[test]
    fn adding_a_present_backend_changes_only_what_is_given() {
        let mut resource = resource();
        let refusal = add(&mut resource, "10.1.0.10".parse().unwrap()).unwrap_err();
        let refusal = refusal.to_string();
        assert!(
            refusal.contains("with weight 7") && refusal.contains("10.1.0.10,weight=N"),
            "{refusal}"
        );
        add(&mut resource, "10.1.0.10,weight=3".parse().unwrap()).unwrap();
        let [backend] = resource.backends[..] else {
            panic!("{resource:?}");
        };
        assert_eq!((backend.weight, backend.drain), (3, true));
        add(&mut resource, "10.1.0.11".parse().unwrap()).unwrap();
        assert_eq!(resource.backends.len(), 2);
        assert_eq!(resource.backends[1].weight, 1);
    }
}
