//! Damaged and crafted backups.

use std::{fs, process::Command};

use gateway::{
    model::{Object, event_id::EventId},
    store::{Backup, Entry, keys},
};
use serde_json::{Value, json};
use tests::net::process::succeed;

use crate::BackupFixture;

#[test]
fn incomplete_backup_is_refused_without_changes() {
    let mut backed_up = BackupFixture::new();
    let good = backed_up.content.clone();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut create_database = Command::new("sqlite3");
    let sqlite = backed_up.directory.path().join("sqlite");
    create_database
        .arg(&sqlite)
        .arg("CREATE TABLE entry (key, value, revision)");
    succeed(&mut create_database);
    let sqlite = fs::read(sqlite).expect("a file");
    backed_up.expect_all_refused(&[
        ("an empty file", Vec::new(), "the backup is empty"),
        (
            "another format",
            b"nonsense".to_vec(),
            "the file is not a backup",
        ),
        ("a database", sqlite, "copy the file to state.db"),
        (
            "the first half",
            good[..good.len() / 2].to_vec(),
            "is damaged",
        ),
        (
            "all but a byte",
            good[..good.len() - 1].to_vec(),
            "is damaged",
        ),
        ("a flipped bit", flipped, "is damaged"),
        ("two backups", [good.clone(), good].concat(), "is damaged"),
    ]);
}

/// Returns a change that edits one entry's JSON.
fn edit_entry(key: &str, edit: impl Fn(&mut Value)) -> impl FnOnce(&mut Vec<Entry>) {
    move |entries| {
        let entry = entries.iter_mut().find(|entry| entry.key == key);
        let entry = entry.expect("the entry");
        let mut value = serde_json::from_str(&entry.value).expect("JSON");
        edit(&mut value);
        entry.value = value.to_string();
    }
}

/// Returns a change that removes an entry.
fn remove_entry(key: &str) -> impl FnOnce(&mut Vec<Entry>) {
    move |entries| entries.retain(|entry| entry.key != key)
}

/// Returns a change that gives the last event another id.
fn set_last_event(id: EventId) -> impl FnOnce(&mut Vec<Entry>) {
    move |entries| {
        let events = entries.iter_mut().filter(|e| e.key.starts_with("events/"));
        let entry = events.last().expect("an event");
        let mut value: Value = serde_json::from_str(&entry.value).expect("JSON");
        value["id"] = json!(id);
        entry.key = keys::event(id);
        entry.value = value.to_string();
    }
}

#[test]
fn crafted_backups_are_refused_without_changes() {
    let mut backed_up = BackupFixture::new();
    let entries = Backup::decode(&backed_up.content)
        .expect("the backup")
        .entries;
    let object = |key: &str| {
        let entry = entries.iter().find(|entry| entry.key == key);
        let entry = entry.expect("the entry");
        Object::decode(key, &entry.value, 1).expect("an object")
    };
    // The greatest UUID of version 7: no event can have a later id.
    let latest = "ffffffff-ffff-7fff-bfff-ffffffffffff"
        .parse()
        .expect("an id");
    let (a, b, shop) = ("endpoints/a/web", "endpoints/b/web", "services/shop/web");
    let Object::Endpoint(_, other) = object(b) else {
        panic!("no endpoint");
    };
    let Object::Network(_, network) = object("networks/shop/net") else {
        panic!("no network");
    };
    let connection = other.object.connection;
    let set = |key, pointer: &'static str, value: Value| {
        backed_up.craft(edit_entry(key, move |json| {
            *json.pointer_mut(pointer).expect("a field") = value.clone();
        }))
    };
    let files = [
        (
            "the greatest slot",
            set(a, "/connection/slot", json!(u32::MAX)),
            "its slot",
        ),
        (
            "a slot twice",
            set(a, "/connection/slot", json!(connection.slot)),
            "its slot",
        ),
        (
            "a link id twice",
            set(a, "/connection/link_id", json!(connection.link_id)),
            "its number",
        ),
        (
            "Pending with a generation",
            set(b, "/connection/generation", json!(7)),
            "Pending with generation",
        ),
        (
            "Approved without a generation",
            set(b, "/connection/state", json!("Approved")),
            "with generation 0",
        ),
        (
            "another service",
            set(a, "/service_identity/uid", json!(uuid())),
            "there is no service",
        ),
        (
            "no resource",
            set(a, "/resource", json!("gone")),
            "has no resource",
        ),
        (
            "a loopback address",
            set(a, "/addresses/0", json!("127.0.0.1")),
            "loopback",
        ),
        (
            "a number twice",
            set(shop, "/number", json!(network.object.number)),
            "its number",
        ),
        (
            "an interface twice",
            set("networks/a/net", "/attachments/0/interface", json!("gw-b")),
            "its interface",
        ),
        (
            "too large a range",
            set(shop, "/nat_addresses", json!(["fd00::/64"])),
            "are more than",
        ),
        (
            "no network",
            backed_up.craft(remove_entry("networks/a/net")),
            "there is no network",
        ),
        (
            "no service",
            backed_up.craft(remove_entry(shop)),
            "there is no service",
        ),
        (
            "no tenant",
            backed_up.craft(remove_entry("tenants/a")),
            "there is no tenant",
        ),
        (
            "the greatest event id",
            backed_up.craft(set_last_event(latest)),
            "can't be restored",
        ),
        (
            "too great an event id",
            backed_up.craft(set_last_event(EventId::from_number((1 << 53) + 1))),
            "above 2^53",
        ),
        (
            "too great a revision",
            backed_up.craft(|entries| entries[0].revision = u64::MAX),
            "above 2^53",
        ),
        (
            "an unknown key",
            backed_up.craft(|entries| entries[0].key = "zz/x".to_owned()),
            "can't be restored",
        ),
        (
            "no JSON",
            backed_up.craft(|entries| entries[0].value = "nonsense".to_owned()),
            "can't be restored",
        ),
        (
            "deeply nested JSON",
            backed_up.craft(|entries| entries[0].value = "[".repeat(1 << 20)),
            "can't be restored",
        ),
    ];
    backed_up.expect_all_refused(&files);
}

/// Returns a UUID that no object has.
fn uuid() -> String {
    "00000000-0000-4000-8000-000000000000".to_owned()
}
