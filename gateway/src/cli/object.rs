//! Tables of API objects.

use serde::Serialize;

use crate::cli::output::Table;

/// Object that commands list.
pub(super) trait ListedObject: Serialize {
    /// Header of the table.
    const HEADER: &'static [&'static str];

    /// Returns the object's rows in the table.
    fn rows(&self) -> Vec<Vec<String>>;
}

/// Object that commands show in detail.
pub(super) trait ShownObject: Serialize {
    /// Formats the details of the object.
    fn details(&self) -> Table;
}
