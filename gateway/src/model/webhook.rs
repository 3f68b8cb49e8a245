//! Webhooks: HTTPS URLs of tenants, to which the gateway delivers their events.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Name, Problem, event_id::EventId, limits, record::Labels, schema, text};

/// Stored webhook.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// URL that events are sent to.
    pub url: String,
    /// Key of the signatures. The API returns it only when the webhook is created.
    pub secret: String,
    /// Last event before the webhook was created. Only later events are sent.
    pub since: EventId,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("url", &self.url)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

/// Delivery status of a webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookStatus {
    /// Last event that was delivered, or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Uuid)]
    pub delivered: Option<EventId>,
    /// Number of attempts that have failed since then.
    pub failures: u32,
    /// Number of lost events: given up after a day, or evicted from the tenant's trail before their delivery.
    #[serde(default)]
    pub events_lost: u64,
    /// Reason why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Request to create a webhook.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// Name of the webhook.
    pub name: Name,
    /// URL that events are sent to: `https://...`, or `http://...` within trusted networks. The port is 80, 443 or
    /// above 1023.
    #[schema(max_length = 2000)]
    pub url: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Labels>)]
    pub labels: Option<Labels>,
}

impl WebhookRequest {
    /// Checks the URL.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        text::check("url", &self.url, limits::MAX_URL)?;
        check_url(&self.url)?;
        // Stored webhooks are not checked for their port: events are not sent to one of an earlier version on another
        // port, but it must not prevent a start.
        let port = reqwest::Url::parse(&self.url)
            .ok()
            .and_then(|url| url.port_or_known_default());
        if port.is_some_and(is_permitted_port) {
            return Ok(());
        }
        Err(Problem::invalid(
            "url",
            format!("{PERMITTED_PORTS}: choose another port"),
        ))
    }
}

/// Refuses a URL that events can't be sent to.
fn check_url(url: &str) -> Result<(), Problem> {
    let problem = |text: String| Err(Problem::invalid("url", text));
    if url.len() > limits::MAX_URL {
        return problem(format!("url has at most {} bytes", limits::MAX_URL));
    }
    match reqwest::Url::parse(url) {
        Err(error) => problem(format!("{url:?} is not a URL: {error}")),
        Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => problem(
            "events can only be sent by HTTP: use a URL that starts with http:// or https://"
                .to_owned(),
        ),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => problem(
            "a URL with a password would reveal it: leave it out and check the signature instead"
                .to_owned(),
        ),
        Ok(_) => Ok(()),
    }
}

/// Rule for the ports of webhooks, as the first half of an error message.
const PERMITTED_PORTS: &str = "events are sent to port 80, port 443, or a port above 1023";

/// Returns true if a webhook may use the port: the ports of HTTP and HTTPS, and unprivileged ports. Other system ports
/// (RFC 6335, section 6) belong to protocols that may interpret the lines of a request as commands.
#[must_use]
pub const fn is_permitted_port(port: u16) -> bool {
    matches!(port, 80 | 443 | 1_024..)
}

/// Returns the text of a new secret in the format of Standard Webhooks.
#[must_use]
pub fn new_secret(secret: [u8; 32]) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(secret))
}

/// Prefix of a secret's text.
const SECRET_PREFIX: &str = "whsec_";

impl Webhook {
    /// Refuses a stored webhook that no request can create. A secret without a key would sign with the empty key, which
    /// anyone can use.
    ///
    /// # Errors
    /// Fails with [`ProblemCode::Invalid`](crate::model::ProblemCode::Invalid), for the field.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        const MIN_KEY_BYTES: usize = 16;
        check_url(&self.url)?;
        let key = self.secret.strip_prefix(SECRET_PREFIX);
        let key = key.and_then(|text| STANDARD.decode(text).ok());
        if key.is_none_or(|key| key.len() < MIN_KEY_BYTES) {
            return Err(Problem::invalid("secret", "its secret contains no key"));
        }
        Ok(())
    }

    /// Returns the value of the `webhook-signature` header: HMAC-SHA256 over identifier, time and body, in the format
    /// of Standard Webhooks.
    #[must_use]
    pub fn signature(&self, id: &str, timestamp: i64, body: &str) -> String {
        let text = self.secret.trim_start_matches(SECRET_PREFIX);
        let key = STANDARD.decode(text).unwrap_or_default();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let tag = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_matches_the_standard_webhooks_example() {
        // The example of the specification's reference implementations.
        let webhook = Webhook {
            url: "https://example.com".to_owned(),
            secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
            since: EventId::default(),
        };
        let body = "{\"test\": 2432232314}";
        assert_eq!(
            webhook.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn urls_are_checked() {
        let check = |url: &str| {
            let request = WebhookRequest {
                name: "w".parse().unwrap(),
                url: url.to_owned(),
                labels: None,
            };
            request.check().is_ok()
        };
        assert!(check("https://example.com/hook?x=1") && check("http://10.0.0.1:8080"));
        for wrong in [
            "",
            "ftp://x",
            "https://",
            "https://u:p@x/",
            "x",
            "https://x:22/",
            "http://x:25/",
        ] {
            assert!(!check(wrong), "{wrong}");
        }
    }

    #[test]
    fn ports_of_other_protocols_are_refused() {
        for port in [80, 443, 1_024, 8_443, 65_535] {
            assert!(is_permitted_port(port), "{port}");
        }
        for port in [0, 1, 22, 25, 53, 79, 81, 179, 444, 1_023] {
            assert!(!is_permitted_port(port), "{port}");
        }
    }
}
