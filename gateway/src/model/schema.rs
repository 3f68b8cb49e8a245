//! OpenAPI schemas of values that are written as text.

use utoipa::openapi::{
    KnownFormat, Object, ObjectBuilder, OneOfBuilder, RefOr, Schema, SchemaFormat, Type,
    schema::AdditionalProperties,
};

use crate::model::limits;

/// Pattern of names, without anchors.
pub(crate) const NAME_PATTERN: &str = "[a-z][a-z0-9-]{0,62}";

/// Returns the schema of a text.
pub(crate) fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
}

fn format_schema(format: KnownFormat) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(format)))
        .build()
}

/// Implements [`ToSchema`](utoipa::ToSchema) for types, each with its name in the document and its schema. The
/// schema of a type is in the module of the type.
macro_rules! schemas {
    ($($type:ty, $name:literal, $schema:expr;)*) => {$(
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $schema.into()
            }
        }
        impl utoipa::ToSchema for $type {
            fn name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
        }
    )*};
}
pub(crate) use schemas;

/// Schema of an IP address.
#[derive(Debug)]
pub struct IpAddress;

/// Schema of an address with a port.
#[derive(Debug)]
pub struct SocketAddress;

/// Schema of labels: short keys with short values.
#[derive(Debug)]
pub struct Labels;

/// Schema of a prefix: an address and a length.
#[derive(Debug)]
pub struct Prefix;

schemas! {
    Labels, "Labels",
        ObjectBuilder::new()
            .description(Some("At most 64 key-value notes of the user, with at most 4096 bytes in total"))
            .max_properties(Some(limits::MAX_LABELS))
            .property_names(Some(
                ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(limits::MAX_LABEL_KEY)),
            ))
            .additional_properties(Some(
                ObjectBuilder::new().schema_type(Type::String).max_length(Some(limits::MAX_LABEL_VALUE)),
            ));
    Prefix, "Prefix",
        text("`10.0.0.0/24` or `fd00::/64`").pattern(Some("^[0-9a-fA-F.:]{2,39}/[0-9]{1,3}$"));
    IpAddress, "IpAddress",
        OneOfBuilder::new()
            .item(format_schema(KnownFormat::Ipv4))
            .item(format_schema(KnownFormat::Ipv6));
    SocketAddress, "SocketAddress",
        text("`192.0.2.1:443` or `[2001:db8::1]:443`").max_length(Some(64));
}

/// Returns the schema of an object that has the fields of all parts and no others.
pub(crate) fn merged(
    parts: impl IntoIterator<Item = RefOr<Schema>>,
    description: &str,
) -> RefOr<Schema> {
    let mut merged = ObjectBuilder::new()
        .description(Some(description))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        .build();
    for part in parts {
        if let RefOr::T(Schema::Object(part)) = part {
            merged.properties.extend(part.properties);
            merged.required.extend(part.required);
        }
    }
    merged.into()
}
