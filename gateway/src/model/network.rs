//! Networks: isolated address spaces, met by the gateway through attachments.

use serde::{Deserialize, Serialize};

use crate::model::{Name, Problem, record::Labels};

/// An interface through which the gateway meets the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Where the gateway meets it.
    pub attachments: Vec<Attachment>,
    /// Whether what comes in and is for no endpoint is dropped, instead of handed to the host.
    /// Unset: it is while the network holds no service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// The largest IP packet sent into it, in bytes; unset: what the interface allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// What the data path knows the network by.
    pub number: u32,
}

/// What a user says of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// The network's name; in the path when an existing one is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The version that the change was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Labels; unchanged where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Where the gateway meets it.
    pub attachments: Vec<Attachment>,
    /// See [`Network::isolated`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// See [`Network::mtu`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// The smallest MTU that IPv4 asks of a link (RFC 791).
const SMALLEST_MTU: u16 = 68;

impl NetworkRequest {
    /// Checks the fields that can be judged alone.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.attachments.is_empty() {
            return Err(Problem::invalid(
                "attachments",
                "a network needs at least one attachment: name the interface that leads to it",
            ));
        }
        for (place, attachment) in self.attachments.iter().enumerate() {
            let field = format!("attachments[{place}].interface");
            check_interface_name(&field, &attachment.interface)?;
            if self.attachments[..place].contains(attachment) {
                return Err(Problem::invalid(
                    field,
                    format!("interface {} is named twice", attachment.interface),
                ));
            }
        }
        if let Some(mtu) = self.mtu
            && mtu < SMALLEST_MTU
        {
            return Err(Problem::invalid(
                "mtu",
                format!("an MTU of {mtu} is below {SMALLEST_MTU}, the least that IPv4 allows"),
            ));
        }
        Ok(())
    }
}

/// What Linux takes as an interface's name: 1 to 15 bytes, no slash, space or colon.
fn check_interface_name(field: &str, name: &str) -> Result<(), Problem> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    let valid =
        (1..=15).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(allowed);
    if valid {
        Ok(())
    } else {
        let shown: String = name.chars().take(40).collect();
        Err(Problem::invalid(
            field,
            format!("{shown:?} can't be the name of a network interface (1 to 15 characters)"),
        ))
    }
}
