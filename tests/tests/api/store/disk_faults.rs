//! Full, failing and read-only disks.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
};

use tests::{
    net::{
        process::{BackgroundProcess, fail, succeed},
        topology::{BACKENDS, ENDPOINT, Testbed},
        wait,
    },
    services::{agent::Agent, nginx::Nginx},
};

/// A mounted file system of limited size, unmounted on drop.
struct SizedFilesystem(tempfile::TempDir);

impl SizedFilesystem {
    fn new(kilobytes: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "tests"]);
        succeed(mount.arg(directory.path()));
        Self(directory)
    }
}

impl Drop for SizedFilesystem {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Returns a testbed whose store is on the file system.
fn testbed_on(disk: &SizedFilesystem) -> Testbed {
    let mut testbed = Testbed::unconfigured();
    let state = disk.0.path().join("state").display().to_string();
    testbed.agent.stop();
    testbed
        .agent
        .settings
        .insert("PLGW_STATE_DIR".to_owned(), state);
    testbed.agent.restart();
    testbed.configure();
    testbed
}

#[test]
fn full_disk_refuses_only_changes() {
    let disk = SizedFilesystem::new(600);
    let testbed = testbed_on(&disk);
    let agent = &testbed.agent;
    testbed.wait_for_backends();
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    agent.cli("connection approve a/web");
    let before = agent.cli("export");
    let filler = disk.0.path().join("filler");
    let _full = fs::write(&filler, vec![0; 1 << 20]);
    // The store's files may have room for a few changes, but not for 200 large ones.
    let mut refusal = None;
    let mut made = Vec::new();
    for number in 0..200 {
        let label = "x".repeat(250);
        let mut command = agent.cli_command(&format!(
            "tenant create t{number} --label a={label} --label b={label}"
        ));
        let output = command.output().expect("an answer");
        if !output.status.success() {
            refusal = Some(String::from_utf8_lossy(&output.stderr).into_owned());
            break;
        }
        made.push(format!("t{number}"));
    }
    let refusal = refusal.expect("a refusal");
    assert!(
        refusal.contains("nothing was changed") && refusal.contains("full"),
        "{refusal}"
    );
    // Accepted changes are stored, the refused one is not, and traffic flows.
    let there: Vec<String> = agent
        .json("tenant list")
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|tenant| tenant["name"].as_str().filter(|name| name.starts_with('t')))
        .map(str::to_owned)
        .collect();
    let wanted: BTreeSet<&String> = made.iter().collect();
    assert_eq!(there.iter().collect::<BTreeSet<_>>(), wanted);
    succeed(
        &mut testbed
            .a
            .command_line(&format!("curl -sS -m 10 http://{ENDPOINT}/name")),
    );
    fs::remove_file(&filler).expect("a file");
    for tenant in &made {
        agent.cli(&format!("tenant delete {tenant}"));
    }
    assert_eq!(agent.cli("export"), before);
}

/// Makes a system call of a running agent on its store fail with an error, until the returned process ends.
fn inject_error(agent: &Agent, call: &str, error: &str) -> BackgroundProcess {
    let id = agent.pid().to_string();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-p", &id]);
    command.args(["-e", &format!("inject={call}:error={error}")]);
    for file in ["state.db", "state.db-wal"] {
        command.arg("-P").arg(agent.state_directory().join(file));
    }
    command.stderr(Stdio::null());
    let running = BackgroundProcess::start(&mut command).expect("strace");
    wait::until_true("strace to trace all threads", || {
        let tasks = fs::read_dir(format!("/proc/{id}/task")).expect("threads");
        tasks.flatten().all(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0")
        })
    });
    running
}

#[test]
fn failing_disk_refuses_changes_without_partial_writes() {
    let mut testbed = Testbed::new();
    testbed.agent.cli("connection approve a/web");
    let before = testbed.agent.cli("export");
    for (call, error) in [
        ("pwrite64", "EROFS"),
        ("pwrite64", "EIO"),
        ("pwrite64", "ENOSPC"),
        ("fsync", "EIO"),
    ] {
        let mut failing = inject_error(&testbed.agent, call, error);
        let refusal = testbed.agent.cli_error("connection reject a/web");
        assert!(
            refusal.contains("nothing was changed"),
            "{call} {error}: {refusal}"
        );
        let (status, problem) = testbed
            .agent
            .http("POST", "/v1/tenants", Some("{\"name\":\"x\"}"));
        assert_eq!(status, 503, "{call} {error}: {problem}");
        assert!(problem.contains("store_unavailable"), "{problem}");
        assert_eq!(testbed.agent.cli("export"), before, "{call} {error}");
        failing.terminate();
        assert_eq!(testbed.agent.cli("export"), before, "{call} {error}");
        // Changes work again after the fault, in the kernel's maps, too.
        testbed.agent.cli("connection reject a/web");
        testbed.agent.cli("connection approve a/web");
        assert_eq!(testbed.agent.json("status")["in_sync"], true);
    }
    let last = testbed.agent.cli("export");
    testbed.agent.kill();
    testbed.agent.restart();
    assert_eq!(testbed.agent.cli("export"), last);
}

#[test]
fn read_only_file_system_is_reported_at_startup() {
    let disk = SizedFilesystem::new(4_096);
    let mut testbed = testbed_on(&disk);
    testbed.agent.stop();
    let mut mount = Command::new("mount");
    succeed(mount.args(["-o", "remount,ro"]).arg(disk.0.path()));
    let refusal = fail(&mut testbed.agent.run_command());
    assert!(refusal.contains("Read-only"), "{refusal}");
}
