//! `cargo xtask`.

fn main() -> anyhow::Result<()> {
    let object = xtask::ebpf::build(".".as_ref(), "target/ebpf".as_ref())?;
    println!("{}", object.display());
    Ok(())
}
