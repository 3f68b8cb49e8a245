//! `cargo xtask openapi`: writes the OpenAPI document and the API client.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{
    build::{cargo, workspace},
    codegen_client,
    run::{print_step, run},
};

/// Path of the OpenAPI document in the workspace.
const DOCUMENT: &str = "docs/openapi.json";

/// Writes the OpenAPI document that the program prints, and the client that is generated from it.
pub(crate) fn write_openapi(binary: &Path) -> Result<()> {
    print_step("generating the OpenAPI document and the client");
    let output = Command::new(binary).arg("openapi").output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let document = String::from_utf8(output.stdout)?;
    let client = workspace()?.join("gateway/src/client/operations.rs");
    fs::write(&client, codegen_client::generate(&document)?)?;
    fs::write(workspace()?.join(DOCUMENT), document)?;
    run(cargo()?.args(["fmt", "--package", "gateway"]))
}
