//! Single packets through the data path, natively and in the kernel.

pub mod assertions;
pub mod differential;
pub mod fast_path_oracle;
mod fixture;
pub mod fuzz;
pub mod scenario;
