//! A gateway whose API is open to tenants.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    agent::{Agent, binary},
    authority::Authority,
    process::succeed,
    site::Site,
};

/// Where tenants reach the API, in the gateway's namespace.
pub const LISTEN: &str = "127.0.0.1:8443";

/// A gateway with a listener for tenants, and what its users need.
pub struct Office {
    /// The gateway and its networks.
    pub site: Site,
    /// The authority of the listener, and of clients.
    pub authority: Authority,
}

impl Office {
    /// Opens one; `configure` may set more before the agent is started.
    ///
    /// # Panics
    /// When the agent does not start.
    #[must_use]
    pub fn open(configure: impl FnOnce(&Site, &Authority, &mut Agent)) -> Self {
        let authority = Authority::new();
        let mut site = Site::new();
        site.host.ip("link set lo up");
        let server = authority.sign("gateway");
        let mut agent = std::mem::replace(&mut site.agent, Agent::prepare(&site.host));
        for (key, value) in [
            ("LISTEN", LISTEN.to_owned()),
            ("TLS_CERTIFICATE", server.certificate.display().to_string()),
            ("TLS_KEY", server.key.display().to_string()),
            (
                "TLS_CLIENT_CA",
                authority.certificate().display().to_string(),
            ),
            ("OUTSIDE_CA", authority.certificate().display().to_string()),
        ] {
            agent.settings.insert(format!("GATEWAY_{key}"), value);
        }
        configure(&site, &authority, &mut agent);
        agent.stop();
        agent.restart();
        site.agent = agent;
        Self { site, authority }
    }

    /// Creates a token, and returns the file with it.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn token(&self, token: &str, role: &str) -> PathBuf {
        let path = self.authority.directory().join(token.replace('/', "-"));
        let to = path.display();
        self.site.agent.cli(&format!(
            "tenant token create {token} --role {role} --to {to}"
        ));
        path
    }

    /// Returns the command line, as a tenant runs it with a token.
    #[must_use]
    pub fn remote(&self, token: &PathBuf, line: &str) -> Command {
        let mut command = self.site.host.command(&binary().display().to_string());
        command.args(line.split_whitespace());
        command.args(["--server", &format!("https://{LISTEN}")]);
        command.arg("--ca").arg(self.authority.certificate());
        command.arg("--token-file").arg(token);
        command
    }

    /// Sends a request over TLS, with what the words for curl say; returns status and body.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn curl(&self, method: &str, path: &str, words: &[&str]) -> (u16, String) {
        let mut command = self.site.host.command("curl");
        command.args(["-sS", "-m", "20", "-X", method, "-w", "\n%{http_code}"]);
        command.arg("--cacert").arg(self.authority.certificate());
        command.args(words).arg(format!("https://{LISTEN}{path}"));
        let output = succeed(&mut command);
        let (body, status) = output.rsplit_once('\n').expect("a status");
        (status.parse().expect("a status"), body.to_owned())
    }

    /// Sends a request with a bearer token; returns status and body.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn with_token(&self, token: &str, method: &str, path: &str) -> (u16, String) {
        let header = format!("authorization: Bearer {token}");
        self.curl(method, path, &["-H", &header])
    }
}

/// Returns the token in a file.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn read(path: &PathBuf) -> String {
    fs::read_to_string(path).expect("a token").trim().to_owned()
}
