//! Creating and deleting webhooks.

use crate::model::{
    Change, Kind, Name, Object, OpContext, Problem, ProblemCode, Record, Reference, State, Webhook,
    operations::{existing_tenant, refuse_existing},
    record::{Labels, checked_labels},
    webhook::WebhookRequest,
};

/// Maximum number of webhooks of a tenant.
const MAX_WEBHOOKS: usize = 16;

/// Creates a webhook, which receives the events from its creation on.
///
/// # Errors
/// The tenant does not exist, the name is in use, the URL is invalid, or the tenant has too many webhooks.
pub fn create_webhook(
    state: &State,
    context: &mut OpContext<'_>,
    tenant: &Name,
    request: WebhookRequest,
    secret: String,
) -> Result<Vec<Change>, Problem> {
    existing_tenant(state, tenant)?;
    let reference = Reference::new(tenant.clone(), request.name.clone());
    let exists = state.webhooks.contains_key(&reference);
    refuse_existing(exists, Kind::Webhook, &reference)?;
    request.check()?;
    if State::owned_by(&state.webhooks, tenant).count() >= MAX_WEBHOOKS {
        let detail = format!("a tenant has at most {MAX_WEBHOOKS} webhooks");
        return Err(Problem::new(ProblemCode::LimitReached, detail));
    }
    let labels = checked_labels(request.labels, &Labels::new())?;
    let webhook = Webhook {
        url: request.url,
        secret,
        since: context.event_boundary,
    };
    let record = Record::create(context, request.name, labels, webhook);
    Ok(vec![Change::Put(Object::Webhook(tenant.clone(), record))])
}

/// Deletes a webhook.
///
/// # Errors
/// The webhook does not exist.
pub fn delete_webhook(state: &State, reference: &Reference) -> Result<Vec<Change>, Problem> {
    existing_tenant(state, &reference.tenant)?;
    let record = state.webhooks.get(reference);
    let record = record.ok_or_else(|| Problem::not_found(Kind::Webhook, reference))?;
    let object = Object::Webhook(reference.tenant.clone(), record.clone());
    Ok(vec![Change::Delete(object)])
}
