//! One attempt at a delivery.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Result;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;
use tokio::{sync::OnceCell, time::sleep_until};

use crate::{
    agent::tasks::webhook_sender::destination::{PermittedResolver, TENANT, check_destination},
    config::Config,
    events::webhook_queue::Delivery,
    model::{Access, Principal, Role, event::Event},
    outbound::{self, CALL_TIMEOUT},
};

/// Body of a delivery.
#[derive(Serialize)]
struct WebhookPayload<'a> {
    /// Kind of object and action, for example `endpoint.requested`.
    #[serde(rename = "type")]
    kind: String,
    timestamp: Timestamp,
    data: &'a Event,
}

/// Time after which a destination that could not be reached is reported, counted from the attempt's start. This is
/// longer than any attempt, so that the time reveals nothing about the cause.
const UNREACHABLE_DELAY: Duration = Duration::from_secs(6);
const _: () = assert!(UNREACHABLE_DELAY.as_secs() > CALL_TIMEOUT.as_secs());

/// Reason why an event could not be delivered.
#[derive(Debug)]
pub(super) enum Failure {
    /// Status other than success that the receiver answered with.
    Status(u16),
    /// Reason why no HTTP answer came.
    Unreachable(String),
    /// Reason why the gateway itself can't send.
    Unable(String),
}

impl Failure {
    /// Returns the sentence that the tenant sees.
    ///
    /// The sentence is the same for a name without addresses, a forbidden address, a closed or filtered port and a
    /// failed TLS handshake: otherwise tenants could use webhooks to explore networks that only the gateway can reach.
    pub(super) fn public_message(&self) -> String {
        match self {
            Self::Status(status) => format!("the receiver answered with status {status}"),
            Self::Unreachable(_) => "the receiver could not be reached: check name, port and \
                                     certificate, or ask the gateway's operator, whose log has the \
                                     details"
                .to_owned(),
            Self::Unable(_) => {
                "the gateway can't call webhooks: ask its operator, whose log has the details"
                    .to_owned()
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "answered with status {status}"),
            Self::Unreachable(detail) => write!(f, "unreachable: {detail}"),
            Self::Unable(detail) => write!(f, "unable to send: {detail}"),
        }
    }
}

/// HTTP client for webhooks, which refuses forbidden destinations.
pub(crate) struct WebhookSender {
    /// Built when it is first needed, so that a host without webhooks needs no certificate authorities.
    client: OnceCell<reqwest::Client>,
    authorities: Option<PathBuf>,
    networks: Arc<[IpNet]>,
}

impl WebhookSender {
    /// Returns a sender as configured.
    ///
    /// # Errors
    /// When the file of certificate authorities can't be read.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let sender = Self {
            client: OnceCell::new(),
            authorities: config.outbound_ca.clone(),
            networks: config.webhook_networks.clone().into(),
        };
        if sender.authorities.is_some() {
            sender.client.set(sender.build_client()?).ok();
        }
        Ok(sender)
    }

    fn build_client(&self) -> Result<reqwest::Client> {
        outbound::client(self.authorities.as_deref(), |builder| {
            builder.dns_resolver(Arc::new(PermittedResolver::new(&self.networks)))
        })
    }

    /// Makes one attempt at a delivery. An attempt that finds the destination unreachable always takes
    /// [`UNREACHABLE_DELAY`].
    pub(super) async fn deliver(&self, delivery: &Delivery) -> Result<(), Failure> {
        let start = tokio::time::Instant::now();
        let outcome = self.send(delivery).await;
        if matches!(outcome, Err(Failure::Unreachable(_))) {
            sleep_until(start + UNREACHABLE_DELAY).await;
        }
        outcome
    }

    async fn send(&self, delivery: &Delivery) -> Result<(), Failure> {
        let viewer = Principal {
            identity: String::new(),
            name: String::new(),
            from: String::new(),
            access: Access::Tenants([(delivery.reference.tenant.clone(), Role::Viewer)].into()),
        };
        let Some(event) = delivery.recorded.redacted_for(&viewer) else {
            return Ok(());
        };
        let unable = |error: &dyn fmt::Display| Failure::Unable(error.to_string());
        let url = reqwest::Url::parse(&delivery.webhook.url).map_err(|error| unable(&error))?;
        check_destination(&url, &self.networks).map_err(Failure::Unreachable)?;
        let message = WebhookPayload {
            kind: format!("{}.{}", event.kind, event.action),
            timestamp: event.at,
            data: &event,
        };
        let body = serde_json::to_string(&message).map_err(|error| unable(&error))?;
        let id = format!("{}-{}", delivery.uid.simple(), event.id);
        let now = Timestamp::now().as_second();
        let client = self
            .client
            .get_or_try_init(async || self.build_client())
            .await;
        let client = client.map_err(|error| Failure::Unable(format!("{error:#}")))?;
        let sending = client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", now)
            .header(
                "webhook-signature",
                delivery.webhook.signature(&id, now, &body),
            )
            .body(body)
            .send();
        let tenant = delivery.reference.tenant.clone();
        let response = TENANT.scope(tenant, sending).await;
        // The body of the response is not read; dropping the response closes the connection.
        match response {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(Failure::Status(response.status().as_u16())),
            Err(error) => {
                let error = anyhow::Error::from(error.without_url());
                Err(Failure::Unreachable(format!("{error:#}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    pub(super) fn public_message_hides_the_cause_of_an_unreachable_receiver() {
        let sentence = |detail: &str| Failure::Unreachable(detail.to_owned()).public_message();
        assert_eq!(sentence("connection refused"), sentence("no such name"));
        assert!(!sentence("10.0.0.1 refused").contains("10.0.0.1"));
        assert_eq!(
            Failure::Status(503).public_message(),
            "the receiver answered with status 503"
        );
    }
}
