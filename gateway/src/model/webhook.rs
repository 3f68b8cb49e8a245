//! Webhooks: where a tenant wants to be told of events.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Name, Problem, event_id::EventId, limits, record::Labels, schema, text};

/// A webhook.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Where events are sent.
    pub url: String,
    /// The key of the signatures; shown once, when it is made.
    pub secret: String,
    /// Only events after this one are sent.
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

/// What a user says of a new webhook.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// The webhook's name.
    pub name: Name,
    /// Where events are sent: `https://...`, or `http://...` within networks that are trusted. The port is 80, 443 or
    /// above 1023.
    #[schema(max_length = 2000)]
    pub url: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Labels>)]
    pub labels: Option<Labels>,
}

impl WebhookRequest {
    /// Checks the address.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        text::check("url", &self.url, limits::MAX_URL)?;
        check_url(&self.url)?;
        // Only of new webhooks: one of an earlier version on another port is not called, but no reason not to start.
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

/// Refuses addresses that events can't be sent to.
fn check_url(url: &str) -> Result<(), Problem> {
    let problem = |text: String| Err(Problem::invalid("url", text));
    if url.len() > limits::MAX_URL {
        return problem(format!("url has at most {} bytes", limits::MAX_URL));
    }
    match reqwest::Url::parse(url) {
        Err(error) => problem(format!("{url:?} is no URL: {error}")),
        Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {
            problem("events are sent to http:// or https:// addresses".to_owned())
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => problem(
            "a URL with a password in it would show it: check the signature instead".to_owned(),
        ),
        Ok(_) => Ok(()),
    }
}

/// Rule for the ports of webhooks, as the beginning of a sentence.
const PERMITTED_PORTS: &str = "events are sent to port 80, port 443, or a port above 1023";

/// Returns whether a webhook may be on the port: those of HTTP and HTTPS, and those that any user may open. Other
/// well-known ports (RFC 6335, section 6) belong to protocols that may take the lines of a request for commands.
#[must_use]
pub const fn is_permitted_port(port: u16) -> bool {
    matches!(port, 80 | 443 | 1_024..)
}

/// The text of a new secret, as Standard Webhooks has it.
#[must_use]
pub fn new_secret(secret: [u8; 32]) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(secret))
}

/// What a secret's text begins with.
const SECRET_PREFIX: &str = "whsec_";

impl Webhook {
    /// Refuses a stored webhook that no request makes. A secret without a key would sign with an empty
    /// one, which everybody knows.
    ///
    /// # Errors
    /// [`Code::Invalid`](crate::model::Code::Invalid), for the field.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        const MIN_KEY_BYTES: usize = 16;
        check_url(&self.url)?;
        let key = self.secret.strip_prefix(SECRET_PREFIX);
        let key = key.and_then(|text| STANDARD.decode(text).ok());
        if key.is_none_or(|key| key.len() < MIN_KEY_BYTES) {
            return Err(Problem::invalid("secret", "its secret holds no key"));
        }
        Ok(())
    }

    /// The value of the `webhook-signature` header: HMAC-SHA256 over id, time and body, as Standard
    /// Webhooks has it.
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
    fn the_signature_is_that_of_standard_webhooks() {
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
    fn addresses() {
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
