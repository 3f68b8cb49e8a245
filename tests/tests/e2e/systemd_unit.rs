//! The unit for systemd: with its sandbox the agent does all of its work. A systemd of the test's own
//! runs it, first of its process namespace.

use std::{fs, path::Path, process::Command};

use tests::{
    net::{
        process::{BackgroundProcess, succeed},
        wait,
    },
    services::agent::binary,
};

/// What the unit stands on. systemd looks for units nowhere else, so it does nothing else.
const TARGETS: [&str; 7] = [
    "basic",
    "final",
    "multi-user",
    "network-pre",
    "shutdown",
    "sysinit",
    "umount",
];

/// Everything that it might change is its own.
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

/// A systemd that runs the unit.
struct Systemd {
    outer: BackgroundProcess,
    _units: tempfile::TempDir,
}

/// Whether a systemd can run here: it needs control groups.
fn is_available() -> bool {
    let groups = Path::new("/sys/fs/cgroup");
    groups.join("cgroup.controllers").exists() || groups.join("systemd").exists()
}

impl Systemd {
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
        // Where the unit's sandbox does not hide it, wherever it was built.
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
        wait::until_true("systemd", || {
            let mut ask = systemd.command("systemctl");
            let answer = ask.arg("is-system-running").output().expect("an answer");
            ["running", "degraded", "starting"]
                .contains(&String::from_utf8_lossy(&answer.stdout).trim())
        });
        systemd
    }

    /// The first process of its namespace.
    fn init_pid(&self) -> Option<u32> {
        let outer = self.outer.pid();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// A command where it runs.
    fn command(&self, program: &str) -> Command {
        let first = self
            .init_pid()
            .map_or_else(String::new, |id| id.to_string());
        let mut command = Command::new("nsenter");
        command.args(["-a", "-t", &first, program]);
        command
    }

    fn systemctl(&self, arguments: &[&str]) -> String {
        succeed(self.command("systemctl").args(arguments))
    }

    /// What the unit's property is.
    fn property(&self, name: &str) -> String {
        let property = format!("--property={name}");
        let shown = self.systemctl(&["show", "plgw.service", &property, "--value"]);
        shown.trim().to_owned()
    }

    fn cli(&self, line: &str) -> String {
        let mut command = self.command(&binary().display().to_string());
        succeed(command.args(line.split_whitespace()))
    }

    fn wait_until_ready(&self) {
        wait::until_true("the agent", || {
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

    // Read again, started again, and ended by force: it comes back by itself.
    systemd.systemctl(&["reload", "plgw.service"]);
    systemd.systemctl(&["restart", "plgw.service"]);
    systemd.wait_until_ready();
    systemd.systemctl(&["kill", "--signal=KILL", "plgw.service"]);
    wait::until_true("a restart", || systemd.property("NRestarts") == "1");
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
    // NET_ADMIN, NET_RAW, PERFMON and BPF.
    assert_eq!(field("CapEff").as_deref(), Some("000000c000003000"));
    assert_eq!(field("NoNewPrivs").as_deref(), Some("1"));
    assert_eq!(field("Seccomp").as_deref(), Some("2"));
}
