//! Loads the XDP program into the kernel, which verifies it.

fn main() -> anyhow::Result<()> {
    let directory = std::path::Path::new("/sys/fs/bpf/gateway-check");
    std::fs::create_dir_all(directory)?;
    let loaded = gateway::dataplane::loader::load(directory, 0);
    std::fs::remove_dir_all(directory)?;
    loaded.map(drop)
}
