//! Topology of the demo: network namespaces as hosts, connected by veth pairs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::run::{capture, run_silently};

/// Namespace of the gateway.
pub(crate) const GATEWAY: &str = "plg-gateway";
/// Namespaces of the two consumers and the provider.
pub(crate) const HOSTS: [&str; 3] = ["plg-blue", "plg-green", "plg-shop"];

/// Returns the directory of the demo's files.
pub(crate) fn files_directory() -> PathBuf {
    std::env::temp_dir().join("plg-demo")
}

/// Returns the directory in which the demo's agent pins its program.
pub(crate) fn bpf_directory() -> PathBuf {
    PathBuf::from("/sys/fs/bpf/plg-demo")
}

/// Returns a command that runs on a host.
pub(crate) fn command_in(host: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host]);
    command
}

fn ip(arguments: &str) -> Result<()> {
    run_silently(Command::new("ip").args(arguments.split(' '))).map(drop)
}

/// Returns true if an earlier demo has not been removed.
pub(crate) fn exists() -> bool {
    [GATEWAY]
        .iter()
        .chain(&HOSTS)
        .any(|host| Path::new("/run/netns").join(host).exists())
}

/// Creates the hosts and the veth pairs.
pub(crate) fn build() -> Result<()> {
    fs::create_dir_all(files_directory()).context("the demo's directory can't be created")?;
    for host in [GATEWAY].iter().chain(&HOSTS) {
        ip(&format!("netns add {host}"))?;
        ip(&format!("-n {host} link set dev lo up"))?;
    }
    for (host, interface, addresses) in [
        ("plg-blue", "to-blue", &["10.0.0.5/24"][..]),
        ("plg-green", "to-green", &["10.0.0.5/24"]),
        ("plg-shop", "to-shop", &["10.1.0.10/24", "10.1.0.11/24"]),
    ] {
        ip(&format!(
            "link add name {interface} netns {GATEWAY} type veth peer name eth0 netns {host}"
        ))?;
        ip(&format!("-n {GATEWAY} link set dev {interface} up"))?;
        ip(&format!("-n {host} link set dev eth0 up"))?;
        for address in addresses {
            ip(&format!("-n {host} address add {address} dev eth0"))?;
        }
        // A veth drops redirected frames unless its far end runs NAPI.
        run_silently(command_in(host).args(["ethtool", "-K", "eth0", "gro", "on"]))?;
    }
    Ok(())
}

/// Kills the processes on the hosts and removes the hosts.
pub(crate) fn remove() -> Result<()> {
    for host in HOSTS.iter().chain([&GATEWAY]) {
        if !Path::new("/run/netns").join(host).exists() {
            continue;
        }
        let (_, ids) = capture(Command::new("ip").args(["netns", "pids", host]))?;
        for id in ids
            .split_whitespace()
            .filter(|id| id.parse::<u32>().is_ok())
        {
            // Fails for a process that has just ended.
            let _ended = capture(Command::new("kill").args(["-9", id]))?;
        }
        ip(&format!("netns delete {host}"))?;
    }
    for directory in [bpf_directory(), files_directory()] {
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("{} can't be removed", directory.display()))?;
        }
    }
    Ok(())
}

/// Program in the background.
pub(crate) struct Background(Child);

impl Background {
    /// Starts a program, which runs until the hosts are removed.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        child
            .map(Self)
            .with_context(|| format!("{command:?} can't be started"))
    }

    /// Returns true if the program has ended.
    pub(crate) fn has_exited(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }
}

/// Waits until a condition is true.
pub(crate) fn wait(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > limit {
            bail!("waited {limit:?} for {what}");
        }
        thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}
