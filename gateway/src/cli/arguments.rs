//! Arguments of the command line.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    cli::{
        commands::{apply, backup, connection, endpoint, event, flow, network, service, tenant},
        output::Format,
    },
    client::Target,
    config::{Config, DEFAULT_SOCKET, Settings},
};

/// Private Link Gateway: offers a provider's service at a private IP address in a consumer's network
#[derive(Debug, Parser)]
#[command(name = "plgw", version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent (as root)
    Run(RunArguments),
    /// Check the agent's configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Detach from all interfaces and remove all flows; traffic through the gateway stops
    Unload(StateDirArguments),
    #[command(flatten)]
    Client(ClientCommand),
    /// Print the API's OpenAPI document
    #[command(hide = true)]
    Openapi,
    /// Print a shell completion script
    Completions {
        /// The shell to complete for
        shell: Shell,
    },
}

/// Commands that are clients of the agent.
#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Manage tenants, the owners of networks, services and endpoints
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Manage networks, the isolated address spaces, and their interfaces
    #[command(subcommand)]
    Network(network::Command),
    /// Manage services, their resources and backends
    #[command(subcommand)]
    Service(Box<service::Command>),
    /// Manage endpoints, the private addresses of services in consumers' networks
    #[command(subcommand)]
    Endpoint(endpoint::Command),
    /// List, approve, reject and remove connections of endpoints to services
    #[command(subcommand)]
    Connection(connection::Command),
    /// List active flows
    #[command(subcommand)]
    Flow(flow::Command),
    /// Apply a manifest: create and update objects from a file, in one transaction
    Apply(apply::ApplyArguments),
    /// Print all objects as a manifest, without secrets
    Export,
    /// Write the whole store to a file, secrets included, while the agent runs
    Backup {
        /// The file to create; it must not exist
        file: PathBuf,
    },
    /// Replace all state with a backup
    Restore {
        #[command(flatten)]
        restore: backup::RestoreArguments,
        #[command(flatten)]
        state_dirs: StateDirArguments,
        /// Events to keep in each ring of the event log [default: 1000]
        #[arg(long, env = "PLGW_EVENT_RETENTION", value_name = "N", help_heading = OFFLINE)]
        event_retention: Option<usize>,
    },
    /// List events: changes to objects, with their authors
    #[command(subcommand)]
    Event(event::Command),
    /// Show gateway status
    Status,
    /// Show the authenticated identity
    Whoami,
}

/// Options that address the agent and select the output format.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// The agent's control socket
    #[arg(long, global = true, env = "PLGW_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub(super) socket: PathBuf,
    /// The gateway's URL, to connect over TLS instead of the socket: https://HOST:PORT
    #[arg(long, global = true, env = "PLGW_SERVER", value_name = "URL", help_heading = REMOTE)]
    pub(super) server: Option<String>,
    /// A file with the bearer token to present
    #[arg(long, global = true, env = "PLGW_TOKEN_FILE", value_name = "FILE", help_heading = REMOTE)]
    token_file: Option<PathBuf>,
    /// Certificate authorities that the server's certificate is verified against, a PEM file [default: the system's]
    #[arg(long, global = true, env = "PLGW_CA", value_name = "FILE", help_heading = REMOTE)]
    ca: Option<PathBuf>,
    /// The client certificate to present, a PEM file
    #[arg(long, global = true, env = "PLGW_CLIENT_CERTIFICATE", value_name = "FILE", requires = "client_key", help_heading = REMOTE)]
    client_certificate: Option<PathBuf>,
    /// The client certificate's private key, a PEM file
    #[arg(long, global = true, env = "PLGW_CLIENT_KEY", value_name = "FILE", requires = "client_certificate", help_heading = REMOTE)]
    client_key: Option<PathBuf>,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(super) output: Format,
}

const REMOTE: &str = "Remote connection";
const OFFLINE: &str = "Agent state, for offline commands";

impl Options {
    /// Returns the target of the API client.
    pub(super) fn target(self) -> Target {
        match self.server {
            None => Target::Socket(self.socket),
            Some(url) => Target::Server {
                url,
                token_file: self.token_file,
                ca: self.ca,
                certificate: self.client_certificate.zip(self.client_key),
            },
        }
    }
}

/// Arguments of `plgw run`.
#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The configuration file; the default one may be absent
    /// [default: /etc/plgw/plgw.toml]
    #[arg(long, env = "PLGW_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) settings: Settings,
}

/// Settings of the agent that locate its state, for commands that run without an agent.
#[derive(Debug, Args)]
#[command(next_help_heading = OFFLINE)]
pub(super) struct StateDirArguments {
    /// The configuration file; the default one may be absent
    /// [default: /etc/plgw/plgw.toml]
    #[arg(long, env = "PLGW_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the store [default: /var/lib/plgw]
    #[arg(long, env = "PLGW_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Directory of the pinned program and maps, on a bpf file system [default: /sys/fs/bpf/plgw]
    #[arg(long, env = "PLGW_BPF_DIR", value_name = "DIR")]
    bpf_dir: Option<PathBuf>,
}

impl StateDirArguments {
    /// Loads the configuration, with these arguments in place of its values.
    pub(super) fn load(self, event_retention: Option<usize>) -> Result<Config> {
        let settings = Settings {
            state_dir: self.state_dir,
            bpf_dir: self.bpf_dir,
            event_retention,
            ..Settings::default()
        };
        Config::load(self.config.as_deref(), settings)
    }
}

/// Subcommands of `plgw config`.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check everything that a start needs, and print the effective settings as TOML
    Check {
        /// Print errors only
        #[arg(long)]
        quiet: bool,
        #[command(flatten)]
        run: RunArguments,
    },
}
