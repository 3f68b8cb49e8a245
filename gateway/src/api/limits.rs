//! Limits of request bodies, by route and caller.

use crate::{api::decode::DecodeBounds, model::Principal, store::backup};

/// A class of routes with the same body limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyClass {
    /// One object, or a decision about a connection.
    Object,
    /// A manifest of many objects.
    Manifest,
}

/// Limits of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyLimits {
    /// Maximum size in bytes.
    pub(super) bytes: usize,
    /// Bounds of the decoded content.
    pub(super) bounds: DecodeBounds,
}

const OBJECT_LIMITS: BodyLimits = BodyLimits {
    bytes: 1 << 20,
    bounds: DecodeBounds {
        memory: 8 << 20,
        elements: 10_000,
    },
};

/// Limits of a tenant's manifest: 10,000 endpoints with their connections fit.
const TENANT_MANIFEST_LIMITS: BodyLimits = BodyLimits {
    bytes: 4 << 20,
    bounds: DecodeBounds {
        memory: 16 << 20,
        elements: 20_000,
    },
};

/// Limits of the operator's manifest: 100,000 endpoints with their connections fit (25 MB of text, 65 MB decoded).
const OPERATOR_MANIFEST_LIMITS: BodyLimits = BodyLimits {
    bytes: 48 << 20,
    bounds: DecodeBounds {
        memory: 72 << 20,
        elements: 250_000,
    },
};

/// The largest backup that the operator may restore, in bytes.
pub(super) const MAX_BACKUP_BYTES: usize = backup::MAX_BYTES;

impl BodyLimits {
    /// Returns the limits of a caller's body.
    pub(super) fn for_caller(class: BodyClass, caller: &Principal) -> Self {
        match class {
            BodyClass::Object => OBJECT_LIMITS,
            BodyClass::Manifest if caller.is_operator() => OPERATOR_MANIFEST_LIMITS,
            BodyClass::Manifest => TENANT_MANIFEST_LIMITS,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::decode::decode,
        model::{Problem, ProblemCode, manifest::Manifest},
    };

    /// Decodes a manifest of `endpoints` endpoints, each with its connection.
    fn decoded(endpoints: usize, limits: BodyLimits) -> Result<usize, Problem> {
        let endpoint = |number: usize| -> Value {
            json!({
                "tenant": "consumer", "name": format!("endpoint-{number}"), "network": "net",
                "addresses": [format!("10.0.{}.{}", number / 256 % 256, number % 256)],
                "service": "web.aaaaaaaaaaaaaaaa.privatelink.internal", "resource": "default",
                "request_message": "",
            })
        };
        let connection = |number: usize| -> Value {
            json!({ "endpoint": format!("consumer/endpoint-{number}"), "state": "Approved" })
        };
        let body = json!({
            "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
            "connections": (0..endpoints).map(connection).collect::<Vec<_>>(),
        });
        let body = body.to_string();
        assert!(body.len() <= limits.bytes, "{} bytes", body.len());
        let manifest: Manifest = decode(body.as_bytes(), limits.bounds)?;
        Ok(manifest.endpoints.len())
    }

    #[test]
    fn manifests_of_the_documented_sizes_fit() {
        assert_eq!(decoded(100_000, OPERATOR_MANIFEST_LIMITS), Ok(100_000));
        assert_eq!(decoded(10_000, TENANT_MANIFEST_LIMITS), Ok(10_000));
        let refusal = decoded(
            15_000,
            BodyLimits {
                bytes: usize::MAX,
                ..OBJECT_LIMITS
            },
        );
        assert_eq!(refusal.unwrap_err().code, ProblemCode::TooLarge);
    }
}
