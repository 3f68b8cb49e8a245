//! `cargo xtask bench scale`: control plane benchmark, with few and with many tenants, services and endpoints in one
//! run.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{
    build::workspace,
    reachability_probe::{Host, ReachabilityProbe},
    run::{is_root, print_step, run_silently},
};

/// Number of repetitions of each change.
const CHANGES_PER_MEASUREMENT: usize = 200;

/// Number of objects.
#[derive(Clone, Copy)]
struct WorkloadSize {
    /// Tenants, each with one network and one service; at least two.
    tenants: u32,
    /// Endpoints, distributed evenly over the tenants. A tenant's first endpoint uses the service of the next tenant,
    /// the second one the service of the tenant after that, and so on.
    endpoints: u32,
}

impl WorkloadSize {
    /// Returns the sizes to measure: one endpoint, and ten per tenant with a tenth of the tenants and with all.
    fn all(tenants: u32) -> Vec<Self> {
        let one = Self {
            tenants: 2,
            endpoints: 1,
        };
        let many = [tenants / 10, tenants]
            .into_iter()
            .filter(|tenants| *tenants >= 10);
        let many = many.map(|tenants| Self {
            tenants,
            endpoints: tenants * 10,
        });
        std::iter::once(one).chain(many).collect()
    }
}

/// Measurements for one size. Pairs are the median and the 99th percentile.
struct Costs {
    size: WorkloadSize,
    apply: Duration,
    create: [Duration; 2],
    delete: [Duration; 2],
    approve: [Duration; 2],
    /// Time from the approval's request to the first packet at the provider's host.
    first_packet: [Duration; 2],
    reject: [Duration; 2],
    start: Duration,
    start_in_kernel: Duration,
    memory: u64,
}

/// Measures all sizes, prints a table and writes the figures to a file.
///
/// # Errors
/// If the agent fails or refuses a request.
pub(crate) fn measure_all(binary: &Path, tenants: u32) -> Result<()> {
    if !is_root() {
        bail!("the benchmark starts the agent: run it as root");
    }
    let mut all = Vec::new();
    for size in WorkloadSize::all(tenants) {
        let WorkloadSize { tenants, endpoints } = size;
        print_step(&format!(
            "tenants and services: {tenants}, endpoints: {endpoints}"
        ));
        all.push(measure(binary, size)?);
    }
    print_table(&all);
    let output = workspace()?.join("target/bench");
    fs::create_dir_all(&output)?;
    let figures: Vec<Value> = all.iter().map(Costs::to_json).collect();
    let figures = serde_json::to_string_pretty(&figures)?;
    fs::write(output.join("control-plane.json"), figures)?;
    Ok(())
}

impl Costs {
    /// Returns the measurements as JSON, in milliseconds and bytes.
    fn to_json(&self) -> Value {
        let ms = |time: &Duration| time.as_secs_f64() * 1e3;
        let pair =
            |[middle, high]: &[Duration; 2]| json!({ "p50_ms": ms(middle), "p99_ms": ms(high) });
        json!({
            "tenants": self.size.tenants,
            "endpoints": self.size.endpoints,
            "apply_ms": ms(&self.apply),
            "create": pair(&self.create),
            "approve": pair(&self.approve),
            "first_packet": pair(&self.first_packet),
            "reject": pair(&self.reject),
            "delete": pair(&self.delete),
            "start_ms": ms(&self.start),
            "start_in_kernel_ms": ms(&self.start_in_kernel),
            "memory_bytes": self.memory,
        })
    }
}

struct Agent {
    child: Child,
    directory: PathBuf,
}

