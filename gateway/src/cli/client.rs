//! Context of the commands that are clients of the agent: the API client and the output format.

use anyhow::Result;
use serde::Serialize;

use crate::{
    cli::{
        output::{Format, Table, render},
        terminal::print,
    },
    client::{self, Target},
    model::Name,
};

/// API client and output format of a command.
pub(super) struct CliContext {
    pub(super) api: client::Client,
    pub(super) format: Format,
}

impl CliContext {
    pub(super) fn new(target: &Target, format: Format) -> Result<Self> {
        Ok(Self {
            api: client::Client::new(target)?,
            format,
        })
    }

    /// Prints that an object was deleted.
    pub(super) fn print_deleted(&self, what: &str) -> Result<()> {
        self.print_message(&format!("{what} deleted"))
    }

    /// Prints a message if the output is for people; JSON and YAML output holds data only.
    pub(super) fn print_message(&self, what: &str) -> Result<()> {
        if self.format == Format::Table {
            print(&format!("{what}\n"))?;
        }
        Ok(())
    }

    /// Lists the objects of one tenant, or of all tenants that are visible to the caller.
    pub(super) async fn list_across_tenants<T>(
        &self,
        only: Option<Name>,
        mut list: impl AsyncFnMut(&client::Client, &Name) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let tenants = match only {
            Some(only) => vec![only],
            None => {
                let tenants = client::collect_pages(async |limit, after| {
                    self.api.list_tenants(limit, after).await
                });
                let tenants = tenants.await?.into_iter();
                tenants.map(|tenant| tenant.meta.name).collect()
            }
        };
        let mut items = Vec::new();
        for tenant in tenants {
            items.extend(list(&self.api, &tenant).await?);
        }
        Ok(items)
    }

    /// Prints a value: as a table made by `table`, or complete, as JSON or YAML.
    pub(super) fn show<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> Result<()> {
        print(&render(self.format, value, table)?)
    }
}
