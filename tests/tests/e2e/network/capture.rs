//! Captures by tcpdump.

use std::{
    fs,
    process::{Command, Stdio},
};

use tests::net::{
    namespace::Namespace,
    process::{BackgroundProcess, succeed},
    wait,
};

/// A capture by tcpdump of the packets that an interface receives.
pub(crate) struct Capture {
    running: BackgroundProcess,
    file: tempfile::NamedTempFile,
}

impl Capture {
    /// Starts a capture of the packets that match the filter, and waits until tcpdump listens.
    pub(crate) fn start(namespace: &Namespace, interface: &str, filter: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let log = tempfile::NamedTempFile::new().expect("a file");
        let line = format!(
            "tcpdump -i {interface} -Q in --immediate-mode -U -n -Z root -w {} {filter}",
            file.path().display()
        );
        let mut command = namespace.command_line(&line);
        command
            .stderr(log.reopen().expect("a file"))
            .stdout(Stdio::null());
        let running = BackgroundProcess::start(&mut command).expect("tcpdump");
        wait::until_true("tcpdump to listen", || {
            fs::read_to_string(log.path()).is_ok_and(|text| text.contains("listening on"))
        });
        Self { running, file }
    }

    /// Stops the capture. Returns its packets as text, with the result of the checksum checks.
    pub(crate) fn text(&mut self) -> String {
        self.running.terminate();
        let mut read = Command::new("tcpdump");
        read.args(["-n", "-vvv", "-e", "-r"]).arg(self.file.path());
        succeed(&mut read)
    }
}
