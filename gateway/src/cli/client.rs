//! The agent at the other end of a command, and how to show what it says.

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

/// The agent, and how to show what it says.
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

    /// Says that something is gone.
    pub(super) fn print_deleted(&self, what: &str) -> Result<()> {
        self.print_message(&format!("{what} deleted"))
    }

    /// Says something, to people only.
    pub(super) fn print_message(&self, what: &str) -> Result<()> {
        if self.format == Format::Table {
            print(&format!("{what}\n"))?;
        }
        Ok(())
    }

    /// What there is in one tenant, or in all that the caller sees.
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

    /// Shows one thing: as a table made of it, or whole.
    pub(super) fn show<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> Result<()> {
        print(&render(self.format, value, table)?)
    }
}
