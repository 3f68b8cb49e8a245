//! The systemd unit: the agent does all of its work inside the unit's sandbox. The test starts its own systemd, as the
//! first process of a PID namespace.

use std::{fs, path::Path, process::Command};

use tests::{
    net::{
        process::{BackgroundProcess, succeed},
        wait,
    },
    services::agent::binary,
};

/// Targets that the unit depends on. They are empty, and systemd searches no other directory, so that it starts
/// nothing but the unit.
const TARGETS: [&str; 7] = [
    "basic",
    "final",
    "multi-user",
    "network-pre",
    "shutdown",
    "sysinit",
    "umount",
];

/// Start script of systemd. Mounts of its own hide the directories of the machine that systemd or the agent write to.
const BEGIN: &str = "
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/etc /run/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
mount -t tmpfs tmpfs /var/lib
mount -t bpf bpf /sys/fs/bpf
touch /run/program
mount --bind \"$2\" /run/program
ip link set dev lo up
export container=test SYSTEMD_UNIT_PATH=\"$1\"
exec /lib/systemd/systemd --system --unit=multi-user.target --show-status=false --crash-shell=no
";

/// A running systemd that manages the unit.
struct Systemd {
    outer: BackgroundProcess,
    _units: tempfile::TempDir,
}

/// Returns true if systemd can run here. It needs control groups.
fn is_available() -> bool {
    let groups = Path::new("/sys/fs/cgroup");
    groups.join("cgroup.controllers").exists() || groups.join("systemd").exists()
}

impl Systemd {
    /// Starts systemd with the unit, and waits until it accepts commands.
    fn start() -> Self {
        let units = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = units.path().join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        for target in TARGETS {
            write(
                &format!("{target}.target"),
                "[Unit]\nDefaultDependencies=no\n",
            );
        }
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/plgw.service");
        let unit = fs::read_to_string(unit).expect("the unit");
        // The build directory may be hidden by the unit's sandbox (ProtectHome, PrivateTmp), so the program is mounted
        // on a path that is visible.
        let unit = unit.replace("/usr/bin/plgw", "/run/program");
        write("plgw.service", &unit);
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup"])
            .args(["--fork", "--mount-proc", "--kill-child"])
            .args(["sh", "-e", "-c", BEGIN, "sh"])
            .arg(units.path())
            .arg(binary());
        let outer = BackgroundProcess::start(&mut command).expect("systemd");
        let systemd = Self {
            outer,
            _units: units,
        };
        wait::until_true("systemd to run", || {
            let mut query = systemd.command("systemctl");
            let answer = query
                .arg("is-system-running")
                .output()
                .expect("a command that runs");
            ["running", "degraded", "starting"]
                .contains(&String::from_utf8_lossy(&answer.stdout).trim())
        });
        systemd
    }

    /// Returns the process id of systemd: the only child of `unshare`.
    fn init_pid(&self) -> Option<u32> {
        let outer = self.outer.pid();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// Returns a command that runs in the namespaces of systemd.
    fn command(&self, program: &str) -> Command {
        let first = self
            .init_pid()
            .map_or_else(String::new, |id| id.to_string());
        let mut command = Command::new("nsenter");
        command.args(["-a", "-t", &first, program]);
        command
    }

    /// Runs systemctl and returns its output.
    fn systemctl(&self, arguments: &[&str]) -> String {
        succeed(self.command("systemctl").args(arguments))
    }

    /// Returns a property of the unit.
    fn property(&self, name: &str) -> String {
        let property = format!("--property={name}");
        let shown = self.systemctl(&["show", "plgw.service", &property, "--value"]);
        shown.trim().to_owned()
    }

    /// Runs a command line of the gateway and returns its output.
    fn cli(&self, line: &str) -> String {
        let mut command = self.command(&binary().display().to_string());
        succeed(command.args(line.split_whitespace()))
    }

    /// Waits until the agent answers.
    fn wait_until_ready(&self) {
        wait::until_true("the agent to answer", || {
            let mut status = self.command(&binary().display().to_string());
            status
                .arg("status")
                .output()
                .is_ok_and(|done| done.status.success())
        });
    }
}

#[test]
fn agent_works_inside_the_systemd_sandbox() {
    if !is_available() {
        eprintln!("NOT RUN: this machine has no control groups, so no systemd can run the unit");
        return;
    }
    let systemd = Systemd::start();
    for line in [
        "ip link add name c type veth peer name c-far",
        "ip link set dev c up",
        "ip link set dev c-far up",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        succeed(systemd.command(words[0]).args(&words[1..]));
    }
    systemd.systemctl(&["start", "plgw.service"]);
    systemd.wait_until_ready();
    systemd.cli("tenant create a");
    systemd.cli("network create a/net --interface c");
    systemd.cli(
        "service create a/web --network net --port 443 --backend 10.1.0.10 --nat 10.1.0.64 \
         --visibility * --auto-approval *",
    );
    systemd.cli("endpoint create a/web --network net --address 10.0.0.100 --service a/web");
    systemd.cli("tenant token create a/t --role viewer");
    assert!(systemd.cli("network show a/net").contains("native"));
    systemd.cli("backup /var/lib/backup");

    // Reload, restart and kill the agent: systemd starts it again after a kill.
    systemd.systemctl(&["reload", "plgw.service"]);
    systemd.systemctl(&["restart", "plgw.service"]);
    systemd.wait_until_ready();
    systemd.systemctl(&["kill", "--signal=KILL", "plgw.service"]);
    wait::until_true("systemd to restart the agent", || {
        systemd.property("NRestarts") == "1"
    });
    systemd.wait_until_ready();
    let status = systemd.cli("status -o json");
    assert!(status.contains("\"in_sync\": true"), "{status}");
    assert!(systemd.cli("endpoint show a/web").contains("approved"));
    let process = systemd.property("MainPID");
    let status = succeed(
        systemd
            .command("cat")
            .arg(format!("/proc/{process}/status")),
    );
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches(':').trim().to_owned())
    };
    // The mask of CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON and CAP_BPF.
    assert_eq!(field("CapEff").as_deref(), Some("000000c000003000"));
    assert_eq!(field("NoNewPrivs").as_deref(), Some("1"));
    assert_eq!(field("Seccomp").as_deref(), Some("2"));
}
