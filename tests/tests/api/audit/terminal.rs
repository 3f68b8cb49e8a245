//! Escaping of the command line's output.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::Command,
};

use serde_json::{Value, json};
use tests::services::agent::binary;

use crate::assert_no_control_characters;

/// Starts a server on a unix socket that gives every request the same response.
fn hostile_server(path: &PathBuf, status: &'static str, body: String) {
    let listener = UnixListener::bind(path).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                body.len()
            );
            let _gone = stream.write_all(head.as_bytes());
            let _gone = stream.write_all(body.as_bytes());
        }
    });
}

/// Characters that no terminal may receive: an escape sequence, a C1 control character, a directional override, a
/// zero-width space, and a line feed within a value.
const HOSTILE: &str = "x\u{1b}[2J\u{9b}31m\u{202e}\u{200b}\nforged";

#[test]
fn terminal_output_escapes_hostile_server_responses() {
    let directory = tempfile::tempdir().expect("a directory");
    let tenant = json!({
        "name": "a", "uid": "00000000-0000-4000-8000-000000000000", "version": 1,
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        "labels": { HOSTILE: HOSTILE }, "quotas": {},
        "status": { "usage": { "networks": 0, "services": 0, "endpoints": 0 } },
    });
    let event = json!({
        "id": "00000000-0000-4000-8000-000000000000", "at": "2026-01-01T00:00:00Z",
        "action": "created", "kind": "tenant", "object": HOSTILE, "message": HOSTILE,
        "actor": HOSTILE, "from": HOSTILE, "fields": [HOSTILE],
    });
    let problem = json!({
        "type": "about:blank", "title": HOSTILE, "status": 422, "detail": HOSTILE,
        "code": "invalid", "field": HOSTILE,
    });
    let page = |item: &Value| json!({ "items": [item] });
    let difference = json!({ "differences": [{
        "action": "update", "kind": "tenant", "object": HOSTILE,
        "fields": [{ "field": HOSTILE, "old": HOSTILE, "new": HOSTILE }],
    }] });
    let manifest = directory.path().join("m.yaml");
    fs::write(&manifest, "tenants: [{name: a}]\n").expect("a file");
    let apply = format!("apply -f {}", manifest.display());
    for (number, (status, answer, line)) in [
        ("200 OK", tenant.clone(), "tenant show a"),
        ("200 OK", page(&tenant), "tenant list"),
        ("200 OK", page(&event), "event list"),
        ("200 OK", difference, &apply),
        ("422 Unprocessable Content", problem, "tenant show a"),
        ("200 OK", json!({ HOSTILE: HOSTILE }), "tenant show a"),
        (
            "200 OK",
            json!({ "items": [{ "kind": HOSTILE }] }),
            "event list",
        ),
        (
            "200 OK",
            json!({ "differences": [{ "action": HOSTILE }] }),
            &apply,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let socket = directory.path().join(format!("{number}.sock"));
        hostile_server(&socket, status, answer.to_string());
        for format in ["table", "json", "yaml"] {
            let mut command = Command::new(binary());
            command
                .args(["-o", format])
                .args(line.split(' '))
                .arg("--socket")
                .arg(&socket);
            let output = command.output().expect("the command line");
            let whole = [&output.stdout[..], &output.stderr].concat();
            assert!(!whole.is_empty(), "{line}");
            assert_no_control_characters(&whole);
            // JSON and YAML output is escaped without loss.
            if format != "table" && answer == tenant {
                let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
                assert_eq!(shown["labels"][HOSTILE], HOSTILE);
            }
        }
    }
}
