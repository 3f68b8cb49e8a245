//! The webhook sender: delivers events to webhooks at least once, in order, with retries after failures.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use ipnet::IpNet;
use jiff::Timestamp;
use log::{info, warn};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde::Serialize;
use tokio::{
    sync::OnceCell,
    task::JoinSet,
    time::{sleep, sleep_until},
};

use crate::{
    agent::Agent,
    config::Config,
    events::webhook_queue::Delivery,
    model::{self, Access, Principal, Role, event::Event, webhook::is_permitted_port},
    outbound::{
        self, CALL_TIMEOUT, destination::is_permitted, dns::BoundedResolver,
        interface_addresses::InterfaceAddresses,
    },
};

/// Time to wait for an event when no retry is scheduled.
const MAX_IDLE_WAIT: Duration = Duration::from_secs(3_600);

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

tokio::task_local! {
    /// Tenant whose webhook the current task calls. The resolver needs it, but its interface passes only a host name.
    static TENANT: model::Name;
}

/// Reason why an event could not be delivered.
#[derive(Debug)]
enum Failure {
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
    fn public_message(&self) -> String {
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
pub struct WebhookSender {
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
    pub fn new(config: &Config) -> Result<Self> {
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
            builder.dns_resolver(Arc::new(Resolver {
                networks: Arc::clone(&self.networks),
                lookups: Arc::default(),
            }))
        })
    }

    /// Makes one attempt at a delivery. An attempt that finds the destination unreachable always takes
    /// [`UNREACHABLE_DELAY`].
    async fn deliver(&self, delivery: &Delivery) -> Result<(), Failure> {
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

/// Refuses a URL with a forbidden port or literal address. Names are checked when they are resolved.
fn check_destination(url: &reqwest::Url, networks: &[IpNet]) -> Result<(), String> {
    let port = url.port_or_known_default().unwrap_or(0);
    if !is_permitted_port(port) {
        return Err(format!("webhooks may not use port {port}"));
    }
    let literal = url.host_str().unwrap_or_default();
    let literal = literal.trim_start_matches('[').trim_end_matches(']');
    let Ok(address) = literal.parse() else {
        return Ok(());
    };
    let own = InterfaceAddresses::read().map_err(|error| error.to_string())?;
    if is_permitted(address, own.contains(address), networks) {
        return Ok(());
    }
    Err(forbidden_destination(&[address]))
}

fn forbidden_destination(addresses: &[IpAddr]) -> String {
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!(
        "no webhook may be at {}: allow the network with webhook_networks, an address of this host by itself",
        shown.join(", ")
    )
}

/// Resolver that returns only permitted addresses. The connection goes to one of these, so a name whose addresses
/// change between check and connection (DNS rebinding) gains nothing.
struct Resolver {
    networks: Arc<[IpNet]>,
    lookups: Arc<BoundedResolver>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let networks = Arc::clone(&self.networks);
        let lookups = Arc::clone(&self.lookups);
        let tenant = TENANT.try_with(Clone::clone).ok();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let resolved = lookups.resolve(tenant.as_ref(), host).await?;
            let own = InterfaceAddresses::read()?;
            let permitted = |address: &&SocketAddr| {
                let address = address.ip();
                is_permitted(address, own.contains(address), &networks)
            };
            let allowed: Vec<SocketAddr> = resolved.iter().filter(permitted).copied().collect();
            if allowed.is_empty() {
                let addresses: Vec<IpAddr> = resolved.iter().map(SocketAddr::ip).collect();
                return Err(forbidden_destination(&addresses).into());
            }
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

/// Delivers events to webhooks until the process ends.
pub async fn run(agent: Arc<Agent>, sender: WebhookSender) {
    let sender = Arc::new(sender);
    let mut last = agent.controller.lock().await.event_log.subscribe();
    let mut sending = JoinSet::new();
    loop {
        last.mark_unchanged();
        let due = {
            let mut controller = agent.controller.lock().await;
            controller.due_deliveries(Instant::now())
        };
        for delivery in due.deliveries {
            let sender = Arc::clone(&sender);
            sending.spawn(async move {
                let outcome = sender.deliver(&delivery).await;
                (delivery, outcome)
            });
        }
        let pause = due.next.map_or(MAX_IDLE_WAIT, |next| {
            next.saturating_duration_since(Instant::now())
        });
        tokio::select! {
            changed = last.changed() => if changed.is_err() {
                return;
            },
            Some(Ok((delivery, outcome))) = sending.join_next() => {
                if let Err(failure) = &outcome {
                    info!("webhook: delivery failed webhook={} reason={failure}", delivery.reference);
                }
                let outcome = outcome.map_err(|failure| failure.public_message());
                let mut controller = agent.controller.lock().await;
                if let Err(error) = controller.record_delivery(&delivery, outcome, Instant::now()) {
                    warn!("webhook: cursor not stored webhook={} error=\"{error}\"", delivery.reference);
                }
            }
            () = sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_addresses_and_ports_are_checked_in_every_notation() {
        let refused = |url: &str| {
            let url = reqwest::Url::parse(url).unwrap();
            check_destination(&url, &[]).is_err()
        };
        for url in [
            "https://127.0.0.1/",
            "https://127.0.0.1./",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://10.0.0.1:8443/",
            "https://8.8.8.8:22/",
            "http://8.8.8.8:25/",
        ] {
            assert!(refused(url), "{url}");
        }
        for url in [
            "https://8.8.8.8/",
            "http://8.8.8.8:8080/",
            "https://name.example/",
        ] {
            assert!(!refused(url), "{url}");
        }
    }

    #[test]
    fn public_message_hides_the_cause_of_an_unreachable_receiver() {
        let sentence = |detail: &str| Failure::Unreachable(detail.to_owned()).public_message();
        assert_eq!(sentence("connection refused"), sentence("no such name"));
        assert!(!sentence("10.0.0.1 refused").contains("10.0.0.1"));
        assert_eq!(
            Failure::Status(503).public_message(),
            "the receiver answered with status 503"
        );
    }

    /// Resolver that records the tenants of its requests, and finds no address.
    struct RecordingResolver(std::sync::Mutex<Vec<Option<model::Name>>>);

    impl Resolve for RecordingResolver {
        fn resolve(&self, _: Name) -> Resolving {
            let tenant = TENANT.try_with(Clone::clone).ok();
            self.0.lock().unwrap().push(tenant);
            Box::pin(async { Err("no such name".into()) })
        }
    }

    #[tokio::test]
    async fn resolver_sees_the_tenant_of_the_webhook() {
        // Another test may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let resolver = Arc::new(RecordingResolver(std::sync::Mutex::default()));
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .pool_max_idle_per_host(0)
            .dns_resolver(Arc::clone(&resolver))
            .build()
            .unwrap();
        let tenant: model::Name = "a".parse().unwrap();
        let sending = client.post("http://receiver.example/").send();
        assert!(TENANT.scope(tenant.clone(), sending).await.is_err());
        assert_eq!(*resolver.0.lock().unwrap(), [Some(tenant)]);
    }
}
