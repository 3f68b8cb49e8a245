//! Creating and deleting webhooks.

use crate::model::{
    Change, Code, Context, Kind, Name, Object, Problem, Record, Reference, State, Webhook,
    event_id::EventId,
    operations::{refuse_existing, tenant_of},
    record::{Labels, checked_labels},
    webhook::WebhookRequest,
};

/// The most webhooks that a tenant has.
const MOST: usize = 16;

/// Creates a webhook, which is told of events after `since`.
///
/// # Errors
/// There is no such tenant, the name is taken, or the address is none.
pub fn create_webhook(
    state: &State,
    context: &mut Context<'_>,
    tenant: &Name,
    request: WebhookRequest,
    secret: String,
    since: EventId,
) -> Result<Vec<Change>, Problem> {
    tenant_of(state, tenant)?;
    let reference = Reference::new(tenant.clone(), request.name.clone());
    let exists = state.webhooks.contains_key(&reference);
    refuse_existing(exists, Kind::Webhook, &reference)?;
    request.check()?;
    if State::owned(&state.webhooks, tenant).count() >= MOST {
        let detail = format!("a tenant has at most {MOST} webhooks");
        return Err(Problem::new(Code::LimitReached, detail));
    }
    let labels = checked_labels(request.labels, &Labels::new())?;
    let webhook = Webhook {
        url: request.url,
        secret,
        since,
    };
    let record = Record::create(context, request.name, labels, webhook);
    Ok(vec![Change::Put(Object::Webhook(tenant.clone(), record))])
}

/// Deletes a webhook.
///
/// # Errors
/// There is none of the name.
pub fn delete_webhook(state: &State, reference: &Reference) -> Result<Vec<Change>, Problem> {
    tenant_of(state, &reference.tenant)?;
    let record = state.webhooks.get(reference);
    let record = record.ok_or_else(|| Problem::not_found(Kind::Webhook, reference))?;
    let object = Object::Webhook(reference.tenant.clone(), record.clone());
    Ok(vec![Change::Delete(object)])
}
