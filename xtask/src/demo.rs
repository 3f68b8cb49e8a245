//! `cargo xtask demo`: a connection request, its approval and traffic, with every command shown.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use xtask::ebpf::find_in_path;

use crate::{
    run::{capture, display_command, is_root, print_step},
    topology::{self, Background, GATEWAY, command_in, files_directory, wait},
};

const TOPOLOGY_DIAGRAM: &str = "
   tenant blue                                                     tenant shop
  +---------------+                                              +----------------+
  | client        |           +---------------------+            | nginx one      |
  | 10.0.0.5      |--- to-blue|                     |            | 10.1.0.10      |
  +---------------+           |   gateway: XDP      |to-shop ----|                |
   tenant green               |   no IP address     |            | nginx two      |
  +---------------+           |                     |            | 10.1.0.11      |
  | client        |--to-green |                     |            +----------------+
  | 10.0.0.5      |           +---------------------+
  +---------------+
   both see the service                                    the service sees consumers
   at 10.0.0.100                                           as 10.1.0.64 to 10.1.0.79
";

const URL: &str = "http://10.0.0.100/";
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs the demo.
///
/// # Errors
/// If a step does not have the described effect.
pub(crate) fn demo(binary: &Path, keep: bool) -> Result<()> {
    if !is_root() {
        bail!(
            "the demo loads a program into the kernel and creates network namespaces: run it as root"
        );
    }
    if topology::exists() {
        bail!("an earlier demo is still running: remove it with `cargo xtask demo --remove`");
    }
    let outcome = topology::build().and_then(|()| run_demo(binary));
    if keep && outcome.is_ok() {
        print_usage_hints(binary);
        return Ok(());
    }
    if let Err(error) = &outcome
        && let Ok(log) = fs::read_to_string(files_directory().join("agent.log"))
    {
        eprintln!("\nThe agent's log:\n{log}\n{error:#}");
    }
    print_step("cleaning up");
    topology::remove()?;
    outcome?;
    println!(
        "\nEvery step succeeded. `cargo xtask demo --keep` keeps the demo running for experiments."
    );
    Ok(())
}

/// Removes a demo that was kept.
pub(crate) fn remove() -> Result<()> {
    topology::remove()?;
    println!("removed");
    Ok(())
}

/// Command line of the gateway. Prints commands as a user would type them.
struct Gateway<'a> {
    binary: &'a Path,
}

impl Gateway<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(self.binary);
        command
            .args(line.split(' '))
            .env("PLGW_SOCKET", files_directory().join("run/plgw.sock"));
        command
    }

    /// Runs a command line; prints it and its output.
    fn run(&self, line: &str) -> Result<String> {
        let mut command = self.command(line);
        println!("\n$ plgw {}", shell_quote(line));
        let (succeeded, text) = capture(&mut command)?;
        print!("{text}");
        if !succeeded {
            bail!("`plgw {line}` failed");
        }
        Ok(text)
    }
}

fn shell_quote(line: &str) -> String {
    let arguments = line.split(' ').map(|word| {
        if word.contains('*') {
            format!("'{word}'")
        } else {
            word.to_owned()
        }
    });
    arguments.collect::<Vec<_>>().join(" ")
}

/// Runs a command on a host; prints it and its output.
fn run_on(host: &str, line: &str) -> Result<(bool, String)> {
    let mut command = command_in(host);
    command.args(line.split(' '));
    println!("\n$ {}", display_command(&command));
    let (succeeded, text) = capture(&mut command)?;
    print!("{text}");
    Ok((succeeded, text))
}

fn curl(host: &str) -> Result<(bool, String)> {
    run_on(host, &format!("curl -sS -m 5 {URL}"))
}

