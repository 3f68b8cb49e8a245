//! Check of a configuration: everything that a start needs and that can be found out without starting. Nothing is
//! created or changed.

use std::{fs, io, net::TcpListener, path::Path};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use crate::{
    api,
    bpf::loader,
    config::{Config, TlsSettings},
    files, former_paths, outbound,
    store::STORE_FILE,
};

/// Results of a check.
#[derive(Debug, Default)]
pub struct Findings {
    /// Reasons why a start would fail, each with the remedy.
    pub problems: Vec<String>,
    /// Conditions under which the agent starts, but that are hardly meant.
    pub warnings: Vec<String>,
}

impl Findings {
    fn add(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.problems.push(format!("{error:#}"));
        }
    }
}

/// Checks a configuration. All problems are found, not only the first one.
#[must_use]
pub fn check(config: &Config) -> Findings {
    let mut findings = Findings::default();
    findings.add(former_paths::check(&config.state_dir, &config.bpf_dir));
    // SAFETY: the call takes no arguments and returns a number.
    if unsafe { libc::geteuid() } == 0 {
        findings.add(check_directory(
            &config.state_dir,
            files::check_private_directory,
        ));
        findings.add(check_directory(
            &config.run_dir,
            files::check_open_directory,
        ));
        findings.add(check_directory(
            &config.bpf_dir,
            files::check_open_directory,
        ));
        findings.add(files::check_store(&config.state_dir.join(STORE_FILE)));
    } else {
        findings.warnings.push(
            "the agent runs as root, and this check does not: owners and modes of directories were not checked"
                .to_owned(),
        );
    }
    let on_bpf = existing_ancestor(&config.bpf_dir).and_then(loader::check_file_system);
    findings.add(on_bpf);
    if let Some(path) = &config.outbound_ca {
        let client = outbound::client(Some(path), |builder| builder);
        findings.add(client.map(drop).context("outbound_ca"));
    }
    if let Some(tls) = &config.tls {
        check_tls(tls, &mut findings);
    }
    findings
}

/// Checks the files of the listener for tenants, and its address.
fn check_tls(tls: &TlsSettings, findings: &mut Findings) {
    match api::tls::check(tls) {
        Ok(validity) => {
            let (from, until) = validity;
            let now = Timestamp::now();
            if until <= now || now < from {
                let shown = tls.certificate.display();
                findings.warnings.push(format!(
                    "certificate {shown} is valid from {from} until {until}, which is not now: clients will refuse it"
                ));
            }
        }
        Err(errors) => {
            let texts = errors.iter().map(|error| format!("{error:#}"));
            findings.problems.extend(texts);
        }
    }
    findings.add(check_address(tls));
}

/// Refuses an address that the host does not have. A port in use is no problem: the running agent uses it.
fn check_address(tls: &TlsSettings) -> Result<()> {
    match TcpListener::bind(tls.listen) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => bail!(
            "listen: the host does not have the address {}: use one of its addresses, or [::]",
            tls.listen.ip()
        ),
        _ => Ok(()),
    }
}

/// Checks a directory as a start does. One that is missing is made by the start, if what is there of its path is a
/// directory.
fn check_directory(path: &Path, check: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let existing = existing_ancestor(path)?;
    if !existing.is_dir() {
        bail!(
            "{} is not a directory: move it away, or configure another directory than {}",
            existing.display(),
            path.display()
        );
    }
    if existing == path {
        check(path)
    } else {
        Ok(())
    }
}

/// Returns the path, or the nearest directory above it that exists.
fn existing_ancestor(path: &Path) -> Result<&Path> {
    for ancestor in path.ancestors() {
        match fs::symlink_metadata(ancestor) {
            Ok(_) => return Ok(ancestor),
            Err(error)
                if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory]
                    .contains(&error.kind()) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("can't look at {}", ancestor.display()));
            }
        }
    }
    bail!("{} is not an absolute path", path.display())
}
