//! Creating and deleting a tenant's credentials: tokens and identities.

use crate::model::{
    Change, Identity, Kind, Name, Object, OpContext, Problem, ProblemCode, Record, Reference,
    State, Token,
    identity::IdentityRequest,
    operations::{Policy, existing_tenant, refuse_existing},
    record::{Labels, checked_labels},
    token::{TokenHash, TokenRequest},
};

/// Maximum number of tokens, and of identities, of a tenant.
const MAX_OBJECTS: usize = 1_000;

/// Creates a token. `text` is the secret, which is shown once; the state has only its hash.
///
/// # Errors
/// The tenant does not exist, the name is in use, the time of expiry is past, or the tenant has too many tokens.
pub fn create_token(
    state: &State,
    context: &mut OpContext<'_>,
    tenant: &Name,
    request: TokenRequest,
    text: &str,
) -> Result<Vec<Change>, Problem> {
    existing_tenant(state, tenant)?;
    let reference = Reference::new(tenant.clone(), request.name.clone());
    let exists = state.tokens.contains_key(&reference);
    refuse_existing(exists, Kind::Token, &reference)?;
    if request.expires_at.is_some_and(|end| end <= context.now) {
        return Err(Problem::invalid(
            "expires_at",
            format!("expires_at is in the past: the time is {}", context.now),
        ));
    }
    check_count(Kind::Token, State::owned_by(&state.tokens, tenant).count())?;
    let labels = checked_labels(request.labels, &Labels::new())?;
    let token = Token {
        role: request.role,
        expires_at: request.expires_at,
        hash: TokenHash::from_text(text),
    };
    let record = Record::create(context, request.name, labels, token);
    Ok(vec![Change::Put(Object::Token(tenant.clone(), record))])
}

/// Deletes a token, which revokes it.
///
/// # Errors
/// The token does not exist.
pub fn delete_token(state: &State, reference: &Reference) -> Result<Vec<Change>, Problem> {
    existing_tenant(state, &reference.tenant)?;
    let record = state.tokens.get(reference);
    let record = record.ok_or_else(|| Problem::not_found(Kind::Token, reference))?;
    let object = Object::Token(reference.tenant.clone(), record.clone());
    Ok(vec![Change::Delete(object)])
}

/// Creates an identity: a mapping of an external identity to a role in the tenant.
///
/// # Errors
/// The tenant does not exist, the name is in use, the claim can't match, or the tenant has too many identities.
pub fn create_identity(
    state: &State,
    context: &mut OpContext<'_>,
    policy: &Policy,
    tenant: &Name,
    request: IdentityRequest,
) -> Result<Vec<Change>, Problem> {
    existing_tenant(state, tenant)?;
    let reference = Reference::new(tenant.clone(), request.name.clone());
    let identity = Identity {
        claim: request.claim(&policy.issuers, &policy.authorities)?,
        role: request.role,
    };
    let labels = checked_labels(request.labels, &Labels::new())?;
    if let Some(existing) = state.identities.get(&reference) {
        if existing.object == identity && existing.meta.labels == labels {
            return Ok(Vec::new());
        }
        refuse_existing(true, Kind::Identity, &reference)?;
    }
    let has = State::owned_by(&state.identities, tenant).count();
    check_count(Kind::Identity, has)?;
    let record = Record::create(context, request.name, labels, identity);
    Ok(vec![Change::Put(Object::Identity(tenant.clone(), record))])
}

/// Deletes an identity, which revokes the role of those whom it matched.
///
/// # Errors
/// The identity does not exist.
pub fn delete_identity(state: &State, reference: &Reference) -> Result<Vec<Change>, Problem> {
    existing_tenant(state, &reference.tenant)?;
    let record = state.identities.get(reference);
    let record = record.ok_or_else(|| Problem::not_found(Kind::Identity, reference))?;
    let object = Object::Identity(reference.tenant.clone(), record.clone());
    Ok(vec![Change::Delete(object)])
}

fn check_count(kind: Kind, has: usize) -> Result<(), Problem> {
    if has < MAX_OBJECTS {
        return Ok(());
    }
    let detail = format!("a tenant has at most {MAX_OBJECTS} {}", kind.plural());
    Err(Problem::new(ProblemCode::LimitReached, detail))
}
