//! A testbed whose API is reachable by tenants over TLS.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    net::{process::succeed, topology::Testbed},
    services::{
        agent::{Agent, binary},
        test_ca::TestCa,
    },
};

/// Address of the listener for tenants, in the gateway's namespace.
pub const LISTEN: &str = "127.0.0.1:8443";

/// A testbed with a listener for tenants, and the certificate authority of its clients.
pub struct TlsFixture {
    /// The gateway and its networks.
    pub testbed: Testbed,
    /// Certificate authority of the listener and its clients.
    pub ca: TestCa,
}

impl TlsFixture {
    /// Starts the testbed. `configure` may change settings before the agent is started.
    ///
    /// # Panics
    /// Panics if the agent does not start.
    #[must_use]
    pub fn start(configure: impl FnOnce(&Testbed, &TestCa, &mut Agent)) -> Self {
        let ca = TestCa::new();
        let mut testbed = Testbed::new();
        testbed.host.ip("link set lo up");
        let server = ca.issue("gateway");
        let mut agent = std::mem::replace(&mut testbed.agent, Agent::prepare(&testbed.host));
        for (key, value) in [
            ("LISTEN", LISTEN.to_owned()),
            ("TLS_CERTIFICATE", server.certificate.display().to_string()),
            ("TLS_KEY", server.key.display().to_string()),
            ("TLS_CLIENT_CA", ca.certificate().display().to_string()),
            ("OUTBOUND_CA", ca.certificate().display().to_string()),
        ] {
            agent.settings.insert(format!("PLGW_{key}"), value);
        }
        configure(&testbed, &ca, &mut agent);
        agent.stop();
        agent.restart();
        testbed.agent = agent;
        Self { testbed, ca }
    }

    /// Creates a token, and returns the file with it.
    ///
    /// # Panics
    /// Panics if it is refused.
    #[must_use]
    pub fn create_token_file(&self, token: &str, role: &str) -> PathBuf {
        let path = self.ca.directory().join(token.replace('/', "-"));
        let to = path.display();
        self.testbed.agent.cli(&format!(
            "tenant token create {token} --role {role} --output-file {to}"
        ));
        path
    }

    /// Returns a CLI command that a tenant runs with a token.
    #[must_use]
    pub fn remote_cli(&self, token: &PathBuf, line: &str) -> Command {
        let mut command = self.testbed.host.command(&binary().display().to_string());
        command.args(line.split_whitespace());
        command.args(["--server", &format!("https://{LISTEN}")]);
        command.arg("--ca").arg(self.ca.certificate());
        command.arg("--token-file").arg(token);
        command
    }

    /// Sends a request over TLS with these arguments of curl, and returns status and body.
    ///
    /// # Panics
    /// Panics if there is no answer.
    #[must_use]
    pub fn curl(&self, method: &str, path: &str, arguments: &[&str]) -> (u16, String) {
        let mut command = self.testbed.host.command("curl");
        command.args(["-sS", "-m", "20", "-X", method, "-w", "\n%{http_code}"]);
        command.arg("--cacert").arg(self.ca.certificate());
        command
            .args(arguments)
            .arg(format!("https://{LISTEN}{path}"));
        let output = succeed(&mut command);
        let (body, status) = output.rsplit_once('\n').expect("a status");
        (status.parse().expect("a status"), body.to_owned())
    }

    /// Sends a request with a bearer token, and returns status and body.
    ///
    /// # Panics
    /// Panics if there is no answer.
    #[must_use]
    pub fn get_with_token(&self, token: &str, method: &str, path: &str) -> (u16, String) {
        let header = format!("authorization: Bearer {token}");
        self.curl(method, path, &["-H", &header])
    }
}

/// Returns the token in a file.
///
/// # Panics
/// Panics if there is none.
#[must_use]
pub fn read_token(path: &PathBuf) -> String {
    fs::read_to_string(path).expect("a token").trim().to_owned()
}
