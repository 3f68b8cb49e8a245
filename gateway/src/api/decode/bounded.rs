//! A deserializer that meters the decoded value, and accepts a decimal without a fraction as an integer.
//!
//! The memory of the decoded value is estimated from the size of each list's elements, of each map's keys and values,
//! and the text of each string. Names of fields are not stored. Structs are part of the element that contains them.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor},
};

use super::{DecodeMeter, ExceededBound, MAX_TEXT};

/// Largest integer up to which a double represents every integer.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// Largest size of a key type that is taken for a field identifier, in bytes. Keys of maps are strings, which are
/// larger.
const MAX_FIELD_NAME_SIZE: usize = 16;

/// Minimum size of a string on the heap, and the allocator's overhead of each allocation, in bytes.
const MIN_STRING_COST: usize = 24;
const ALLOCATION_COST: usize = 8;

/// A part of a deserialization (deserializer, visitor, seed or access) with its meter.
pub(super) struct Bounded<'m, T> {
    inner: T,
    meter: &'m DecodeMeter,
    /// Number of elements that an access returned so far.
    elements: usize,
    /// True if text is a field name, which is not stored. In an access: true if its last key was a field name.
    is_field: bool,
}

impl<'m, T> Bounded<'m, T> {
    pub(super) const fn new(inner: T, meter: &'m DecodeMeter) -> Self {
        Self {
            inner,
            meter,
            elements: 0,
            is_field: false,
        }
    }

    const fn wrap<U>(&self, inner: U) -> Bounded<'m, U> {
        Bounded::new(inner, self.meter)
    }

    /// Counts an element of the list or object.
    fn count_element<E: Error>(&mut self) -> Result<(), E> {
        self.elements += 1;
        if self.elements > self.meter.bounds.elements {
            self.meter.exceeded.set(Some(ExceededBound::Elements));
            return Err(E::custom("too many elements"));
        }
        Ok(())
    }
}

impl DecodeMeter {
    fn charge<E: Error>(&self, bytes: usize) -> Result<(), E> {
        let memory = self.memory.get().saturating_add(bytes);
        self.memory.set(memory);
        if memory > self.bounds.memory {
            self.exceeded.set(Some(ExceededBound::Memory));
            return Err(E::custom("too much"));
        }
        Ok(())
    }
}

impl<V> Bounded<'_, V> {
    fn charge_text<E: Error>(&self, length: usize) -> Result<(), E> {
        // Errors repeat the text several times.
        if length > MAX_TEXT {
            self.meter.exceeded.set(Some(ExceededBound::Text));
            return Err(E::custom("too long"));
        }
        if self.is_field {
            return Ok(());
        }
        self.meter
            .charge(length.max(MIN_STRING_COST) + ALLOCATION_COST)
    }
}

macro_rules! forward_deserialize {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.wrap(visitor);
            self.inner.$method($($name,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    forward_deserialize! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_ignored_any();
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let mut visitor = self.wrap(visitor);
        visitor.is_field = true;
        self.inner.deserialize_identifier(visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! forward_visit {
    ($($method:ident: $type:ty;)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

macro_rules! forward_text {
    ($($method:ident: $type:ty;)*) => {$(
        fn $method<E: Error>(self, text: $type) -> Result<V::Value, E> {
            self.charge_text(text.len())?;
            self.inner.$method(text)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    forward_visit! {
        visit_bool: bool;
        visit_i8: i8;
        visit_i16: i16;
        visit_i32: i32;
        visit_i64: i64;
        visit_i128: i128;
        visit_u8: u8;
        visit_u16: u16;
        visit_u32: u32;
        visit_u64: u64;
        visit_u128: u128;
        visit_f32: f32;
        visit_char: char;
    }

    forward_text! {
        visit_str: &str;
        visit_borrowed_str: &'de str;
        visit_string: String;
        visit_bytes: &[u8];
        visit_borrowed_bytes: &'de [u8];
        visit_byte_buf: Vec<u8>;
    }

    // JSON has only one kind of number (RFC 8259, section 6): 7.0 is the integer 7.
    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        if value.fract() != 0.0 || value.abs() > MAX_EXACT_INTEGER {
            return self.inner.visit_f64(value);
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked in the lines before"
        )]
        let integer = value as i64;
        match u64::try_from(integer) {
            Ok(whole) => self.inner.visit_u64(whole),
            Err(_) => self.inner.visit_i64(integer),
        }
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.wrap(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        let deserializer = self.wrap(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.wrap(access);
        self.inner.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.wrap(access);
        self.inner.visit_map(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.wrap(access);
        self.inner.visit_enum(access)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.wrap(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let seed = self.wrap(seed);
        let element = self.inner.next_element_seed(seed)?;
        if element.is_some() {
            self.count_element()?;
            self.meter.charge(size_of::<S::Value>())?;
        }
        Ok(element)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let seed = self.wrap(seed);
        let key = self.inner.next_key_seed(seed)?;
        if key.is_some() {
            self.count_element()?;
            self.is_field = size_of::<S::Value>() <= MAX_FIELD_NAME_SIZE;
            if !self.is_field {
                self.meter.charge(size_of::<S::Value>())?;
            }
        }
        Ok(key)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        if !self.is_field {
            // Nodes of a B-tree are at least half full.
            self.meter.charge(size_of::<S::Value>() * 2)?;
        }
        let seed = self.wrap(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'm, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'m, A> {
    type Error = A::Error;
    type Variant = Bounded<'m, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let seed = self.wrap(seed);
        let meter = self.meter;
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Bounded::new(variant, meter)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.wrap(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.wrap(visitor);
        self.inner.tuple_variant(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.wrap(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
