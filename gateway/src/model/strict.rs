//! Deserialization that accepts only JSON objects for structs. Serde also accepts a list of the fields' values.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

struct StrictObject<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for StrictObject<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for StrictObject<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

struct StrictObjects<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for StrictObjects<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut objects = Vec::new();
        while let Some(object) = list.next_element_seed(StrictObject(PhantomData))? {
            objects.push(object);
        }
        Ok(objects)
    }
}

/// Deserializes an object.
///
/// # Errors
/// The value is not an object, or `T` refuses it.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    StrictObject(PhantomData).deserialize(deserializer)
}

/// Deserializes a list of objects.
///
/// # Errors
/// The value is not a list of objects, or `T` refuses one.
pub(crate) fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(StrictObjects(PhantomData))
}

#[cfg(test)]
mod tests {
    use crate::model::{network::NetworkRequest, service::ServiceRequest, tenant::TenantRequest};

    #[test]
    fn a_sequence_is_refused_as_an_object() {
        assert!(serde_json::from_str::<TenantRequest>(r#"{"quotas": {"networks": 1}}"#).is_ok());
        assert!(serde_json::from_str::<TenantRequest>(r#"{"quotas": [1]}"#).is_err());
        assert!(serde_json::from_str::<NetworkRequest>(r#"{"attachments": [["eth0"]]}"#).is_err());
        let service = |more: &str| {
            let text = format!(r#"{{"network": "n", "nat_addresses": [], {more}}}"#);
            serde_json::from_str::<ServiceRequest>(&text).is_ok()
        };
        assert!(service(
            r#""resources": [{"ports": []}], "timeouts": {"udp": 30}"#
        ));
        for wrong in [
            r#""resources": [{"ports": []}], "timeouts": [30, 30, 30]"#,
            r#""resources": [["default", [], []]]"#,
            r#""resources": [{"ports": [["tcp", 80, null]]}]"#,
            r#""resources": [{"ports": [], "backends": [["10.0.0.1", 1, false]]}]"#,
        ] {
            assert!(!service(wrong), "{wrong}");
        }
    }
}
