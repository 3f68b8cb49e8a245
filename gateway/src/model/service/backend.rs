//! Backends: the servers of a resource.

use std::{net::IpAddr, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::schema;

/// Server of a resource, written `ADDRESS[,weight=N][,drain]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Address in the provider's network.
    #[schema(value_type = schema::IpAddress)]
    pub address: IpAddr,
    /// Share of new flows, relative to the weights of the other backends. A backend of weight 0 gets none.
    #[serde(default = "one")]
    pub weight: u16,
    /// Gives the backend no new flows, while its open flows continue.
    #[serde(default)]
    pub drain: bool,
    /// Time after which the flows of a draining backend are reset. Unset: they continue until they end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub drain_deadline: Option<Timestamp>,
}

impl Backend {
    /// Returns true if the backend takes new flows, as far as its settings are concerned.
    #[must_use]
    pub const fn is_in_rotation(&self) -> bool {
        !self.drain && self.weight > 0
    }
}

const fn one() -> u16 {
    1
}

/// Maximum weight of a backend.
pub const MAX_WEIGHT: u16 = 1_000;

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let address = parts.next().unwrap_or_default();
        let address = address
            .parse()
            .map_err(|_| format!("{address:?} is not the address of a backend"))?;
        let mut backend = Self {
            address,
            weight: 1,
            drain: false,
            drain_deadline: None,
        };
        for part in parts {
            match part.split_once('=') {
                Some(("weight", weight)) => {
                    backend.weight = weight
                        .parse()
                        .map_err(|_| format!("{weight:?} is not a weight"))?;
                }
                _ if part == "drain" => backend.drain = true,
                _ => {
                    return Err(format!(
                        "{part:?} is unknown: write ADDRESS[,weight=N][,drain]"
                    ));
                }
            }
        }
        Ok(backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_as_text() {
        let backend: Backend = "10.1.0.9,weight=3,drain".parse().unwrap();
        assert_eq!((backend.weight, backend.drain), (3, true));
        for bad in ["", "x", "10.1.0.9,weight=", "10.1.0.9,w=1", "fd00::g"] {
            assert!(bad.parse::<Backend>().is_err(), "{bad}");
        }
    }
}
