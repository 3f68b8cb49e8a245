//! Access to the objects of every kind.

use std::collections::BTreeMap;

use crate::model::{Kind, Name, Object, Record, Reference, kind::objects, state::State};

macro_rules! define_object_access {
    (
        $(#[$tenant_doc:meta])* Tenant $tenant:ident $tenants:ident;
        $($(#[$doc:meta])* $kind:ident $singular:ident $plural:ident;)*
    ) => {
        impl State {
            /// Returns all objects, ordered by kind.
            pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
                let tenants = self.$tenants.values().cloned().map(Object::Tenant);
                tenants $(.chain(objects_in(&self.$plural, Object::$kind)))*
            }

            /// Returns the object of a kind and reference. A tenant's reference has its name twice.
            #[must_use]
            pub fn object(&self, kind: Kind, reference: &Reference) -> Option<Object> {
                match kind {
                    Kind::Tenant => {
                        let record = self.$tenants.get(&reference.tenant)?;
                        Some(Object::Tenant(record.clone()))
                    }
                    $(Kind::$kind => object_in(&self.$plural, reference, Object::$kind),)*
                }
            }
        }
    };
}
objects!(define_object_access);

fn objects_in<'a, T: Clone>(
    objects: &'a BTreeMap<Reference, Record<T>>,
    object: impl Fn(Name, Record<T>) -> Object + 'a,
) -> impl Iterator<Item = Object> + 'a {
    let objects = objects.iter();
    objects.map(move |(reference, record)| object(reference.tenant.clone(), record.clone()))
}

fn object_in<T: Clone>(
    objects: &BTreeMap<Reference, Record<T>>,
    reference: &Reference,
    object: impl Fn(Name, Record<T>) -> Object,
) -> Option<Object> {
    let record = objects.get(reference)?;
    Some(object(reference.tenant.clone(), record.clone()))
}