impl Agent {
    fn start(binary: &Path, directory: &Path) -> Result<(Self, Duration)> {
        let begin = Instant::now();
        // `ip netns exec` mounts a new /sys, which hides the bpf file system. nsenter executes the agent in its own
        // process, so the child's process id is the agent's.
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{NAMESPACE}"))
            .arg(binary)
            .arg("run")
            .arg("--state-dir")
            .arg(directory.join("state"))
            .arg("--run-dir")
            .arg(directory.join("run"))
            .args(["--bpf-dir", BPF_DIRECTORY, "--log", "error"])
            .args(["--address-probes", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("the agent can't be started")?;
        let mut agent = Self {
            child,
            directory: directory.to_owned(),
        };
        let deadline = begin + Duration::from_secs(120);
        while UnixStream::connect(agent.socket()).is_err() {
            if agent.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("the agent does not accept connections");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok((agent, begin.elapsed()))
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("run/plgw.sock")
    }

    /// Sends a request. Returns the response and the time until it was complete.
    fn request(&self, method: &str, path: &str, body: &Value) -> Result<(Value, Duration)> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let begin = Instant::now();
        let mut stream = UnixStream::connect(self.socket())?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let took = begin.elapsed();
        let (head, rest) = answer
            .split_once("\r\n\r\n")
            .context("the response has no header")?;
        if !head.starts_with("HTTP/1.1 2") {
            bail!("{method} {path}: {answer:.500}");
        }
        // Large responses are chunked, which is not parsed here: callers do not use their content.
        Ok((serde_json::from_str(rest).unwrap_or(Value::Null), took))
    }

    /// Returns the agent's resident memory, in bytes.
    fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        let kilobytes: u64 = kilobytes
            .context("the process status has no VmRSS")?
            .parse()?;
        Ok(kilobytes << 10)
    }

    fn stop(mut self) -> Result<()> {
        run_silently(Command::new("kill").arg(self.child.id().to_string()))?;
        self.child.wait()?;
        Ok(())
    }
}

const NAMESPACE: &str = "plg-scale";
const BPF_DIRECTORY: &str = "/sys/fs/bpf/plg-scale";

/// Host of the first tenant, which is the consumer in the measured changes.
const CONSUMER: Host = Host {
    name: "plg-scale-c",
    interface: "if0",
    addresses: &["10.9.9.5/24"],
};
/// Host with the backends of the second tenant, which is the provider in the measured changes.
const PROVIDER: Host = Host {
    name: "plg-scale-p",
    interface: "if1",
    addresses: &["10.1.0.10/24", "10.1.0.11/24"],
};
/// Address of the endpoint in the measured changes.
const ENDPOINT: &str = "10.9.9.9";
/// UDP port of the services.
const PORT: u16 = 53;

fn measure(binary: &Path, size: WorkloadSize) -> Result<Costs> {
    let directory = std::env::temp_dir().join(format!("plg-scale-{}", std::process::id()));
    let clean = || {
        let _gone = fs::remove_dir_all(&directory);
        let _gone = fs::remove_dir_all(BPF_DIRECTORY);
        let _gone = run_silently(Command::new("ip").args(["netns", "delete", NAMESPACE]));
        CONSUMER.remove();
        PROVIDER.remove();
    };
    clean();
    run_silently(Command::new("ip").args(["netns", "add", NAMESPACE]))?;
    CONSUMER.create(NAMESPACE)?;
    PROVIDER.create(NAMESPACE)?;
    CONSUMER.add_neighbour(ENDPOINT)?;
    let costs = measure_in(binary, size, &directory);
    clean();
    costs
}

fn measure_in(binary: &Path, size: WorkloadSize, directory: &Path) -> Result<Costs> {
    let (agent, _) = Agent::start(binary, directory)?;
    let (_, apply) = agent.request("POST", "/v1/apply", &manifest(size))?;
    let (mut creates, mut deletes) = (Vec::new(), Vec::new());
    let (mut rejects, mut approvals) = (Vec::new(), Vec::new());
    for _ in 0..CHANGES_PER_MEASUREMENT {
        let request = json!({ "name": "one-more", "network": "net", "addresses": [ENDPOINT], "service": "t1/web" });
        let (made, took) = agent.request("POST", "/v1/tenants/t0/endpoints", &request)?;
        creates.push(took);
        let link = &made["status"]["connection"]["link_id"];
        let path = format!("/v1/tenants/t1/services/web/connections/{link}");
        for (decision, times) in [("reject", &mut rejects), ("approve", &mut approvals)] {
            let (_, took) = agent.request("POST", &format!("{path}/{decision}"), &json!({}))?;
            times.push(took);
        }
        let (_, took) =
            agent.request("DELETE", "/v1/tenants/t0/endpoints/one-more", &Value::Null)?;
        deletes.push(took);
    }
    let first_packets = measure_first_packets(&agent)?;
    agent.stop()?;
    // First with all maps in the kernel, as after an upgrade; then with none, as after a reboot.
    let (agent, start) = Agent::start(binary, directory)?;
    let memory = agent.memory()?;
    agent.stop()?;
    fs::remove_dir_all(BPF_DIRECTORY)?;
    let (agent, start_empty) = Agent::start(binary, directory)?;
    agent.stop()?;
    Ok(Costs {
        size,
        apply,
        create: median_and_p99(creates),
        delete: median_and_p99(deletes),
        approve: median_and_p99(approvals),
        first_packet: median_and_p99(first_packets),
        reject: median_and_p99(rejects),
        start: start_empty,
        start_in_kernel: start,
        memory,
    })
}

/// Measures the time from the request that approves a connection to the first packet at the provider's host, while the
/// consumer sends continuously.
fn measure_first_packets(agent: &Agent) -> Result<Vec<Duration>> {
    let request =
        json!({ "name": "seen", "network": "net", "addresses": [ENDPOINT], "service": "t1/web" });
    let (made, _) = agent.request("POST", "/v1/tenants/t0/endpoints", &request)?;
    let link = &made["status"]["connection"]["link_id"];
    let path = format!("/v1/tenants/t1/services/web/connections/{link}");
    let probe = ReachabilityProbe::start(&CONSUMER, &PROVIDER, (ENDPOINT, PORT), PORT)?;
    probe.next_arrival()?;
    let mut times = Vec::new();
    for _ in 0..CHANGES_PER_MEASUREMENT {
        agent.request("POST", &format!("{path}/reject"), &json!({}))?;
        probe.discard_arrivals()?;
        let begin = Instant::now();
        agent.request("POST", &format!("{path}/approve"), &json!({}))?;
        times.push(probe.next_arrival()?.saturating_duration_since(begin));
    }
    probe.stop()?;
    agent.request("DELETE", "/v1/tenants/t0/endpoints/seen", &Value::Null)?;
    Ok(times)
}

/// Returns the median and the 99th percentile.
fn median_and_p99(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    [at(50), at(99)]
}

fn manifest(size: WorkloadSize) -> Value {
    let tenants: Vec<Value> = (0..size.tenants)
        .map(|number| json!({ "name": format!("t{number}") }))
        .collect();
    let networks: Vec<Value> = (0..size.tenants)
        .map(|number| {
            json!({
                "tenant": format!("t{number}"), "name": "net",
                "attachments": [{ "interface": format!("if{number}") }],
            })
        })
        .collect();
    let services: Vec<Value> = (0..size.tenants)
        .map(|number| {
            json!({
                "tenant": format!("t{number}"), "name": "web", "network": "net",
                "resources": [{
                    "ports": [{ "port": 443 }, { "port": PORT, "protocol": "udp" }],
                    "backends": [{ "address": "10.1.0.10" }, { "address": "10.1.0.11" }],
                }],
                "nat_addresses": ["10.1.0.64"], "visibility": ["*"], "auto_approval": ["*"],
            })
        })
        .collect();
    let endpoints: Vec<Value> = (0..size.endpoints)
        .map(|number| {
            let (tenant, round) = (number % size.tenants, number / size.tenants);
            let provider = (tenant + 1 + round) % size.tenants;
            json!({
                "tenant": format!("t{tenant}"), "name": format!("e{round}"), "network": "net",
                "addresses": [format!("10.0.0.{}", round + 1)],
                "service": format!("t{provider}/web"),
            })
        })
        .collect();
    json!({ "tenants": tenants, "networks": networks, "services": services, "endpoints": endpoints })
}

fn print_table(all: &[Costs]) {
    let milliseconds = |time: &Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let cell = |[middle, high]: &[Duration; 2]| {
        format!("{} (p99 {})", milliseconds(middle), milliseconds(high))
    };
    let row = |name: &str, value: &dyn Fn(&Costs) -> String| {
        let cells: Vec<String> = all
            .iter()
            .map(|costs| format!("{:>26}", value(costs)))
            .collect();
        println!("{name:<38}{}", cells.join(""));
    };
    println!();
    row("tenants and services", &|costs| {
        costs.size.tenants.to_string()
    });
    row("endpoints", &|costs| costs.size.endpoints.to_string());
    row("apply of all objects", &|costs| milliseconds(&costs.apply));
    row("create an endpoint, in effect", &|costs| {
        cell(&costs.create)
    });
    row("approve a connection, in effect", &|costs| {
        cell(&costs.approve)
    });
    row("approval to the first packet", &|costs| {
        cell(&costs.first_packet)
    });
    row("reject a connection, in effect", &|costs| {
        cell(&costs.reject)
    });
    row("delete an endpoint, in effect", &|costs| {
        cell(&costs.delete)
    });
    row("start with empty maps", &|costs| milliseconds(&costs.start));
    row("start with full maps", &|costs| {
        milliseconds(&costs.start_in_kernel)
    });
    row("resident memory of the agent", &|costs| {
        format!("{} MiB", costs.memory >> 20)
    });
    row("memory per endpoint", &|costs| {
        // Includes the endpoint's share of a tenant, a network and a service.
        let more = costs.memory.saturating_sub(all[0].memory);
        let endpoints = u64::from(costs.size.endpoints);
        if endpoints > 1 {
            format!("{:.1} KiB", more as f64 / endpoints as f64 / 1024.0)
        } else {
            "-".to_owned()
        }
    });
}
