//! Every command with every global flag: the flag has an effect, or is rejected.

use std::path::Path;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use super::*;
use crate::cli::{Cli, run};

/// Returns a value that the argument accepts.
fn value(command: &str, argument: &Arg, folder: &Path) -> String {
    let file = |name: &str, content: &str| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let possible = argument.get_possible_values();
    if let Some(first) = possible.first() {
        return first.get_name().to_owned();
    }
    let names = argument.get_value_names().unwrap_or_default();
    let name = names.first().map_or("", |name| name.as_str());
    match (command, argument.get_id().as_str(), name) {
        ("backup", "file", _) => folder.join("backup").display().to_string(),
        ("apply", "file", _) => file("manifest.yaml", "tenants: [{name: a}]"),
        (_, "file", _) => file("file", "content"),
        (_, _, "TENANT/NAME" | "TENANT/SERVICE" | "TENANT/ENDPOINT" | "SERVICE") => {
            "a/b".to_owned()
        }
        (_, _, "ADDRESS" | "IP") => "10.0.0.1".to_owned(),
        (_, _, "CIDR") => "10.0.0.8/30".to_owned(),
        (_, _, "PORT") => "80".to_owned(),
        (_, _, "ROLE") => "viewer".to_owned(),
        (_, _, "URL") => "https://example.com".to_owned(),
        _ => "x".to_owned(),
    }
}

/// Returns the path and the required arguments of every command without subcommands.
fn commands(folder: &Path) -> Vec<(Vec<String>, Vec<String>)> {
    fn walk(
        command: &Command,
        path: &[String],
        folder: &Path,
        found: &mut Vec<(Vec<String>, Vec<String>)>,
    ) {
        let below = command.get_subcommands().filter(|c| c.get_name() != "help");
        let mut leaf = true;
        for command in below {
            leaf = false;
            let mut path = path.to_vec();
            path.push(command.get_name().to_owned());
            walk(command, &path, folder, found);
        }
        if !leaf {
            return;
        }
        let mut words = Vec::new();
        let name = path.last().map_or("", String::as_str);
        for argument in command.get_arguments() {
            if !argument.is_required_set() || argument.is_global_set() {
                continue;
            }
            if let Some(long) = argument.get_long() {
                words.push(format!("--{long}"));
            }
            if !matches!(argument.get_action(), ArgAction::SetTrue) {
                words.push(value(name, argument, folder));
            }
        }
        found.push((path.to_vec(), words));
    }
    let mut found = Vec::new();
    walk(&Cli::command(), &[], folder, &mut found);
    found
}

/// Runs a command line that must fail; returns the error.
fn failure(words: &[String]) -> String {
    let words = std::iter::once("plgw".to_owned()).chain(words.iter().cloned());
    let matches = match Cli::command().try_get_matches_from(words.clone()) {
        Ok(matches) => matches,
        Err(error) => panic!("{:?}: {error}", words.collect::<Vec<_>>()),
    };
    let refusal = run(&matches).expect_err("no agent runs");
    format!("{refusal:#}")
}

#[test]
fn every_command_uses_or_rejects_each_global_flag() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let all = commands(folder.path());
    assert!(all.len() > 40, "{}", all.len());
    let missing = |name: &str| folder.path().join(name).display().to_string();
    let server = "https://127.0.0.1:9".to_owned();
    let server = || vec!["--server".to_owned(), server.clone()];
    for (path, arguments) in &all {
        let local = LOCAL_COMMANDS.contains(&path[0].as_str());
        for flag in CLIENT_FLAGS {
            let named = format!("--{}", flag.replace('_', "-"));
            let nowhere = missing("nowhere");
            // The text of the error if the command uses the flag.
            let (words, sign) = match flag {
                "socket" => (vec![named.clone(), nowhere.clone()], nowhere),
                "server" => (server(), server()[1].clone()),
                "token_file" | "ca" => {
                    let words = [server(), vec![named.clone(), nowhere.clone()]].concat();
                    (words, nowhere)
                }
                "client_certificate" | "client_key" => {
                    let words = ["--client-certificate", "--client-key"];
                    let words = words
                        .map(|name| vec![name.to_owned(), nowhere.clone()])
                        .concat();
                    ([server(), words].concat(), nowhere)
                }
                // The effect of --output shows only with an agent: this checks that the flag is accepted.
                _ => {
                    let words = ["--output", "json", "--socket", &nowhere].map(str::to_owned);
                    (words.to_vec(), nowhere)
                }
            };
            for before in [true, false] {
                let line = if before {
                    [words.clone(), path.clone(), arguments.clone()].concat()
                } else {
                    [path.clone(), arguments.clone(), words.clone()].concat()
                };
                let refusal = failure(&line);
                if local {
                    let command = format!("`plgw {}` does not connect to the agent", path[0]);
                    assert!(refusal.contains(&command), "{line:?}: {refusal}");
                } else {
                    assert!(refusal.contains(&sign), "{line:?}: {refusal}");
                }
            }
        }
    }
}

#[test]
fn flags_of_another_mode_are_refused() {
    for (line, says) in [
        (
            "restore f --state-dir /x",
            "--state-dir requires --offline: omit it, or use `plgw restore --offline`",
        ),
        ("restore f --bpf-dir /x", "--bpf-dir requires"),
        ("restore f --config /x", "--config requires"),
        (
            "restore f --event-retention 100",
            "--event-retention requires",
        ),
        (
            "--socket /x restore --offline f",
            "`plgw restore --offline` does not connect to the agent, so --socket has no effect",
        ),
        ("restore --offline f -o json", "so --output has no effect"),
        (
            "--token-file /x status",
            "--token-file requires a remote connection",
        ),
        ("--ca /x status", "--ca requires"),
        (
            "--socket /x --server https://h status",
            "exclude each other",
        ),
        (
            "run --socket /x",
            "`plgw run` does not connect to the agent, so --socket has no effect: omit it",
        ),
    ] {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let refusal = failure(&words);
        assert!(refusal.contains(says), "{line}: {refusal}");
    }
    // The parser rejects flags that no mode of the command uses.
    for line in [
        "unload --listen 127.0.0.1:1",
        "unload --run-dir /x",
        "restore --offline f --quota-networks 1",
        "status --client-key /x --server https://h",
        "restore f --yes --dry-run",
        "event list --follow --limit 5",
    ] {
        let words = std::iter::once("plgw").chain(line.split(' '));
        assert!(
            Cli::command().try_get_matches_from(words).is_err(),
            "{line}"
        );
    }
}
