//! Aliases of services.

use crate::model::{Name, OpContext, Problem, ProblemCode, State, operations::Policy};

/// Returns a random alias that no service has.
pub(super) fn generate_alias(
    state: &State,
    context: &mut OpContext<'_>,
    policy: &Policy,
    name: &Name,
) -> String {
    loop {
        let random = context.identifiers.alias_part();
        let alias = format!("{name}.{random}.{}", policy.alias_domain);
        if state.service_by_alias(&alias).is_none() {
            return alias;
        }
    }
}

/// Returns true if the text has the form of the service's aliases: `NAME.RANDOM.DOMAIN`.
pub(crate) fn is_alias_for(name: &Name, alias: &str) -> bool {
    let is_random = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        part.len() == 16 && part.bytes().all(allowed)
    };
    let suffix = alias
        .strip_prefix(name.as_str())
        .and_then(|rest| rest.strip_prefix('.'));
    let (random, domain) = suffix
        .and_then(|rest| rest.split_once('.'))
        .unwrap_or_default();
    let is_domain = !domain.is_empty()
        && domain.len() <= 150
        && domain
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
    is_random(random) && is_domain
}

/// Returns the alias if it has the form of an alias and is free.
pub(super) fn checked_alias(state: &State, name: &Name, alias: String) -> Result<String, Problem> {
    if !is_alias_for(name, &alias) {
        let shown: String = alias.chars().take(100).collect();
        return Err(Problem::invalid(
            "alias",
            format!("{shown:?} is not an alias of {name}: use NAME.RANDOM.DOMAIN"),
        ));
    }
    if state.service_by_alias(&alias).is_some() {
        return Err(
            Problem::new(ProblemCode::InUse, format!("the alias {alias} is in use")).at("alias"),
        );
    }
    Ok(alias)
}
