//! `plgw event`.

use anyhow::Result;
use clap::Subcommand;

use crate::{
    cli::{
        context::CliContext,
        object::ListedObject,
        output::{Format, yaml},
        terminal::print,
    },
    client::Query,
    model::{
        Kind,
        event::{Action, Event},
        event_id::EventId,
        text::escaped,
    },
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// List events, oldest first
    List {
        /// Print events as they occur, until interrupted
        #[arg(long)]
        follow: bool,
        /// List events after the one with this id only; -o json shows ids
        #[arg(long, value_name = "ID")]
        after: Option<EventId>,
        /// List events about this kind of object only
        #[arg(long, value_name = "KIND", value_parser = parse_enum::<Kind>)]
        kind: Option<Kind>,
        /// List events with this action only: requested, approved, rejected, ...
        #[arg(long, value_name = "ACTION", value_parser = parse_enum::<Action>)]
        action: Option<Action>,
        /// Maximum number of events
        #[arg(
            long,
            default_value_t = 100,
            value_name = "N",
            conflicts_with = "follow"
        )]
        limit: u64,
    },
}

/// Parses a variant's name as serde has it; the error lists all names.
fn parse_enum<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

pub(in crate::cli) async fn run(context: &CliContext, command: Command) -> Result<()> {
    let Command::List {
        follow,
        after,
        kind,
        action,
        limit,
    } = command;
    if follow {
        let query = Query::default()
            .with("after", after)
            .with("kind", kind)
            .with("action", action);
        return context
            .api
            .follow_events(&query, |event| match context.format {
                Format::Table => {
                    print(&format!("{}\n", escaped(row(&event).join("  ").trim_end())))
                }
                Format::Json => print(&format!("{}\n", serde_json::to_string(&event)?)),
                Format::Yaml => print(&format!("---\n{}", yaml(&event)?)),
            })
            .await;
    }
    let after = after.map(|after| after.to_string());
    let page = context
        .api
        .list_events(
            after.as_deref(),
            Some(limit),
            kind.as_ref(),
            action.as_ref(),
            None,
        )
        .await?;
    context.print_list(&page.items)
}

impl ListedObject for Event {
    const HEADER: &'static [&'static str] = &["AT", "ACTION", "OBJECT", "BY", "ABOUT"];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![row(self)]
    }
}

fn row(event: &Event) -> Vec<String> {
    let mut about = Vec::new();
    if let Some(service) = &event.service {
        about.push(format!("to {service}"));
    }
    if !event.fields.is_empty() {
        about.push(event.fields.join(", "));
    }
    if !event.message.is_empty() {
        about.push(format!("{:?}", event.message));
    }
    vec![
        event.at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        event.action.to_string(),
        format!("{} {}", event.kind, event.object),
        event.actor.clone(),
        about.join(" "),
    ]
}
