//! Client certificates and their CAs, tokens of OIDC issuers, and the outbound requests of webhooks.

mod certificates;
mod oidc;
mod webhooks;

use serde_json::Value;

/// Returns the JSON body of a 200 response.
fn json_of((status, text): (u16, String)) -> Value {
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}
