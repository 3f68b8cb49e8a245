//! Command line. `plgw run` is the agent; the other commands are clients of its API, or work on its files.

mod client;
mod commands;
mod flags;
mod output;
mod terminal;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

pub use output::Format;

use crate::{
    agent, api,
    auth::authorities::ClientAuthorities,
    bpf::loader,
    cli::{
        client::CliContext,
        commands::{
            apply, backup, connection, endpoint, event, flow, network, service, status, tenant,
        },
    },
    client::Target,
    config::{Config, DEFAULT_SOCKET, Settings},
    files, logging,
    model::identity::Authority,
};

/// Private Link Gateway: offers a provider's service at a private IP address in a consumer's network
#[derive(Debug, Parser)]
#[command(name = "plgw", version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent (as root)
    Run(RunArguments),
    /// Check the agent's configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Detach from all interfaces and remove all flows; traffic through the gateway stops
    Unload(StateDirArguments),
    /// Manage tenants, the owners of networks, services and endpoints
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Manage networks, the isolated address spaces, and their interfaces
    #[command(subcommand)]
    Network(network::Command),
    /// Manage services, their resources and backends
    #[command(subcommand)]
    Service(service::Command),
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
    /// Print the API's OpenAPI document
    #[command(hide = true)]
    Openapi,
    /// Print a shell completion script
    Completions {
        /// The shell to complete for
        shell: Shell,
    },
}

/// Options that address the agent and select the output format.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The agent's control socket
    #[arg(long, global = true, env = "PLGW_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// The gateway's URL, to connect over TLS instead of the socket: https://HOST:PORT
    #[arg(long, global = true, env = "PLGW_SERVER", value_name = "URL", help_heading = REMOTE)]
    server: Option<String>,
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
    output: Format,
}

const REMOTE: &str = "Remote connection";
const OFFLINE: &str = "Agent state, for offline commands";

impl Options {
    fn target(self) -> Target {
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

#[derive(Debug, Args)]
struct RunArguments {
    /// The configuration file; the default one may be absent
    /// [default: /etc/plgw/plgw.toml]
    #[arg(long, env = "PLGW_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// Settings of the agent that locate its state, for commands that run without an agent.
#[derive(Debug, Args)]
#[command(next_help_heading = OFFLINE)]
struct StateDirArguments {
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
    fn load(self, event_retention: Option<usize>) -> Result<Config> {
        let settings = Settings {
            state_dir: self.state_dir,
            bpf_dir: self.bpf_dir,
            event_retention,
            ..Settings::default()
        };
        Config::load(self.config.as_deref(), settings)
    }
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report errors in the configuration, or print the effective settings
    Check {
        /// Print errors only
        #[arg(long)]
        quiet: bool,
        #[command(flatten)]
        run: RunArguments,
    },
}

/// Parses the command line and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    // HTTP clients need a process-wide TLS provider. Installation fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::notice(&format!("plgw: {error:#}"));
            ExitCode::from(1)
        }
    }
}

fn run(matches: &ArgMatches) -> Result<()> {
    flags::check(matches)?;
    let mut cli = Cli::from_arg_matches(matches)?;
    if flags::is_given(matches, "socket") {
        // A flag takes precedence over PLGW_SERVER in the environment.
        cli.options.server = None;
    }
    dispatch(cli)
}

fn dispatch(Cli { options, command }: Cli) -> Result<()> {
    match command {
        Command::Run(arguments) => {
            let config = Config::load(arguments.config.as_deref(), arguments.settings)?;
            logging::init(config.log);
            files::restrict_umask();
            let prepared = agent::prepare(&config)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(4)
                .enable_all()
                .build()?;
            let result = runtime.block_on(agent::run(config, prepared));
            // The process exits now: waiting for the remaining tasks would only delay that.
            std::mem::forget(runtime);
            result
        }
        Command::Config(ConfigCommand::Check { quiet, run }) => {
            let config = Config::load(run.config.as_deref(), run.settings)?;
            let authorities = config.client_authorities()?;
            if !quiet {
                terminal::print(&format!("{config:#?}\n"))?;
                for anchor in authorities.iter().flat_map(ClientAuthorities::anchors) {
                    let Authority {
                        subject,
                        key_sha256,
                    } = anchor.authority();
                    terminal::print(&format!(
                        "client authority: subject={subject:?} key_sha256={key_sha256}\n"
                    ))?;
                }
            }
            Ok(())
        }
        Command::Unload(arguments) => {
            let config = arguments.load(None)?;
            files::restrict_umask();
            loader::unload(&config.state_dir, &config.bpf_dir)
        }
        Command::Openapi => terminal::print(&(api::document().to_pretty_json()? + "\n")),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "plgw", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(())
        }
        Command::Tenant(command) => {
            run_with_client(options, async |client| tenant::run(client, command).await)
        }
        Command::Network(command) => {
            run_with_client(options, async |client| network::run(client, command).await)
        }
        Command::Service(command) => {
            run_with_client(options, async |client| service::run(client, command).await)
        }
        Command::Endpoint(command) => {
            run_with_client(options, async |client| endpoint::run(client, command).await)
        }
        Command::Connection(command) => run_with_client(options, async |client| {
            connection::run(client, command).await
        }),
        Command::Flow(command) => {
            run_with_client(options, async |client| flow::run(client, command).await)
        }
        Command::Apply(arguments) => run_with_client(options, async |client| {
            apply::apply(client, arguments).await
        }),
        Command::Export => run_with_client(options, async |client| apply::export(client).await),
        Command::Backup { file } => {
            run_with_client(options, async |client| backup::backup(client, file).await)
        }
        Command::Restore {
            restore,
            state_dirs: kept,
            event_retention: events_kept,
        } if restore.offline => backup::restore_offline(&kept.load(events_kept)?, &restore),
        Command::Restore { restore, .. } => run_with_client(options, async |client| {
            backup::restore(client, &restore).await
        }),
        Command::Event(command) => {
            run_with_client(options, async |client| event::run(client, command).await)
        }
        Command::Whoami => run_with_client(options, async |client| status::whoami(client).await),
        Command::Status => run_with_client(options, async |client| status::run(client).await),
    }
}

/// Runs a command that is a client of the agent.
fn run_with_client(
    options: Options,
    command: impl AsyncFnOnce(&CliContext) -> Result<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = CliContext::new(&options.clone().target(), options.output)?;
    runtime.block_on(command(&client))
}
