//! What is on the wire, judged by somebody else: tcpdump records, tshark reads.

use std::{os::fd::OwnedFd, path::PathBuf, process::Stdio, time::Duration};

use crate::{
    namespace::Namespace,
    pass,
    process::{Running, run, succeed},
    wait,
};

/// What tshark must not find: a checksum that is wrong, or a packet that it can't read. All ones are
/// as good as zero in TCP, and Linux sends them.
const BAD: &str = "ip.checksum.status == 0 || (tcp.checksum.status == 0 && tcp.checksum != 0xffff) || udp.checksum.status == 0 \
                   || icmp.checksum.status == 0 || icmpv6.checksum.status == 0 || _ws.malformed";

/// How long tshark may read.
const PATIENCE: Duration = Duration::from_secs(180);

/// A capture under way at a station's end of its link.
#[derive(Debug)]
pub struct Capture {
    running: Running,
    namespace: String,
    files: tempfile::TempDir,
    _pass: OwnedFd,
}

impl Capture {
    /// Begins to record `eth0`. The station computes its checksums itself from now on, and builds
    /// its segments: what it leaves to hardware that is not there would look wrong.
    ///
    /// # Panics
    /// When tcpdump does not begin.
    #[must_use]
    #[track_caller]
    pub fn start(namespace: &Namespace) -> Self {
        // With the program the link takes redirected frames also without GRO, which would merge
        // segments before they are recorded.
        let pass = namespace.run_in(|| pass::attach("eth0").expect("a program"));
        succeed(&mut namespace.line("ethtool -K eth0 tx off tso off gso off gro off"));
        let files = tempfile::tempdir().expect("a directory");
        let path = files.path().join("capture");
        let mut command = namespace.command("tcpdump");
        // Sent and received, whole packets, written as they come.
        command
            .args(["-i", "eth0", "-U", "-B", "65536", "-Z", "root", "-w"])
            .arg(&path)
            .stderr(Stdio::null());
        let running = Running::start(&mut command).expect("tcpdump");
        wait::until_true("tcpdump", || {
            std::fs::metadata(&path).is_ok_and(|file| file.len() >= 24)
        });
        Self {
            running,
            namespace: namespace.name().to_owned(),
            files,
            _pass: pass,
        }
    }

    /// Ends it, and demands that nothing in it is wrong, and that it is so many bytes long at least.
    ///
    /// # Panics
    /// When something is wrong, or there is less.
    #[track_caller]
    pub fn finish(mut self, least: u64) {
        self.running.terminate();
        let length = std::fs::metadata(self.path()).expect("a capture").len();
        assert!(length >= least, "only {length} bytes at {}", self.namespace);
        let bad = self.read(BAD);
        let first: Vec<&str> = bad.lines().take(10).collect();
        assert!(first.is_empty(), "at {}: {first:#?}", self.namespace);
    }

    fn path(&self) -> PathBuf {
        self.files.path().join("capture")
    }

    /// The packets that the filter shows, one a line.
    fn read(&self, filter: &str) -> String {
        let mut command = std::process::Command::new("tshark");
        for option in ["ip", "tcp", "udp"] {
            command.args(["-o", &format!("{option}.check_checksum:TRUE")]);
        }
        // What is above is not judged, and takes tshark for ever where segments were lost.
        command
            .args(["-o", "tcp.desegment_tcp_streams:FALSE"])
            .args(["--disable-protocol", "http", "--disable-protocol", "resp"])
            .arg("-n")
            .arg("-r")
            .arg(self.path())
            .args(["-Y", filter]);
        // It takes its time on a busy machine.
        let output = run(&mut command, PATIENCE).expect("tshark");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
