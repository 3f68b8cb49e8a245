//! Isolation of audit trails between tenants, escaping of terminal output, and limits of values and tenants.

mod limits;
mod terminal;
mod trail;

/// Checks that output holds no forbidden character, and no line that a value forged.
fn assert_no_control_characters(output: &[u8]) {
    let text = String::from_utf8(output.to_vec()).expect("UTF-8");
    let bad = |c: char| c != '\n' && gateway::model::text::is_forbidden(c);
    assert!(!text.chars().any(bad), "{text:?}");
    assert!(
        !text.lines().any(|line| line.starts_with("forged")),
        "{text:?}"
    );
}
