//! OpenAPI schemas of values that are written as text.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, KnownFormat, Object, ObjectBuilder, OneOfBuilder, RefOr, Schema,
        SchemaFormat, Type, schema::AdditionalProperties,
    },
};

use crate::model::{
    Name, Reference,
    address::AddressRange,
    limits,
    service::{PortNumber, StatusRange, TenantSet},
};

const NAME_PATTERN: &str = "[a-z][a-z0-9-]{0,62}";

fn text(description: &str) -> ObjectBuilder {
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

macro_rules! schemas {
    ($($type:ty, $name:literal, $schema:expr;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }
        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                $name.into()
            }
        }
    )*};
}

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
    Name, "Name",
        text("1 to 63 of `a-z 0-9 -`, starting with a letter").pattern(Some(format!("^{NAME_PATTERN}$")));
    Reference, "Reference",
        text("`TENANT/NAME`").pattern(Some(format!("^{NAME_PATTERN}/{NAME_PATTERN}$")));
    IpAddress, "IpAddress",
        OneOfBuilder::new()
            .item(format_schema(KnownFormat::Ipv4))
            .item(format_schema(KnownFormat::Ipv6));
    SocketAddress, "SocketAddress",
        text("`192.0.2.1:443` or `[2001:db8::1]:443`").max_length(Some(64));
    AddressRange, "AddressRange",
        text("`10.1.0.64/28`, `10.1.0.64-10.1.0.70`, `10.1.0.64` or `fd00::/124`")
            .pattern(Some("^[0-9a-fA-F.:/-]{2,80}$"));
    StatusRange, "StatusRange",
        text("HTTP status codes: `200` or `200-399`")
            .pattern(Some("^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$"));
    PortNumber, "PortNumber",
        OneOfBuilder::new()
            .item(
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(1))
                    .maximum(Some(65_535)),
            )
            .item(text("all ports").enum_values(Some(["*"])));
    TenantSet, "TenantSet",
        ArrayBuilder::new()
            .items(text("name of a tenant, or `*` alone for all tenants")
                .pattern(Some(format!("^(\\*|{NAME_PATTERN})$"))))
            .max_items(Some(limits::MAX_TENANTS))
            .description(Some("Tenants by name, or all tenants"));
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
