//! The check of a configuration before a start.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use gateway::config::{Config, Settings};
use tests::{
    net::{
        namespace::Namespace,
        process::{fail, succeed},
    },
    services::{agent::binary, test_ca::TestCa},
};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

#[test]
fn a_configuration_that_can_not_start_is_found_before_the_start() {
    let host = Arc::new(Namespace::new("gw"));
    let files = tempfile::tempdir().expect("a directory");
    let (ca, other) = (TestCa::new(), TestCa::new());
    let server = ca.issue("gateway");
    let stranger = other.issue("stranger");
    let state = files.path().join("state");
    fs::create_dir(&state).expect("a directory");
    set_mode(&state, 0o700);
    let check = |settings: &[(&str, String)]| {
        let mut command = host.command(&binary().display().to_string());
        command
            .args(["config", "check"])
            .env("PLGW_STATE_DIR", &state)
            .env("PLGW_RUN_DIR", files.path().join("run"))
            .env("PLGW_BPF_DIR", "/sys/fs/bpf/plgt-config-check")
            .env("PLGW_LISTEN", "127.0.0.1:8443")
            .env("PLGW_TLS_CERTIFICATE", &server.certificate)
            .env("PLGW_TLS_KEY", &server.key)
            .env("PLGW_TLS_CLIENT_CA", ca.certificate());
        for (key, value) in settings {
            command.env(format!("PLGW_{key}"), value);
        }
        command
    };
    // A good configuration is printed as a file with the same effect.
    let printed = succeed(&mut check(&[("QUOTA_NETWORKS", "7".to_owned())]));
    assert!(
        printed.contains("# client authority: subject="),
        "{printed}"
    );
    let path = files.path().join("plgw.toml");
    fs::write(&path, &printed).expect("a file");
    let config = Config::load(Some(&path), Settings::default()).expect("a configuration");
    assert_eq!(config.policy.default_quotas.networks, 7);
    assert_eq!(config.state_dir, state);
    let tls = config.tls.expect("a listener");
    assert_eq!(
        (&tls.certificate, &tls.key),
        (&server.certificate, &server.key)
    );
    assert!(!Path::new("/sys/fs/bpf/plgt-config-check").exists());
    assert!(!files.path().join("run").exists());

    let garbage = files.path().join("garbage.pem");
    fs::write(&garbage, "nothing").expect("a file");
    set_mode(&garbage, 0o600);
    let shown = |path: &Path| path.display().to_string();
    for (settings, says) in [
        (vec![("TLS_KEY", shown(&stranger.key))], "do not match"),
        (vec![("TLS_KEY", shown(&garbage))], "private key"),
        (
            vec![("TLS_CERTIFICATE", shown(&garbage))],
            "contains no certificate",
        ),
        (
            vec![("TLS_CERTIFICATE", "/nowhere.pem".to_owned())],
            "/nowhere.pem",
        ),
        (
            vec![("TLS_CLIENT_CA", shown(&garbage))],
            "contains no certificate",
        ),
        (
            vec![("TLS_CLIENT_CRL", shown(&garbage))],
            "contains no certificate revocation list",
        ),
        (
            vec![("OUTBOUND_CA", "/nowhere.pem".to_owned())],
            "outbound_ca",
        ),
        (vec![("LISTEN", "192.0.2.77:8443".to_owned())], "192.0.2.77"),
        (
            vec![("BPF_DIR", shown(&files.path().join("bpf")))],
            "not on a bpf file system",
        ),
        (vec![("STATE_DIR", shown(&garbage))], "is not a directory"),
    ] {
        let refusal = fail(check(&settings).arg("--quiet"));
        assert!(refusal.contains(says), "{settings:?}: {refusal}");
    }
    set_mode(&server.key, 0o644);
    set_mode(&state, 0o755);
    // All problems are printed, not only the first one.
    let refusal = fail(&mut check(&[("OUTBOUND_CA", "/nowhere.pem".to_owned())]));
    for says in ["chmod 640", "chmod 700", "outbound_ca"] {
        assert!(refusal.contains(says), "{refusal}");
    }
}
