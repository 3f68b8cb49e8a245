//! Tests of the migrations, of stores and of the entries of backups.

use super::*;
use crate::{
    model::{VersionKey, operations::tests::World},
    store::{
        Backup, Write, backup::BackupHeader, decode_entries, load, read_backup, sqlite::tests::put,
    },
};

/// Creates a store of an older schema version.
fn store_with_schema(version: u32) -> (tempfile::TempDir, Sqlite) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let connection = Connection::open(&path).unwrap();
    for script in &MIGRATIONS[..version as usize] {
        connection.execute_batch(script).unwrap();
    }
    connection
        .pragma_update(None, "user_version", version)
        .unwrap();
    let path = path.display().to_string();
    (folder, Sqlite { connection, path })
}

#[test]
fn network_numbers_are_migrated_to_31_bits() {
    let (folder, mut store) = store_with_schema(2);
    let network = |number: u32| format!(r#"{{"name":"n","number":{number}}}"#);
    let writes = [
        ("networks/t/large", u32::MAX),
        ("networks/t/small", 77),
        ("services/t/large", u32::MAX),
    ]
    .map(|(key, number)| put(key, 0, &network(number)));
    store.commit(&writes).unwrap();
    let old = store.list("").unwrap();
    drop(store);
    let store = Sqlite::open(&folder.path().join("state.db")).unwrap();
    // Entries of a backup are upgraded in the same way.
    let upgraded = upgrade_entries(old, 2)
        .unwrap()
        .into_iter()
        .map(|e| e.value);
    assert!(upgraded.eq(store.list("").unwrap().into_iter().map(|e| e.value)));
    let values: Vec<_> = store
        .list("")
        .unwrap()
        .into_iter()
        .map(|e| e.value)
        .collect();
    assert_eq!(
        values,
        [network(u32::MAX >> 1), network(77), network(u32::MAX)]
    );
}

#[test]
fn colliding_migrated_network_numbers_are_refused() {
    let (folder, mut store) = store_with_schema(2);
    let network = |number: u32| format!(r#"{{"name":"n","number":{number}}}"#);
    let before = [("networks/t/a", 77), ("networks/t/b", 77 | 1 << 31)]
        .map(|(key, number)| put(key, 0, &network(number)));
    store.commit(&before).unwrap();
    drop(store);
    let path = folder.path().join("state.db");
    // The failed migration is rolled back: a second attempt fails in the same way.
    for _ in 0..2 {
        let refusal = Sqlite::open(&path).unwrap_err().to_string();
        assert!(refusal.contains("the store failed"), "{refusal}");
    }
}

/// Service entries as schema 5 has them, and the same ones with the names of schema 6.
fn renamed_entries() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        (
            "services/t/all",
            r#"{"name":"s","no_backend":"drop","no_flow":"drop","bit_rate":9007199254740993,"health_check":{"check":"tcp","unhealthy_flows":"reset"}}"#,
            r#"{"name":"s","no_backend_action":"drop","unmatched_packet_action":"drop","bit_rate":9007199254740993,"health_check":{"check":"tcp","unhealthy_flow_action":"reset"}}"#,
        ),
        (
            "services/t/new",
            r#"{"no_backend_action":"drop","name":"s"}"#,
            r#"{"no_backend_action":"drop","name":"s"}"#,
        ),
        ("services/t/not-json", "{\"no_flow\"", "{\"no_flow\""),
        (
            "events/01900000-0000-7000-8000-000000000001",
            r#"{"kind":"service","fields":["labels","no_backend","no_flow","timeouts"]}"#,
            r#"{"kind":"service","fields":["labels","no_backend_action","unmatched_packet_action","timeouts"]}"#,
        ),
        (
            "events/01900000-0000-7000-8000-000000000002",
            r#"{"kind":"network","fields":["no_flow"]}"#,
            r#"{"kind":"network","fields":["no_flow"]}"#,
        ),
        (
            "networks/t/n",
            r#"{"no_flow":"drop"}"#,
            r#"{"no_flow":"drop"}"#,
        ),
    ]
}

/// Returns a value's JSON, or the text itself where it is not JSON.
fn parsed(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

#[test]
fn schema_6_renames_fields_of_services() {
    let (folder, mut store) = store_with_schema(5);
    let entries = renamed_entries();
    let writes: Vec<Write> = entries
        .iter()
        .map(|(key, old, _)| put(key, 0, old))
        .collect();
    store.commit(&writes).unwrap();
    let old = store.list("").unwrap();
    let (identity, seed) = (store.identity().unwrap(), store.seed().unwrap());
    drop(store);
    let store = Sqlite::open(&folder.path().join("state.db")).unwrap();
    assert_eq!(
        (store.identity().unwrap(), store.seed().unwrap()),
        (identity, seed)
    );
    for upgraded in [store.list("").unwrap(), upgrade_entries(old, 5).unwrap()] {
        assert_eq!(upgraded.len(), entries.len());
        for (key, _, new) in &entries {
            let entry = upgraded.iter().find(|entry| entry.key == *key).unwrap();
            assert_eq!(parsed(&entry.value), parsed(new), "{key}");
        }
    }
}

/// Returns an object's JSON without its version, which depends on the revision and the store's seed.
fn without_version(text: &str) -> serde_json::Value {
    let mut value = parsed(text);
    value.as_object_mut().unwrap().remove("version");
    value
}

#[test]
fn state_of_schema_5_is_loaded_and_restored() {
    let old_names = |text: String| {
        text.replace("\"no_backend_action\"", "\"no_backend\"")
            .replace("\"unmatched_packet_action\"", "\"no_flow\"")
            .replace("\"unhealthy_flow_action\"", "\"unhealthy_flows\"")
    };
    let mut world = World::furnished();
    let settings = serde_json::json!({
        "nat_addresses": ["10.1.9.0/28"], "no_backend_action": "drop", "unmatched_packet_action": "drop",
        "health_check": { "check": "tcp", "unhealthy_flow_action": "reset" },
    });
    world.service("provider/other", settings).unwrap();
    let objects: Vec<(String, String)> = world
        .state
        .objects()
        .map(|object| (object.key(), object.encode().unwrap()))
        .collect();
    let (folder, mut store) = store_with_schema(5);
    let writes = objects
        .iter()
        .map(|(key, value)| put(key, 0, &old_names(value.clone())));
    store.commit(&writes.collect::<Vec<Write>>()).unwrap();
    let old = store.list("").unwrap();
    assert!(
        old.iter()
            .any(|entry| entry.value.contains("\"no_backend\":\"drop\""))
    );
    let now = jiff::Timestamp::UNIX_EPOCH;
    let header = BackupHeader::new(5, store.identity().unwrap(), store.seed().unwrap(), now);
    drop(store);

    let store = Sqlite::open(&folder.path().join("state.db")).unwrap();
    let backup = Backup {
        header,
        entries: old,
    }
    .encode()
    .unwrap();
    let restored = read_backup(&backup).unwrap().entries;
    let restored = decode_entries(restored, VersionKey::default()).unwrap();
    for loaded in [load(&store).unwrap().state, restored.state] {
        assert_eq!(loaded.objects().count(), objects.len());
        for object in loaded.objects() {
            let (_, expected) = objects
                .iter()
                .find(|(key, _)| *key == object.key())
                .unwrap();
            assert_eq!(
                without_version(&object.encode().unwrap()),
                without_version(expected)
            );
        }
    }
}
