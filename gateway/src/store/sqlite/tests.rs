//! Tests of the store in an SQLite file.

use super::*;

/// Returns the write of a value.
pub(super) fn put(key: &str, expected: u64, value: &str) -> Write {
    Write {
        key: key.to_owned(),
        expected,
        value: Some(value.to_owned()),
    }
}

fn open() -> (tempfile::TempDir, Sqlite) {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("deep/state.db")).unwrap();
    (folder, store)
}

#[test]
fn written_entries_survive_reopening() {
    let (folder, mut store) = open();
    let seed = store.seed().unwrap();
    assert_eq!(
        store
            .commit(&[put("a/x", 0, "1"), put("b/y", 0, "2")])
            .unwrap(),
        1
    );
    assert_eq!(store.commit(&[put("a/x", 1, "3")]).unwrap(), 2);
    drop(store);
    let store = Sqlite::open(&folder.path().join("deep/state.db")).unwrap();
    assert_eq!(store.seed().unwrap(), seed);
    let entries = store.list("a/").unwrap();
    assert_eq!((entries[0].value.as_str(), entries[0].revision), ("3", 2));
    assert_eq!(store.list("").unwrap().len(), 2);
    assert_eq!(store.list("_/").unwrap(), []);
}

#[test]
fn conflicting_commit_changes_nothing() {
    let (_folder, mut store) = open();
    store.commit(&[put("a", 0, "1")]).unwrap();
    for stale in [
        [put("b", 0, "2"), put("a", 0, "2")],
        [put("b", 0, "2"), put("a", 7, "2")],
        [
            put("b", 0, "2"),
            Write {
                value: None,
                ..put("c", 3, "")
            },
        ],
    ] {
        assert!(matches!(store.commit(&stale), Err(StoreError::Conflict(_))));
        assert_eq!(store.list("").unwrap().len(), 1);
    }
    assert_eq!(
        store
            .commit(&[Write {
                value: None,
                ..put("a", 1, "")
            }])
            .unwrap(),
        2
    );
    assert_eq!(store.list("").unwrap(), []);
}

#[test]
fn a_newer_schema_is_refused_and_unmodified() {
    let (folder, store) = open();
    store
        .connection
        .pragma_update(None, "user_version", 99)
        .unwrap();
    drop(store);
    let refusal = Sqlite::open(&folder.path().join("deep/state.db")).unwrap_err();
    assert!(
        refusal.to_string().contains("schema version 99"),
        "{refusal}"
    );
}

#[test]
fn identity_is_persistent_unique_and_adoptable() {
    let (folder, store) = open();
    let identity = store.identity().unwrap();
    drop(store);
    let mut store = Sqlite::open(&folder.path().join("deep/state.db")).unwrap();
    assert_eq!(store.identity().unwrap(), identity);
    let (_folder, other) = open();
    assert_ne!(other.identity().unwrap(), identity);
    let header = BackupHeader::new(SCHEMA, other.identity().unwrap(), 9, jiff::Timestamp::now());
    store.adopt_identity(&header).unwrap();
    assert_eq!(store.identity().unwrap(), other.identity().unwrap());
    assert_eq!(store.seed().unwrap(), 9);
}

#[test]
fn foreign_tables_are_refused_before_they_are_used() {
    let crafted = [
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE entry; CREATE VIEW entry AS WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL \
         SELECT n + 1 FROM r) SELECT n AS key, n AS value, n AS revision FROM r",
        "CREATE TRIGGER t AFTER INSERT ON entry BEGIN DELETE FROM entry; END",
        "CREATE INDEX i ON entry (value)",
        "CREATE VIRTUAL TABLE f USING fts5 (x)",
        "CREATE TABLE extra (x)",
        "ALTER TABLE entry ADD COLUMN extra TEXT",
        "DROP TABLE entry",
    ];
    for sql in crafted {
        let (folder, store) = open();
        let path = folder.path().join("deep/state.db");
        drop(store);
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        let refusal = Sqlite::open(&path).unwrap_err();
        assert!(
            matches!(refusal, StoreError::Damaged { .. }),
            "{sql}: {refusal}"
        );
    }
}

#[test]
fn user_visible_errors_contain_no_sql() {
    let (_folder, mut store) = open();
    store.connection.execute_batch("DROP TABLE meta").unwrap();
    for refusal in [
        store.seed().unwrap_err(),
        store.commit(&[]).unwrap_err(),
        store.replace(&[]).unwrap_err(),
    ] {
        let text = refusal.to_string();
        assert_eq!(text, "the store failed: the agent's log has the details");
    }
}

#[test]
fn an_empty_file_is_a_damaged_store() {
    let (folder, store) = open();
    drop(store);
    let path = folder.path().join("deep/state.db");
    fs::write(&path, "").unwrap();
    let refusal = Sqlite::open(&path).unwrap_err();
    assert!(matches!(refusal, StoreError::Damaged { .. }), "{refusal}");
    assert_eq!(fs::read(&path).unwrap(), b"");
    // An incomplete file of an earlier attempt is replaced.
    fs::remove_file(&path).unwrap();
    fs::write(folder.path().join("deep/state.db.new"), "begun").unwrap();
    Sqlite::open(&path).unwrap();
}
