//! Command line. `plgw run` is the agent; the other commands are clients of its API, or work on its files.

mod arguments;
mod commands;
mod context;
mod flags;
mod object;
mod output;
mod terminal;

use std::{io::Write as _, process::ExitCode};

use anyhow::{Result, bail};
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

pub use arguments::Cli;
pub use output::Format;

use crate::{
    api,
    auth::authorities::ClientAuthorities,
    bpf::loader,
    cli::{
        arguments::{ClientCommand, Command, ConfigCommand, Options, RunArguments},
        commands::{
            apply, backup, connection, endpoint, event, flow, network, service, status, tenant,
        },
        context::CliContext,
    },
    config::{Config, Settings},
    daemon::{
        self,
        check::{Findings, check},
    },
    files, former_paths, logging,
    model::identity::Authority,
};

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
        Command::Run(arguments) => run_agent(arguments),
        Command::Config(ConfigCommand::Check { quiet, run }) => check_config(run, quiet),
        Command::Unload(arguments) => {
            let config = arguments.load(None)?;
            files::restrict_umask();
            former_paths::check(&config.state_dir, &config.bpf_dir)?;
            loader::unload(&config.state_dir, &config.bpf_dir)
        }
        Command::Openapi => terminal::print(&(api::document().to_pretty_json()? + "\n")),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "plgw", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(())
        }
        Command::Client(ClientCommand::Restore {
            restore,
            state_dirs,
            event_retention,
        }) if restore.offline => {
            backup::restore_offline(&state_dirs.load(event_retention)?, &restore)
        }
        Command::Client(command) => run_client(options, command),
    }
}

fn run_agent(arguments: RunArguments) -> Result<()> {
    let config = Config::load(arguments.config.as_deref(), arguments.settings)?;
    logging::init(config.log);
    files::restrict_umask();
    let prepared = daemon::prepare(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()?;
    let result = runtime.block_on(daemon::run(config, prepared));
    // The process exits now: waiting for the remaining tasks would only delay that.
    std::mem::forget(runtime);
    result
}

/// Checks that the agent can start with the configuration, and prints the effective configuration as TOML, unless
/// `quiet`.
///
/// # Errors
/// If the configuration is invalid, or a start with it would fail.
fn check_config(arguments: RunArguments, quiet: bool) -> Result<()> {
    let config = Config::load(arguments.config.as_deref(), arguments.settings)?;
    let Findings { problems, warnings } = check(&config);
    if !quiet {
        terminal::print(&render_config(&config)?)?;
    }
    for warning in warnings {
        terminal::notice(&format!("plgw: warning: {warning}"));
    }
    match problems.as_slice() {
        [] => Ok(()),
        [only] => bail!("{only}"),
        several => {
            for problem in several {
                terminal::notice(&format!("plgw: {problem}"));
            }
            bail!("the agent would not start, for {} reasons", several.len())
        }
    }
}

/// Formats the effective configuration as a file with the same effect. Comments name the keys without a value, and the
/// authorities whose client certificates are accepted.
fn render_config(config: &Config) -> Result<String> {
    let mut text = toml::to_string(&config.to_settings())?;
    let is_set = |key: &str| {
        let mut lines = text.lines();
        lines.any(|line| line.split(' ').next() == Some(key))
    };
    let unset: Vec<&&str> = Settings::KEYS.iter().filter(|key| !is_set(key)).collect();
    let unset: String = unset
        .iter()
        .map(|key| format!("# {key} is not set\n"))
        .collect();
    text.push_str(&unset);
    // What is wrong with them is a problem that the check has found already.
    let authorities = config.client_authorities().ok().flatten();
    for anchor in authorities.iter().flat_map(ClientAuthorities::anchors) {
        let Authority {
            subject,
            key_sha256,
        } = anchor.authority();
        text.push_str(&format!(
            "# client authority: subject={subject:?} key_sha256={key_sha256}\n"
        ));
    }
    Ok(text)
}

/// Runs a command that is a client of the agent.
fn run_client(options: Options, command: ClientCommand) -> Result<()> {
    let format = options.output;
    let context = CliContext::new(&options.target(), format)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run_with_context(&context, command))
}

async fn run_with_context(context: &CliContext, command: ClientCommand) -> Result<()> {
    match command {
        ClientCommand::Tenant(command) => tenant::run(context, command).await,
        ClientCommand::Network(command) => network::run(context, command).await,
        ClientCommand::Service(command) => service::run(context, *command).await,
        ClientCommand::Endpoint(command) => endpoint::run(context, command).await,
        ClientCommand::Connection(command) => connection::run(context, command).await,
        ClientCommand::Flow(command) => flow::run(context, command).await,
        ClientCommand::Apply(arguments) => apply::apply(context, arguments).await,
        ClientCommand::Export => apply::export(context).await,
        ClientCommand::Backup { file } => backup::backup(context, file).await,
        ClientCommand::Restore { restore, .. } => backup::restore(context, &restore).await,
        ClientCommand::Event(command) => event::run(context, command).await,
        ClientCommand::Status => status::run(context).await,
        ClientCommand::Whoami => status::whoami(context).await,
    }
}
