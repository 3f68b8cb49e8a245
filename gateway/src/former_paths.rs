//! Default paths of versions whose program was called `gateway`.
//!
//! The default directories have been renamed. An agent with the present defaults would start with an empty store, beside
//! an XDP program that still forwards by the rules of the former store. It refuses to start instead.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// Default configuration file: former and present.
const CONFIG_FILES: [&str; 2] = ["/etc/gateway/gateway.toml", "/etc/plgw/plgw.toml"];

/// Default state directory: former and present.
const STATE_DIRS: [&str; 2] = ["/var/lib/gateway", "/var/lib/plgw"];

/// Default directory on the bpf file system: former and present.
const BPF_DIRS: [&str; 2] = ["/sys/fs/bpf/gateway", "/sys/fs/bpf/plgw"];

/// Name of the store's file, which former versions used as well.
const STORE_FILE: &str = "state.db";

/// Checks that no former default configuration file waits to be moved. For callers that found no present one.
///
/// # Errors
/// Fails if the former file exists.
pub fn check_config() -> Result<()> {
    let [former, present] = CONFIG_FILES.map(Path::new);
    check_config_file(former, present)
}

fn check_config_file(former: &Path, present: &Path) -> Result<()> {
    if former.is_file() && !present.exists() {
        let (former, present) = (former.display(), present.display());
        bail!(
            "the configuration of an earlier version is in {former}: move it to {present}, with the keys renamed as the \
             changelog says, or name it with --config"
        );
    }
    Ok(())
}

/// Checks that no former default directory is in use in place of a configured one.
///
/// A directory that is not the default was chosen by the operator, and passes.
///
/// # Errors
/// Fails if a former directory holds a store or pins and the present one holds none. A directory that can't be read
/// belongs to another program, since the agent's directories belong to root.
pub fn check(state_dir: &Path, bpf_dir: &Path) -> Result<()> {
    let [former, present] = STATE_DIRS.map(Path::new);
    if state_dir == present {
        check_state(former, present)?;
    }
    let [former, present] = BPF_DIRS.map(Path::new);
    if bpf_dir == present {
        check_pins(former, present)?;
    }
    Ok(())
}

fn check_state(former: &Path, present: &Path) -> Result<()> {
    // The service manager makes the present directory before the agent starts, so only the store counts.
    let holds_store = |directory: &Path| directory.join(STORE_FILE).is_file();
    if holds_store(former) && !holds_store(present) {
        let (former, present) = (former.display(), present.display());
        bail!(
            "the state of an earlier version is in {former}: stop that version and move {STORE_FILE}* from there to \
             {present}, or set state_dir to {former}"
        );
    }
    Ok(())
}

fn check_pins(former: &Path, present: &Path) -> Result<()> {
    if has_pins(former) && !has_pins(present) {
        let former = former.display();
        bail!(
            "the program of an earlier version is pinned in {former} and may still forward packets: stop that version \
             and run `rm -r {former}`, which detaches its program and ends its flows, or set bpf_dir to {former}"
        );
    }
    Ok(())
}

/// Returns true if maps or links are pinned below a directory.
fn has_pins(directory: &Path) -> bool {
    list(directory).iter().any(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (name == "links" || name.starts_with("maps-v")) && !list(path).is_empty()
    })
}

/// Returns the paths in a directory, and none if it does not exist or can't be read.
fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Settings};

    fn two_directories(folder: &Path) -> [PathBuf; 2] {
        ["gateway", "plgw"].map(|name| folder.join(name))
    }

    #[test]
    fn former_configuration_is_refused_until_it_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        let [former, present] = two_directories(folder.path());
        check_config_file(&former, &present).unwrap();
        fs::write(&former, "").unwrap();
        let refusal = check_config_file(&former, &present)
            .unwrap_err()
            .to_string();
        let remedy = format!("move it to {}", present.display());
        assert!(refusal.contains(&remedy), "{refusal}");
        fs::write(&present, "").unwrap();
        check_config_file(&former, &present).unwrap();
    }

    #[test]
    fn former_store_is_refused_until_it_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        let [former, present] = two_directories(folder.path());
        check_state(&former, &present).unwrap();
        fs::create_dir(&former).unwrap();
        fs::create_dir(&present).unwrap();
        check_state(&former, &present).unwrap();
        fs::write(former.join(STORE_FILE), "").unwrap();
        let refusal = check_state(&former, &present).unwrap_err().to_string();
        let remedy = format!(
            "move state.db* from there to {}, or set state_dir to {}",
            present.display(),
            former.display()
        );
        assert!(refusal.ends_with(&remedy), "{refusal}");
        fs::write(present.join(STORE_FILE), "").unwrap();
        check_state(&former, &present).unwrap();
    }

    #[test]
    fn former_pins_are_refused_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let [former, present] = two_directories(folder.path());
        check_pins(&former, &present).unwrap();
        for directory in ["links", "maps-v5"] {
            let path = former.join(directory);
            fs::create_dir_all(&path).unwrap();
            check_pins(&former, &present).unwrap();
            fs::write(path.join("7"), "").unwrap();
            let refusal = check_pins(&former, &present).unwrap_err().to_string();
            let remedy = format!("run `rm -r {}`", former.display());
            assert!(refusal.contains(&remedy), "{refusal}");
            fs::remove_dir_all(&former).unwrap();
            check_pins(&former, &present).unwrap();
        }
        for directory in [&former, &present] {
            let links = directory.join("links");
            fs::create_dir_all(&links).unwrap();
            fs::write(links.join("7"), "").unwrap();
        }
        check_pins(&former, &present).unwrap();
    }

    #[test]
    fn present_directories_are_the_configured_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plgw.toml");
        fs::write(&file, "").unwrap();
        let config = Config::load(Some(&file), Settings::default()).unwrap();
        assert_eq!(config.state_dir, Path::new(STATE_DIRS[1]));
        assert_eq!(config.bpf_dir, Path::new(BPF_DIRS[1]));
        assert_eq!(CONFIG_FILES[1], crate::config::DEFAULT_FILE);
    }
}
