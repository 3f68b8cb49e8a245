//! Hostile clients: large and slow bodies, held connections, unlimited streams and requests.

mod attack;
mod bodies;
mod connections;
mod rate_limits;
mod streams;

use std::sync::{Mutex, MutexGuard, PoisonError};

const MIB: usize = 1 << 20;

/// A lock that each test holds. The tests measure latencies and memory, so they must not run at the same time.
static SERIAL: Mutex<()> = Mutex::new(());

/// Waits until no other test of this file runs.
fn run_serially() -> MutexGuard<'static, ()> {
    SERIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Repeats a part between head and tail until the text has about `bytes` bytes.
fn fill_body(head: &str, part: impl Fn(usize) -> String, tail: &str, bytes: usize) -> String {
    let mut text = head.to_owned();
    let mut number = 0;
    while text.len() + tail.len() + 64 < bytes {
        if number > 0 {
            text.push(',');
        }
        text.push_str(&part(number));
        number += 1;
    }
    text.push_str(tail);
    text
}

/// Returns bodies of about `bytes` bytes that are chosen to use the most memory in different parts of the decoder.
fn worst_case_bodies(bytes: usize) -> Vec<(&'static str, String)> {
    let labels = |_| {
        let labels: Vec<String> = (0..64).map(|n| format!(r#""label{n}":"value""#)).collect();
        format!(r#"{{"labels":{{{}}}}}"#, labels.join(","))
    };
    let plain = |text: &'static str| move |_| text.to_owned();
    let long = "x".repeat(bytes - 256);
    vec![
        (
            "tiny objects with an unknown key",
            fill_body(r#"{"connections":["#, plain(r#"{"":0}"#), "]}", bytes),
        ),
        (
            "tiny objects",
            fill_body(r#"{"tenants":["#, plain("{}"), "]}", bytes),
        ),
        (
            "unknown keys",
            fill_body("{", |number| format!(r#""k{number}":0"#), "}", bytes),
        ),
        ("labels", fill_body(r#"{"tenants":["#, labels, "]}", bytes)),
        (
            "connections",
            fill_body(
                r#"{"connections":["#,
                |number| format!(r#"{{"endpoint":"a/e{number}","state":"Approved"}}"#),
                "]}",
                bytes,
            ),
        ),
        (
            "buffered lists",
            fill_body(
                r#"{"services":[{"tenant":"a","nat_addresses":["#,
                plain(r#"[[],[],[],[],[]]"#),
                "]}]}",
                bytes,
            ),
        ),
        (
            "a long text",
            format!(r#"{{"endpoints":[{{"tenant":"a","service":"{long}"}}]}}"#),
        ),
        ("a long key", format!(r#"{{"{long}":0}}"#)),
        ("deep nesting", "[".repeat(bytes / 2)),
    ]
}
