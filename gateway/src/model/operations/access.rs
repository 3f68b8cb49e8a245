//! Creating and revoking what a tenant's users come with: tokens and identities.

use crate::model::{
    Change, Code, Context, Identity, Kind, Name, Object, Problem, Record, Reference, State, Token,
    identity::IdentityRequest,
    operations::{Policy, refuse_existing, tenant_of},
    record::{Labels, checked_labels},
    token::{TokenHash, TokenRequest},
};

/// The most tokens, and the most identities, that a tenant has.
const MOST: usize = 1_000;

/// Creates a token; its text is the secret that is shown once.
///
/// # Errors
/// There is no such tenant, the name is taken, or the time is past.
pub fn create_token(
    state: &State,
    context: &mut Context<'_>,
    tenant: &Name,
    request: TokenRequest,
    text: &str,
) -> Result<Vec<Change>, Problem> {
    tenant_of(state, tenant)?;
    let reference = Reference::new(tenant.clone(), request.name.clone());
    let exists = state.tokens.contains_key(&reference);
    refuse_existing(exists, Kind::Token, &reference)?;
    if request.expires_at.is_some_and(|end| end <= context.now) {
        return Err(Problem::invalid(
            "expires_at",
            format!(
                "the token would have expired already: it is {}",
                context.now
            ),
        ));
    }
    check_number(Kind::Token, State::owned(&state.tokens, tenant).count())?;
    let labels = checked_labels(request.labels, &Labels::new())?;
    let token = Token {
        role: request.role,
        expires_at: request.expires_at,
        hash: TokenHash::of(text),
    };
    let record = Record::create(context, request.name, labels, token);
    Ok(vec![Change::Put(Object::Token(tenant.clone(), record))])
}

/// Revokes a token: from now on it is unknown.
///
/// # Errors
/// There is none of the name.
pub fn delete_token(state: &State, reference: &Reference) -> Result<Vec<Change>, Problem> {
    tenant_of(state, &reference.tenant)?;
    let record = state.tokens.get(reference);
    let record = record.ok_or_else(|| Problem::not_found(Kind::Token, reference))?;
    let object = Object::Token(reference.tenant.clone(), record.clone());
    Ok(vec![Change::Delete(object)])
}

/// Says who, of those that another system knows, acts for the tenant.
///
/// # Errors
/// There is no such tenant, the name is taken, or nobody can be recognised by that.
pub fn create_identity(
    state: &State,
    context: &mut Context<'_>,
    policy: &Policy,
    tenant: &Name,
    request: IdentityRequest,
) -> Result<Vec<Change>, Problem> {
    tenant_of(state, tenant)?;
    let reference = Reference::new(tenant.clone(), request.name.clone());
    let identity = Identity {
        claim: request.claim(&policy.issuers, &policy.authorities)?,
        role: request.role,
    };
    let labels = checked_labels(request.labels, &Labels::new())?;
    if let Some(there) = state.identities.get(&reference) {
        if there.object == identity && there.meta.labels == labels {
            return Ok(Vec::new());
        }
        refuse_existing(true, Kind::Identity, &reference)?;
    }
    let has = State::owned(&state.identities, tenant).count();
    check_number(Kind::Identity, has)?;
    let record = Record::create(context, request.name, labels, identity);
    Ok(vec![Change::Put(Object::Identity(tenant.clone(), record))])
}

/// Removes an identity: from now on those who were meant act for the tenant no more.
///
/// # Errors
/// There is none of the name.
pub fn delete_identity(state: &State, reference: &Reference) -> Result<Vec<Change>, Problem> {
    tenant_of(state, &reference.tenant)?;
    let record = state.identities.get(reference);
    let record = record.ok_or_else(|| Problem::not_found(Kind::Identity, reference))?;
    let object = Object::Identity(reference.tenant.clone(), record.clone());
    Ok(vec![Change::Delete(object)])
}

fn check_number(kind: Kind, has: usize) -> Result<(), Problem> {
    if has < MOST {
        return Ok(());
    }
    let detail = format!("a tenant has at most {MOST} {}", kind.plural());
    Err(Problem::new(Code::LimitReached, detail))
}
