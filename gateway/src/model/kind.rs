//! Kinds of objects. `objects!` is the single list of them.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Passes the list of object kinds to a macro, each kind with its singular and its plural. The first kind is the
/// tenant. A tenant owns the objects of all other kinds.
macro_rules! objects {
    ($callback:ident) => {
        $callback! {
            /// Tenant.
            Tenant tenant tenants;
            /// Network.
            Network network networks;
            /// Service.
            Service service services;
            /// Endpoint with its connection.
            Endpoint endpoint endpoints;
            /// Access token of a tenant.
            Token token tokens;
            /// Mapping of an external identity to a role in a tenant.
            Identity identity identities;
            /// URL that a tenant's events are delivered to.
            Webhook webhook webhooks;
        }
    };
}
pub(crate) use objects;

macro_rules! define_kind {
    ($($(#[$doc:meta])* $kind:ident $singular:ident $plural:ident;)*) => {
        /// Kind of an object.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
        )]
        #[serde(rename_all = "lowercase")]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Returns the singular, as messages use it.
            #[must_use]
            pub const fn singular(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($singular),)*
                }
            }

            /// Returns the plural, as API paths and store keys use it.
            #[must_use]
            pub const fn plural(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($plural),)*
                }
            }
        }
    };
}
objects!(define_kind);

impl Kind {
    /// Returns the kind that has this plural.
    #[must_use]
    pub fn from_plural(plural: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.plural() == plural)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.singular())
    }
}
