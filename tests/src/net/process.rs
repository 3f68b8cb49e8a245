//! Programs that tests start. They are killed when the test ends.

use std::{
    io::Read as _,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::net::wait;

/// A program in the background; killed when dropped.
#[derive(Debug)]
pub struct BackgroundProcess {
    child: Child,
    what: String,
}

impl BackgroundProcess {
    /// Starts a command.
    ///
    /// # Errors
    /// Fails if it can't be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let what = format!("{command:?}");
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("could not start {what}"))?;
        Ok(Self { child, what })
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns true if the process has exited.
    ///
    /// # Panics
    /// Panics if the system does not tell.
    #[must_use]
    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().expect("a child's state").is_some()
    }

    /// Kills the process at once, as a power cut would.
    pub fn kill(&mut self) {
        // The error for a process that has exited already is of no interest.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }

    /// Asks the process to terminate, and waits until it has exited.
    ///
    /// # Panics
    /// Panics if it does not end.
    pub fn terminate(&mut self) {
        let id = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _gone = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        let what = format!("the end of {}", self.what);
        wait::until_true(&what, || self.has_exited());
    }
}

impl Drop for BackgroundProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command until it exits, which must happen within the limit.
///
/// # Errors
/// Fails if it can't be started or takes too long.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let what = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {what}"))?;
    let (mut stdout, mut stderr) = (
        child.stdout.take().context("no stdout")?,
        child.stderr.take().context("no stderr")?,
    );
    let errors = thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).map(|_| text)
    });
    let output = thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).map(|_| text)
    });
    let start = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("{what} took longer than {limit:?}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let joined = |text: thread::JoinHandle<std::io::Result<Vec<u8>>>| match text.join() {
        Ok(text) => Ok(text?),
        Err(_) => bail!("could not read the output of {what}"),
    };
    Ok(Output {
        status,
        stdout: joined(output)?,
        stderr: joined(errors)?,
    })
}

/// Runs a command that must succeed; returns what it printed.
///
/// # Panics
/// Panics if it fails.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    try_succeed(command).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Runs a command; returns what it printed on stdout.
///
/// # Errors
/// Fails if it can't be started, takes too long, or exits with a failure. The error shows what it printed.
pub fn try_succeed(command: &mut Command) -> Result<String> {
    let output = run(command, Duration::from_secs(60))?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if !output.status.success() {
        bail!("{command:?} failed: {}\n{stdout}{stderr}", output.status);
    }
    Ok(stdout.into_owned())
}

/// Runs a command that must fail; returns what it printed on stderr.
///
/// # Panics
/// Panics if it succeeds.
#[track_caller]
pub fn fail(command: &mut Command) -> String {
    let output = run(command, Duration::from_secs(60)).expect("a command that runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success(),
        "{command:?} succeeded, and must not"
    );
    stderr
}