fn run_demo(binary: &Path) -> Result<()> {
    println!("{TOPOLOGY_DIAGRAM}");
    let gateway = Gateway { binary };
    start_servers()?;
    start_agent(binary, &gateway)?;

    print_step("the operator creates three tenants and attaches an interface to each network");
    for tenant in ["blue", "green", "shop"] {
        gateway.run(&format!("tenant create {tenant}"))?;
        gateway.run(&format!(
            "network create {tenant}/net --interface to-{tenant}"
        ))?;
    }

    print_step("the provider creates a service with its web servers as backends");
    gateway.run(
        "service create shop/web --network net --port 80 --backend 10.1.0.10 --backend 10.1.0.11 \
         --nat 10.1.0.64/28 --visibility *",
    )?;
    wait("the backends to become reachable", START_TIMEOUT, || {
        let (_, text) = capture(&mut gateway.command("service list"))?;
        Ok(text.contains("2/2"))
    })?;
    let list = gateway.run("service list")?;
    let alias = list
        .split_whitespace()
        .find(|word| word.ends_with(".privatelink.internal"))
        .context("the service has no alias")?;

    print_step("the consumers create endpoints: blue by the service's alias, green by its name");
    gateway.run(&format!(
        "endpoint create blue/web --network net --address 10.0.0.100 --service {alias} \
         --message for-the-blue-team"
    ))?;
    gateway
        .run("endpoint create green/web --network net --address 10.0.0.100 --service shop/web")?;

    for endpoint in ["blue/web", "green/web"] {
        wait(
            "the address to be found free of conflicts",
            START_TIMEOUT,
            || {
                let mut show = gateway.command(&format!("endpoint show {endpoint} -o json"));
                Ok(capture(&mut show)?.1.contains("in_use"))
            },
        )?;
    }

    print_step("no traffic passes before the provider approves");
    let (succeeded, _) = curl("plg-blue")?;
    if succeeded {
        bail!("a request succeeded without approval");
    }

    print_step("the provider lists the connection requests and approves them");
    let list = gateway.run("connection list shop/web")?;
    if list.matches("Pending").count() != 2 {
        bail!("two connections should be pending");
    }
    gateway.run("connection approve blue/web --reason welcome")?;
    gateway.run("connection approve green/web --reason welcome")?;

    print_step(
        "both consumers reach the service, though both have the address 10.0.0.5; both backends are used",
    );
    let mut seen = std::collections::BTreeSet::new();
    for host in ["plg-blue", "plg-green"] {
        for turn in 0..20 {
            let (succeeded, text) = if turn < 3 {
                curl(host)?
            } else {
                capture(command_in(host).args(["curl", "-sS", "-m", "5", URL]))?
            };
            if !succeeded {
                bail!("a request failed despite the approval: {text}");
            }
            seen.insert(text.trim().to_owned());
        }
    }
    println!(
        "\n(and 17 more requests from each: {})",
        seen.iter().cloned().collect::<Vec<_>>().join(", ")
    );
    if seen.len() != 2 {
        bail!("one backend was not reached: {seen:?}");
    }
    gateway.run("flow list --limit 6")?;

    print_step("the provider rejects the connection during a download");
    let mut download = command_in("plg-blue");
    download.args([
        "curl",
        "-sS",
        "-m",
        "60",
        "-o",
        "/dev/null",
        "http://10.0.0.100/endless",
    ]);
    println!("\n$ {} &", display_command(&download));
    let mut download = Background::start(download.stderr(Stdio::null()))?;
    wait("the download to begin", START_TIMEOUT, || {
        let (_, text) = capture(&mut gateway.command("flow list --endpoint blue/web"))?;
        Ok(text.contains("established"))
    })?;
    gateway.run("connection reject blue/web --reason contract-ended")?;
    // The rejection ends it: the download takes minutes, and curl's timeout is longer than the wait.
    wait("the download to be reset", START_TIMEOUT, || {
        download.has_exited()
    })?;
    println!("\n(the download ended: the gateway sent a reset to both ends)");
    let (succeeded, _) = curl("plg-blue")?;
    if succeeded {
        bail!("a request succeeded after the rejection");
    }
    let (succeeded, _) = curl("plg-green")?;
    if !succeeded {
        bail!("the other consumer lost its connection too");
    }
    gateway.run("endpoint show blue/web")?;
    gateway.run("status")?;
    Ok(())
}

/// Starts two web servers in the provider's network.
fn start_servers() -> Result<()> {
    print_step("starting two web servers in the provider's network");
    for (name, address) in [("one", "10.1.0.10"), ("two", "10.1.0.11")] {
        let mut command = command_in("plg-shop");
        if find_in_path("nginx").is_some() {
            let directory = files_directory().join(name);
            fs::create_dir_all(directory.join("root"))?;
            fs::write(
                directory.join("root/index.html"),
                format!("hello from {name}\n"),
            )?;
            let endless = fs::File::create(directory.join("root/endless"))?;
            // A sparse file: its transfer takes minutes, and it occupies no disk space.
            endless.set_len(200 << 30)?;
            fs::write(
                directory.join("nginx.conf"),
                format!(
                    "daemon off; pid nginx.pid; error_log error.log; user root;
                     events {{}}
                     http {{
                         access_log access.log;
                         client_body_temp_path body; proxy_temp_path proxy;
                         fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                         server {{ listen {address}:80; root root; }}
                     }}"
                ),
            )?;
            command
                .args(["nginx", "-p"])
                .arg(&directory)
                .arg("-c")
                .arg(directory.join("nginx.conf"));
        } else {
            let xtask = std::env::current_exe().context("the path of this program is unknown")?;
            command
                .arg(xtask)
                .args(["serve", &format!("{address}:80"), name]);
        }
        command.stderr(Stdio::null());
        Background::start(&mut command)?;
        wait("a web server", START_TIMEOUT, || {
            let url = format!("http://{address}/");
            Ok(capture(command_in("plg-shop").args(["curl", "-sf", "-m", "1", &url]))?.0)
        })?;
    }
    Ok(())
}

/// Starts the agent on the gateway's host.
fn start_agent(binary: &Path, gateway: &Gateway<'_>) -> Result<()> {
    print_step("starting the agent on the gateway's host");
    let log = fs::File::create(files_directory().join("agent.log"))?;
    // `ip netns exec` mounts a new /sys, which hides the bpf file system.
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{GATEWAY}"))
        .arg(binary)
        .arg("run");
    println!("\n# plgw run &");
    command
        .env("PLGW_STATE_DIR", files_directory().join("state"))
        .env("PLGW_RUN_DIR", files_directory().join("run"))
        .env("PLGW_BPF_DIR", topology::bpf_directory())
        .stderr(log);
    let mut agent = Background::start(&mut command)?;
    wait("the agent", START_TIMEOUT, || {
        if agent.has_exited()? {
            bail!("the agent has exited");
        }
        Ok(capture(&mut gateway.command("status"))?.0)
    })
}

fn print_usage_hints(binary: &Path) {
    println!(
        "
The demo is running. To use it:

  export PLGW_SOCKET={socket}
  {binary} status
  {binary} connection approve blue/web
  ip netns exec plg-blue curl {URL}
  ip netns exec plg-green bash        # a shell on a consumer's host
  tail -f {log}

To remove it:

  cargo xtask demo --remove",
        socket = files_directory().join("run/plgw.sock").display(),
        binary = binary.display(),
        log = files_directory().join("agent.log").display(),
    );
}
