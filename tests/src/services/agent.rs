//! The agent under test, and its command line.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::net::{
    namespace::{BpfDirectory, Namespace},
    process::{BackgroundProcess, fail, succeed},
    wait,
};

/// The program: what `PLGW_BIN` names, or what cargo built beside the tests.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn binary() -> PathBuf {
    let path = env::var_os("PLGW_BIN")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let test = env::current_exe().expect("this program's path");
            let target = test
                .parent()
                .and_then(Path::parent)
                .expect("cargo's directories");
            target.join("plgw")
        });
    assert!(
        path.exists(),
        "{} is missing: run `cargo build` first, or `cargo xtask test`",
        path.display()
    );
    path
}

/// An agent in a namespace, with directories of its own. Everything is removed with it.
#[derive(Debug)]
pub struct Agent {
    /// Settings, as variables; those that are not here are the harness's.
    pub settings: BTreeMap<String, String>,
    running: Option<BackgroundProcess>,
    host: Host,
    bpf: BpfDirectory,
    files: tempfile::TempDir,
}

/// Where the agent runs: a namespace that belongs to the test.
type Host = std::sync::Arc<Namespace>;

impl Agent {
    /// Starts an agent and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    #[track_caller]
    pub fn start(host: &Host) -> Self {
        let mut agent = Self::prepare(host);
        agent.restart();
        agent
    }

    /// Directories for an agent that is not started yet.
    ///
    /// # Panics
    /// When they can't be made.
    #[must_use]
    pub fn prepare(host: &Host) -> Self {
        Self {
            settings: BTreeMap::new(),
            running: None,
            host: Host::clone(host),
            bpf: BpfDirectory::new(),
            files: tempfile::tempdir().expect("a directory"),
        }
    }

    /// The command that runs the agent.
    #[must_use]
    pub fn run_command(&self) -> Command {
        let mut command = self.host.command(&binary().display().to_string());
        command
            .arg("run")
            .env("PLGW_STATE_DIR", self.files.path().join("state"))
            .env("PLGW_RUN_DIR", self.files.path().join("run"))
            .env("PLGW_BPF_DIR", self.bpf.path())
            .env("PLGW_FLOW_GC_INTERVAL", "1")
            // Addresses are taken at once; who tests the probes sets this.
            .env("PLGW_ADDRESS_PROBES", "0")
            .envs(&self.settings);
        command
    }

    /// Starts it, in place of one that runs no more.
    ///
    /// # Panics
    /// When it does not get ready.
    #[track_caller]
    pub fn restart(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path());
        let log = log.expect("a log");
        let mut command = self.run_command();
        command.stdout(Stdio::null()).stderr(log);
        let mut running = BackgroundProcess::start(&mut command).expect("the agent");
        let socket = self.socket();
        wait::until_true("the agent", || {
            assert!(!running.has_exited(), "the agent ended:\n{}", self.log());
            UnixStream::connect(&socket).is_ok()
        });
        self.running = Some(running);
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Tells it to stop, as the service manager does.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.terminate();
        }
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("a running agent").pid()
    }

    /// Tells it to read its certificates again.
    pub fn send_sighup(&mut self) {
        if let Some(running) = &self.running {
            let id = nix::unistd::Pid::from_raw(running.pid().cast_signed());
            let _gone = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGHUP);
        }
    }

    /// Where it pins its program.
    #[must_use]
    pub fn bpf_directory(&self) -> &Path {
        self.bpf.path()
    }

    /// Where its store is.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.files.path().join("state")
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.files.path().join("run/plgw.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.files.path().join("log")
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A command line, given as one line, its words separated by blanks.
    #[must_use]
    pub fn cli_command(&self, line: &str) -> Command {
        let mut command = Command::new(binary());
        command
            .args(line.split_whitespace())
            .env("PLGW_SOCKET", self.socket());
        command
    }

    /// Runs a command line that must succeed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn cli(&self, line: &str) -> String {
        succeed(&mut self.cli_command(line))
    }

    /// Runs a command line that must be refused; returns the sentence.
    ///
    /// # Panics
    /// When it succeeds.
    #[track_caller]
    pub fn cli_error(&self, line: &str) -> String {
        fail(&mut self.cli_command(line))
    }

    /// Runs a command line and reads its JSON.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.cli(&format!("-o json {line}"))).expect("JSON")
    }

    /// Sends a request to the API; returns status and body.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn http(&self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        let mut command = Command::new("curl");
        command
            .args([
                "-sS",
                "-m",
                "20",
                "-X",
                method,
                "-w",
                "\n%{http_code}",
                "--unix-socket",
            ])
            .arg(self.socket())
            .arg(format!("http://plgw{path}"));
        let file = tempfile::NamedTempFile::new().expect("a file");
        if let Some(body) = body {
            fs::write(file.path(), body).expect("a file");
            command.args(["-H", "content-type: application/json", "--data-binary"]);
            command.arg(format!("@{}", file.path().display()));
        }
        let output = succeed(&mut command);
        let (body, status) = output.rsplit_once('\n').expect("a status line");
        (status.parse().expect("a status"), body.to_owned())
    }

    /// How many packets were dropped for a reason.
    #[must_use]
    pub fn drop_count(&self, reason: &str) -> u64 {
        self.json("status")["drops"][reason].as_u64().unwrap_or(0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.running = None;
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
    }
}
