//! Compiles the XDP program into the object file that the agent embeds.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest
        .parent()
        .context("the crate has no parent directory: build it inside the workspace")?;
    for input in [
        "gateway-ebpf",
        "gateway-common/src",
        "gateway-common/Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let object = xtask::ebpf::build(workspace, &out.join("ebpf"))?;
    fs::copy(&object, out.join("gateway.bpf.o"))
        .with_context(|| format!("could not copy {}", object.display()))?;
    Ok(())
}
