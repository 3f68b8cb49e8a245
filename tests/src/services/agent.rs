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
    process::{BackgroundProcess, fail, succeed, try_succeed},
    wait,
};

/// Returns the path of the program: `PLGW_BIN`, or what cargo built beside the tests.
///
/// # Panics
/// Panics if it is not there.
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

/// An agent in a namespace, with directories of its own, which are removed with it.
#[derive(Debug)]
pub struct Agent {
    /// Settings, as environment variables. They override the test kit's defaults.
    pub settings: BTreeMap<String, String>,
    running: Option<BackgroundProcess>,
    host: Host,
    bpf: BpfDirectory,
    files: tempfile::TempDir,
}

/// Number of lines of the agent's log that a failed command shows.
const SHOWN_LOG_LINES: usize = 20;

/// The namespace in which the agent runs.
type Host = std::sync::Arc<Namespace>;

impl Agent {
    /// Starts an agent and waits until it is ready.
    ///
    /// # Panics
    /// Panics if it does not get ready.
    #[must_use]
    #[track_caller]
    pub fn start(host: &Host) -> Self {
        let mut agent = Self::prepare(host);
        agent.restart();
        agent
    }

    /// Creates the directories of an agent without starting it.
    ///
    /// # Panics
    /// Panics if they can't be made.
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

    /// Returns the command that runs the agent.
    #[must_use]
    pub fn run_command(&self) -> Command {
        let mut command = self.host.command(&binary().display().to_string());
        command
            .arg("run")
            .env("PLGW_STATE_DIR", self.files.path().join("state"))
            .env("PLGW_RUN_DIR", self.files.path().join("run"))
            .env("PLGW_BPF_DIR", self.bpf.path())
            .env("PLGW_FLOW_GC_INTERVAL", "1")
            // Small tables, since tests run many agents at the same time.
            .env("PLGW_FLOW_TABLE_SIZE", "65536")
            // Addresses are claimed without probes. Tests of the probes override this.
            .env("PLGW_ADDRESS_PROBES", "0")
            .envs(&self.settings);
        command
    }

    /// Starts the agent again after its process has exited.
    ///
    /// # Panics
    /// Panics if it does not get ready.
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

    /// Kills the agent, as a power cut would.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Stops the agent with the signal that the service manager sends.
    ///
    /// # Panics
    /// Panics if it does not end.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.terminate();
        }
    }

    /// Returns the process id.
    ///
    /// # Panics
    /// Panics if it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("a running agent").pid()
    }

    /// Sends SIGHUP, on which the agent reloads its certificates.
    pub fn send_sighup(&mut self) {
        if let Some(running) = &self.running {
            let id = nix::unistd::Pid::from_raw(running.pid().cast_signed());
            let _gone = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGHUP);
        }
    }

    /// Returns the directory in which the agent pins its program.
    #[must_use]
    pub fn bpf_directory(&self) -> &Path {
        self.bpf.path()
    }

    /// Returns the directory of the store.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.files.path().join("state")
    }

    /// Returns the path of the control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.files.path().join("run/plgw.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.files.path().join("log")
    }

    /// Returns the agent's log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Returns a command of the CLI, from a line whose words are separated by blanks.
    #[must_use]
    pub fn cli_command(&self, line: &str) -> Command {
        let mut command = Command::new(binary());
        command
            .args(line.split_whitespace())
            .env("PLGW_SOCKET", self.socket());
        command
    }

    /// Runs a CLI command that must succeed, and returns its output.
    ///
    /// # Panics
    /// Panics if it fails.
    #[track_caller]
    pub fn cli(&self, line: &str) -> String {
        match try_succeed(&mut self.cli_command(line)) {
            Ok(output) => output,
            Err(error) => {
                let log = self.log();
                let lines: Vec<&str> = log.lines().collect();
                let end = lines
                    .split_at(lines.len().saturating_sub(SHOWN_LOG_LINES))
                    .1;
                panic!("{error:#}\nthe agent's log ends with\n{}", end.join("\n"));
            }
        }
    }

    /// Runs a CLI command that must fail, and returns its error message.
    ///
    /// # Panics
    /// Panics if it succeeds.
    #[track_caller]
    pub fn cli_error(&self, line: &str) -> String {
        fail(&mut self.cli_command(line))
    }

    /// Runs a CLI command and parses its JSON output.
    ///
    /// # Panics
    /// Panics if it fails.
    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.cli(&format!("-o json {line}"))).expect("JSON")
    }

    /// Sends a request to the API, and returns status and body.
    ///
    /// # Panics
    /// Panics if there is no answer.
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

    /// Returns the number of packets dropped for a reason.
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
