//! Context of the commands that are clients of the agent: the API client and the output format.

use anyhow::Result;
use serde::Serialize;

use crate::{
    cli::{
        object::{ListedObject, ShownObject},
        output::{Format, Table, render},
        terminal::print,
    },
    client::{Client, Target, collect_pages, types::Page},
    model::{Kind, Name, Reference},
};

/// API client and output format of a command.
pub(super) struct CliContext {
    pub(super) api: Client,
    pub(super) format: Format,
}

impl CliContext {
    pub(super) fn new(target: &Target, format: Format) -> Result<Self> {
        Ok(Self {
            api: Client::new(target)?,
            format,
        })
    }

    /// Prints a message if the output is for people; JSON and YAML output holds data only.
    pub(super) fn print_message(&self, message: &str) -> Result<()> {
        if self.format == Format::Table {
            print(&format!("{message}\n"))?;
        }
        Ok(())
    }

    /// Prints a value: as a table made by `table`, or complete, as JSON or YAML.
    pub(super) fn print_value<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> Result<()> {
        print(&render(self.format, value, table)?)
    }

    /// Prints the details of an object.
    pub(super) fn print_object<V: ShownObject>(&self, object: &V) -> Result<()> {
        self.print_value(object, V::details)
    }

    /// Prints objects as a list.
    pub(super) fn print_list<V: ListedObject>(&self, objects: &Vec<V>) -> Result<()> {
        self.print_value(objects, |objects| {
            let rows = objects.iter().flat_map(V::rows);
            Table::Rows(V::HEADER.to_vec(), rows.collect())
        })
    }

    /// Lists the objects of one tenant, or of all tenants that are visible to the caller. `page` requests a page of a
    /// tenant's objects.
    pub(super) async fn list<V: ListedObject>(
        &self,
        tenant: Option<Name>,
        page: impl AsyncFn(&Client, &Name, Option<u64>, Option<&str>) -> Result<Page<V>>,
    ) -> Result<()> {
        let api = &self.api;
        let tenants = match tenant {
            Some(tenant) => vec![tenant],
            None => {
                let tenants =
                    collect_pages(async |limit, after| api.list_tenants(limit, after).await);
                let tenants = tenants.await?.into_iter();
                tenants.map(|tenant| tenant.meta.name).collect()
            }
        };
        let mut objects = Vec::new();
        for tenant in &tenants {
            let pages = collect_pages(async |limit, after| page(api, tenant, limit, after).await);
            objects.extend(pages.await?);
        }
        self.print_list(&objects)
    }

    /// Shows an object, which `get` requests.
    pub(super) async fn show<V: ShownObject>(
        &self,
        object: &Reference,
        get: impl AsyncFn(&Client, &Name, &Name) -> Result<V>,
    ) -> Result<()> {
        let object = get(&self.api, &object.tenant, &object.name).await?;
        self.print_object(&object)
    }

    /// Deletes an object by `delete`.
    pub(super) async fn delete(
        &self,
        kind: Kind,
        object: &Reference,
        delete: impl AsyncFn(&Client, &Name, &Name) -> Result<()>,
    ) -> Result<()> {
        delete(&self.api, &object.tenant, &object.name).await?;
        self.print_message(&format!("{kind} {object} deleted"))
    }
}
