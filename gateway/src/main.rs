//! The private link gateway.

fn main() {}
