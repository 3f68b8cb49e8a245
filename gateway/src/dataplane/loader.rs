//! x
use aya::{Ebpf, EbpfLoader, include_bytes_aligned, programs::Xdp};
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gateway.bpf.o"));
/// x
pub fn load(dir: &std::path::Path, log: u8) -> anyhow::Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(dir);
    loader.override_global("AYA_LOG_LEVEL", &log, true);
    let mut e = loader.load(OBJECT)?;
    let p: &mut Xdp = e.program_mut("gateway").unwrap().try_into()?;
    p.load()?;
    Ok(e)
}
