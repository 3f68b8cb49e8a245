//! Network namespaces that simulate hosts. They are removed when dropped.

use std::{
    fs::{self, File},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
};

use nix::sched::{CloneFlags, setns};

use crate::net::process::succeed;

/// Prefix of all names. The process id follows, so that names of two runs can't collide.
const PREFIX: &str = "plgt";

static NEXT_ID: AtomicU32 = AtomicU32::new(0);

/// Returns a number that is unique within this process.
pub fn unique() -> u32 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates a namespace, with its loopback interface up.
    ///
    /// # Panics
    /// Panics if not root, or the system refuses.
    #[must_use]
    #[track_caller]
    pub fn new(role: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test needs root: it makes network namespaces"
        );
        let name = format!("{PREFIX}{}-{}-{role}", std::process::id(), unique());
        remove_leftovers();
        succeed(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        // Unsolicited packets of the hosts would be counted among the test's packets.
        for key in ["all", "default"] {
            let path = format!("/proc/sys/net/ipv6/conf/{key}/disable_ipv6");
            namespace
                .run_in(move || fs::write(path, "1"))
                .expect("IPv6 switched off");
        }
        namespace
    }

    /// Returns the name that `ip netns` has for the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Returns a command that runs in the namespace.
    ///
    /// # Panics
    /// Panics if the namespace is gone.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let file = File::open(self.path()).expect("a namespace");
        let mut command = Command::new(program);
        // SAFETY: between fork and exec only this system call is made, on a descriptor that lives
        // in the closure.
        unsafe {
            command.pre_exec(move || {
                setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)
            });
        }
        command
    }

    /// Returns a command that runs in the namespace, from a line whose words are separated by blanks.
    #[must_use]
    pub fn command_line(&self, line: &str) -> Command {
        let mut arguments = line.split_whitespace();
        let mut command = self.command(arguments.next().unwrap_or_default());
        command.args(arguments);
        command
    }

    /// Runs `ip` in the namespace with these arguments.
    ///
    /// # Panics
    /// Panics if it fails.
    #[track_caller]
    pub fn ip(&self, arguments: &str) -> String {
        succeed(&mut self.command_line(&format!("ip {arguments}")))
    }

    /// Spawns a thread in the namespace that runs a function.
    pub fn spawn<T: Send + 'static>(
        &self,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let file = File::open(self.path()).expect("a namespace");
        thread::spawn(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("to enter the namespace");
            function()
        })
    }

    /// Runs a function in a thread in the namespace, and returns its result.
    ///
    /// # Panics
    /// Panics if the function does.
    pub fn run_in<T: Send + 'static>(&self, function: impl FnOnce() -> T + Send + 'static) -> T {
        match self.spawn(function).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Enables IPv6 on an interface, and adds addresses without duplicate address detection.
    ///
    /// # Panics
    /// Panics if the system refuses.
    pub fn enable_ipv6(&self, interface: &str, addresses: &[&str]) {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
        self.run_in(move || fs::write(path, "0"))
            .expect("IPv6 switched on");
        for address in addresses {
            self.ip(&format!("address add {address}/64 dev {interface} nodad"));
        }
    }

    /// Connects `interface` by a veth pair with `eth0` of another namespace. The far end accepts redirected frames.
    pub fn connect(&self, interface: &str, other: &Self) {
        self.connect_as(interface, other, "eth0");
    }

    /// Connects `interface` by a veth pair with an interface of another namespace.
    pub fn connect_as(&self, interface: &str, other: &Self, peer_interface: &str) {
        let there = other.name();
        self.ip(&format!(
            "link add name {interface} type veth peer name {peer_interface} netns {there}"
        ));
        self.ip(&format!("link set dev {interface} up"));
        other.ip(&format!("link set dev {peer_interface} up"));
        succeed(&mut other.command_line(&format!("ethtool -K {peer_interface} gro on")));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("could not remove network namespace {}", self.name);
        }
    }
}

/// Removes leftovers of killed runs: everything named after a process that no longer exists.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_leftover(&name) {
            let _raced = Command::new("ip").args(["netns", "delete", &name]).status();
        }
    }
    let Ok(entries) = fs::read_dir("/sys/fs/bpf") else {
        return;
    };
    for entry in entries.flatten() {
        if is_leftover(&entry.file_name().to_string_lossy()) {
            let _raced = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_leftover(name: &str) -> bool {
    let id = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next());
    id.and_then(|id| id.parse::<u32>().ok())
        .is_some_and(|id| !PathBuf::from(format!("/proc/{id}")).exists())
}

/// A directory on the bpf file system, removed with the test.
#[derive(Debug)]
pub struct BpfDirectory {
    path: PathBuf,
}

impl BpfDirectory {
    /// Returns an unused path. Its user creates the directory.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "it names something new each time"
    )]
    pub fn new() -> Self {
        let name = format!("{PREFIX}{}-{}", std::process::id(), unique());
        Self {
            path: PathBuf::from("/sys/fs/bpf").join(name),
        }
    }

    /// Returns the directory's path.
    #[must_use]
    pub const fn path(&self) -> &PathBuf {
        &self.path
    }
}

impl Drop for BpfDirectory {
    fn drop(&mut self) {
        if self.path.exists() && fs::remove_dir_all(&self.path).is_err() {
            eprintln!("could not remove {}", self.path.display());
        }
    }
}
