//! VLAN offloads of an interface (generic netlink family `ethtool`, Linux 5.6).
//!
//! With an offload the driver keeps VLAN tags in packet metadata instead of the packet, where the XDP program does not
//! see them.

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NLA_TYPE_MASK, NLM_F_ACK, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload, NlasIterator, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

use crate::netlink::DeviceFeatures;

const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;

const FEATURES_HEADER: u16 = 1;
const FEATURES_WANTED: u16 = 3;
const FEATURES_ACTIVE: u16 = 4;
const HEADER_INDEX: u16 = 1;
const HEADER_FLAGS: u16 = 3;
/// Flag of a request: the kernel sends an acknowledgement but no reply.
const FLAG_OMIT_REPLY: u32 = 1 << 1;
const BITSET_BITS: u16 = 3;
const BITS_BIT: u16 = 1;
const BIT_NAME: u16 = 2;

/// Offloads that strip VLAN tags from received packets (802.1Q and 802.1ad).
pub const RX_OFFLOADS: [&str; 2] = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];
/// Offloads that insert VLAN tags into sent packets (802.1Q and 802.1ad).
pub const TX_OFFLOADS: [&str; 2] = ["tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"];

impl DeviceFeatures {
    /// Switches offloads of an interface off. Returns true if all of them are off afterwards.
    ///
    /// # Errors
    /// Fails if the kernel does not report the interface's offloads.
    pub async fn disable_offloads(&self, ifindex: u32, offloads: &[&'static str]) -> Result<bool> {
        let on = self.active_offloads(ifindex, offloads).await?;
        if on.is_empty() {
            return Ok(true);
        }
        if let Err(error) = self.clear_wanted_offloads(ifindex, &on).await {
            log::debug!("netlink: offloads not switched off ifindex={ifindex} error={error:#}");
        }
        Ok(self.active_offloads(ifindex, offloads).await?.is_empty())
    }

    /// Returns the offloads that are on.
    async fn active_offloads(
        &self,
        ifindex: u32,
        offloads: &[&'static str],
    ) -> Result<Vec<&'static str>> {
        let message = FeaturesMessage::new(FEATURES_GET, ifindex, &[]);
        let active = self.request(message, NLM_F_REQUEST).await?;
        let active = active.context("the kernel does not report the interface's offloads")?;
        let is_on = |name: &&&str| active.iter().any(|other| other == **name);
        Ok(offloads.iter().filter(is_on).copied().collect())
    }

    async fn clear_wanted_offloads(&self, ifindex: u32, offloads: &[&'static str]) -> Result<()> {
        let message = FeaturesMessage::new(FEATURES_SET, ifindex, offloads);
        self.request(message, NLM_F_REQUEST | NLM_F_ACK).await?;
        Ok(())
    }

    /// Sends a message. Returns the active features of the reply, if there is a reply.
    async fn request(&self, message: FeaturesMessage, flags: u16) -> Result<Option<Vec<String>>> {
        let mut message = NetlinkMessage::from(GenlMessage::from_payload(message));
        message.header.flags = flags;
        let mut handle = self.handle();
        let mut answers = handle
            .request(message)
            .await
            .context("could not send a request about an interface's offloads")?;
        let mut active = None;
        while let Some(answer) = answers.next().await {
            match answer?.payload {
                NetlinkPayload::InnerMessage(message) => active = Some(message.payload.active),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    bail!("the kernel refused the request: {}", error.to_io());
                }
                _ => {}
            }
        }
        Ok(active)
    }
}

/// Message of the `ethtool` family about one interface's offloads.
#[derive(Clone, Debug)]
struct FeaturesMessage {
    command: u8,
    attributes: Vec<u8>,
    active: Vec<String>,
}

impl FeaturesMessage {
    /// Builds a request to read the features, or to switch the features `off` off.
    fn new(command: u8, ifindex: u32, off: &[&str]) -> Self {
        let mut header = attribute(HEADER_INDEX, &ifindex.to_ne_bytes());
        if command == FEATURES_SET {
            header.extend(attribute(HEADER_FLAGS, &FLAG_OMIT_REPLY.to_ne_bytes()));
        }
        let mut attributes = nested(FEATURES_HEADER, &header);
        if !off.is_empty() {
            // A bit that is named without a value is cleared, and bits that are not named keep their values.
            let bit = |name: &&str| {
                let name = [name.as_bytes(), b"\0"].concat();
                nested(BITS_BIT, &attribute(BIT_NAME, &name))
            };
            let bits: Vec<u8> = off.iter().flat_map(bit).collect();
            let bitset = nested(BITSET_BITS, &bits);
            attributes.extend(nested(FEATURES_WANTED, &bitset));
        }
        Self {
            command,
            attributes,
            active: Vec::new(),
        }
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, value)
}

/// Returns the names of the bits that are set in a bitset.
fn parse_feature_names(bitset: &[u8]) -> Result<Vec<String>, DecodeError> {
    let mut names = Vec::new();
    for bits in NlasIterator::new(bitset) {
        let bits = bits?;
        if bits.kind() & NLA_TYPE_MASK != BITSET_BITS {
            continue;
        }
        for bit in NlasIterator::new(bits.value()) {
            let bit = bit?;
            for field in NlasIterator::new(bit.value()) {
                let field = field?;
                if field.kind() & NLA_TYPE_MASK == BIT_NAME {
                    let name = field.value().split(|byte| *byte == 0).next();
                    names.push(String::from_utf8_lossy(name.unwrap_or_default()).into_owned());
                }
            }
        }
    }
    Ok(names)
}

impl GenlFamily for FeaturesMessage {
    fn family_name() -> &'static str {
        "ethtool"
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for FeaturesMessage {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.attributes.len()].copy_from_slice(&self.attributes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for FeaturesMessage {
    fn parse_with_param(buffer: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let mut message = Self {
            command: header.cmd,
            attributes: Vec::new(),
            active: Vec::new(),
        };
        for attribute in NlasIterator::new(buffer) {
            let attribute = attribute?;
            if attribute.kind() & NLA_TYPE_MASK == FEATURES_ACTIVE {
                message.active = parse_feature_names(attribute.value())?;
            }
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_names_are_parsed_from_a_bitset() {
        let bit = |name: &str| {
            let name = [name.as_bytes(), b"\0"].concat();
            nested(
                BITS_BIT,
                &[
                    attribute(1, &7u32.to_ne_bytes()),
                    attribute(BIT_NAME, &name),
                ]
                .concat(),
            )
        };
        let bits = [bit("rx-checksum"), bit("rx-vlan-hw-parse")].concat();
        let bitset = [
            attribute(1, &[]),
            attribute(2, &60u32.to_ne_bytes()),
            nested(BITSET_BITS, &bits),
        ]
        .concat();
        let answer = [
            nested(FEATURES_HEADER, &attribute(HEADER_INDEX, &[3, 0, 0, 0])),
            nested(2, &nested(BITSET_BITS, &bit("something-else"))),
            nested(FEATURES_ACTIVE, &bitset),
        ]
        .concat();
        let header = GenlHeader {
            cmd: 11,
            version: 1,
        };
        let message = FeaturesMessage::parse_with_param(&answer, header).unwrap();
        assert_eq!(message.active, ["rx-checksum", "rx-vlan-hw-parse"]);
    }

    #[test]
    fn disable_request_names_the_offloads() {
        let message = FeaturesMessage::new(FEATURES_SET, 5, &TX_OFFLOADS);
        let mut requested = Vec::new();
        for attribute in NlasIterator::new(&message.attributes[..]) {
            let attribute = attribute.unwrap();
            if attribute.kind() & NLA_TYPE_MASK == FEATURES_WANTED {
                requested = parse_feature_names(attribute.value()).unwrap();
            }
        }
        assert_eq!(requested, TX_OFFLOADS);
    }
}
