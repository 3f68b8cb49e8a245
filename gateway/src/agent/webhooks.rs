//! Telling webhooks of events: at least once each, in order, again after failures.

use std::{
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
use tokio::{sync::OnceCell, task::JoinSet, time::sleep};

use crate::{
    agent::{Agent, deliveries::Delivery},
    auth::oidc::outside_client,
    config::Config,
    model::{Access, Principal, Role, event::Event},
};

/// How long to wait for something to do, where nothing is known to come.
const IDLE: Duration = Duration::from_secs(3_600);

/// What is sent.
#[derive(Serialize)]
struct Message<'a> {
    /// What happened to what: `endpoint.requested`.
    #[serde(rename = "type")]
    kind: String,
    timestamp: Timestamp,
    data: &'a Event,
}

/// Sends to where tenants want it, but not into networks that they might only reach through us.
pub struct Caller {
    /// Made when it is first needed: a host that calls nobody needs no authorities.
    client: OnceCell<reqwest::Client>,
    authorities: Option<PathBuf>,
    networks: Arc<[IpNet]>,
}

impl Caller {
    /// By the configuration.
    ///
    /// # Errors
    /// When the file of authorities can't be read.
    pub fn new(config: &Config) -> Result<Self> {
        let caller = Self {
            client: OnceCell::new(),
            authorities: config.outside_ca.clone(),
            networks: config.webhook_networks.clone().into(),
        };
        if caller.authorities.is_some() {
            caller.client.set(caller.make()?).ok();
        }
        Ok(caller)
    }

    fn make(&self) -> Result<reqwest::Client> {
        outside_client(self.authorities.as_deref(), |builder| {
            builder.dns_resolver(Arc::new(Resolver(Arc::clone(&self.networks))))
        })
    }

    async fn send(&self, delivery: &Delivery) -> Result<(), String> {
        let viewer = Principal {
            name: String::new(),
            from: String::new(),
            access: Access::Tenants([(delivery.reference.tenant.clone(), Role::Viewer)].into()),
        };
        let Some(event) = delivery.recorded.seen_by(&viewer) else {
            return Ok(());
        };
        let url = reqwest::Url::parse(&delivery.webhook.url).map_err(|error| error.to_string())?;
        let literal = url.host_str().unwrap_or_default();
        let literal = literal.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = literal.parse()
            && !may_call(address, &self.networks)
        {
            return Err(forbidden(literal));
        }
        let message = Message {
            kind: format!("{}.{}", event.kind, event.action),
            timestamp: event.at,
            data: &event,
        };
        let body = serde_json::to_string(&message).map_err(|error| error.to_string())?;
        let id = format!("{}-{}", delivery.uid.simple(), event.id);
        let now = Timestamp::now().as_second();
        let client = self.client.get_or_try_init(async || self.make()).await;
        let client = client.map_err(|error| format!("{error:#}"))?;
        let response = client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", now)
            .header(
                "webhook-signature",
                delivery.webhook.signature(&id, now, &body),
            )
            .body(body)
            .send()
            .await;
        match response {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(format!("it answered {}", response.status())),
            Err(error) => {
                let error = anyhow::Error::from(error.without_url());
                Err(format!("{error:#}"))
            }
        }
    }
}

fn forbidden(address: &str) -> String {
    format!(
        "{address} is in no network that webhooks may be in: the operator can allow it with \
         webhook_networks"
    )
}

/// Whether webhooks may be there: on the internet, or where the operator allows it.
fn may_call(address: IpAddr, networks: &[IpNet]) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address)) || is_public(address)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
                || (a == 192 && b == 0 && v4.octets()[2] == 0))
        }
        // Global unicast (RFC 4291), without what leads to IPv4 addresses (RFC 6052, RFC 3056).
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            segments[0] & 0xe000 == 0x2000
                && segments[0] != 0x2002
                && segments[..2] != [0x2001, 0]
                && segments[..2] != [0x2001, 0x0db8]
        }
    }
}

/// Resolves names to addresses that may be called.
struct Resolver(Arc<[IpNet]>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let networks = Arc::clone(&self.0);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found
                .filter(|address| may_call(address.ip(), &networks))
                .collect();
            if allowed.is_empty() {
                return Err(forbidden(name.as_str()).into());
            }
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

/// Tells webhooks of events until the process ends.
pub async fn run(agent: Arc<Agent>, caller: Caller) {
    let caller = Arc::new(caller);
    let mut last = agent.core.lock().await.journal.watch();
    let mut sending = JoinSet::new();
    loop {
        last.mark_unchanged();
        let turn = {
            let mut core = agent.core.lock().await;
            core.due_deliveries(Instant::now())
        };
        for delivery in turn.deliveries {
            let caller = Arc::clone(&caller);
            sending.spawn(async move {
                let outcome = caller.send(&delivery).await;
                (delivery, outcome)
            });
        }
        let pause = turn
            .next
            .map_or(IDLE, |next| next.saturating_duration_since(Instant::now()));
        tokio::select! {
            changed = last.changed() => if changed.is_err() {
                return;
            },
            Some(Ok((delivery, outcome))) = sending.join_next() => {
                match &outcome {
                    Ok(()) => {}
                    Err(error) => info!("webhook {}: {error}", delivery.reference),
                }
                let mut core = agent.core.lock().await;
                if let Err(error) = core.delivered(&delivery, outcome, Instant::now()) {
                    warn!("it could not be put down how far {} is: {error}", delivery.reference);
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
    fn what_only_the_gateway_can_reach_is_not_called() {
        let may = |address: &str, networks: &[IpNet]| may_call(address.parse().unwrap(), networks);
        for public in ["8.8.8.8", "2606:4700::1111"] {
            assert!(may(public, &[]), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "ff02::1",
        ] {
            assert!(!may(private, &[]), "{private}");
        }
        let allowed = ["10.0.0.0/8".parse().unwrap()];
        assert!(may("10.0.0.1", &allowed) && may("::ffff:10.0.0.1", &allowed));
        assert!(!may("127.0.0.1", &allowed));
    }
}
