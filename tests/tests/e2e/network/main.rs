//! Traffic of real programs through the gateway, checked by the kernel's TCP/IP stacks and by captures.

mod access;
mod addresses;
mod capture;
mod transfers;

use std::process::{Command, Stdio};

use tests::net::{namespace::Namespace, process::succeed};

/// Returns a curl command that runs in the namespace.
fn curl(namespace: &Namespace, arguments: &str) -> Command {
    let mut command = namespace.command_line(&format!("curl -sS -m 60 {arguments}"));
    command.stdin(Stdio::null());
    command
}

/// Returns pseudo-random bytes (xorshift), the same ones on every call.
fn random_bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Returns true for an address of `topology::NAT`, 10.1.0.64/28.
fn is_snat_address(address: &str) -> bool {
    let last = address
        .strip_prefix("10.1.0.")
        .and_then(|last| last.parse::<u8>().ok());
    last.is_some_and(|last| (64..80).contains(&last))
}

/// Returns a counter of the namespace's TCP/IP stack, as `nstat` shows it.
fn stack_counter(namespace: &Namespace, name: &str) -> u64 {
    let text = succeed(
        &mut namespace.command_line("cat /proc/thread-self/net/netstat /proc/thread-self/net/snmp"),
    );
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for pair in lines.chunks(2) {
        if let [names, values] = pair
            && let Some(index) = names.iter().position(|found| *found == name)
        {
            return values[index].parse().expect("a numeric counter");
        }
    }
    panic!("the TCP/IP stack has no counter {name}");
}
