//! nginx, the backend of most tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::net::{
    namespace::Namespace,
    process::{BackgroundProcess, succeed},
    wait,
};

/// An nginx process in a namespace, on one address.
#[derive(Debug)]
pub struct Nginx {
    _running: BackgroundProcess,
    files: tempfile::TempDir,
}

impl Nginx {
    /// Starts nginx and waits until it listens. `/name` returns its address.
    ///
    /// # Panics
    /// Panics if it does not.
    #[must_use]
    pub fn start(namespace: &Namespace, address: &str) -> Self {
        let socket = if address.contains(':') {
            format!("[{address}]")
        } else {
            address.to_owned()
        };
        let files = tempfile::tempdir().expect("a directory");
        let root = files.path().join("root");
        fs::create_dir(&root).expect("a directory");
        fs::write(root.join("name"), format!("{address}\n")).expect("a file");
        let server = format!("listen {socket}:80; root root;");
        let running = run(namespace, files.path(), &server);
        let nginx = Self {
            _running: running,
            files,
        };
        let question = format!("ss -Hltn src {socket}:80");
        wait::until_true("nginx to listen", || {
            !succeed(&mut namespace.command_line(&question)).is_empty()
        });
        nginx
    }

    /// Returns the directory that nginx serves.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.files.path().join("root")
    }

    /// Returns the source addresses of requests.
    ///
    /// # Panics
    /// Panics if there is no log.
    #[must_use]
    pub fn client_addresses(&self) -> Vec<String> {
        let log = fs::read_to_string(self.files.path().join("access.log")).expect("a log");
        let clients = log.lines().filter_map(|line| line.split(' ').next());
        clients.map(str::to_owned).collect()
    }
}

/// Runs nginx with its files in the directory, and one server with this configuration.
///
/// The server is one process: worker processes would outlive their master when it is killed.
pub(crate) fn run(namespace: &Namespace, directory: &Path, server: &str) -> BackgroundProcess {
    let configuration = directory.join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log error.log; user root;
         events {{}}
         http {{
             access_log access.log combined;
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi; client_max_body_size 1g;
             server {{ {server} }}
         }}"
    );
    fs::write(&configuration, text).expect("a file");
    let mut command = namespace.command("nginx");
    command
        .arg("-p")
        .arg(directory)
        .arg("-c")
        .arg(&configuration);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    BackgroundProcess::start(&mut command).expect("nginx")
}
