//! Pinned maps of other layout versions, made by earlier or later versions of the program.

use std::{fs, os::fd::AsFd as _, path::Path};

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapData, MapInfo};
use gateway_common::maps::{LAYOUT_VERSION, name};
use log::warn;

use crate::bpf::syscalls;

/// Checks for pinned maps of other layout versions, whose flows this program can't take over.
///
/// # Errors
/// Fails if a newer program made the maps, or if maps of an older layout hold flows and `discard_incompatible_flows`
/// is not set.
pub fn check_others(directory: &Path, discard_incompatible_flows: bool) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let version = name
            .to_str()
            .and_then(|name| name.strip_prefix("maps-v"))
            .and_then(|version| version.parse::<u32>().ok());
        let Some(version) = version.filter(|version| *version != LAYOUT_VERSION) else {
            continue;
        };
        let shown = directory.display();
        if version > LAYOUT_VERSION {
            bail!(
                "the maps in {shown} have layout {version}, made by a newer program, and this one supports layout \
                 {LAYOUT_VERSION}: run the newer program, or end its flows with its `plgw unload`"
            );
        }
        let flows = count_flows(&entry.path())?;
        if flows > 0 && !discard_incompatible_flows {
            bail!(
                "the maps in {shown} have layout {version}, and this program can't take over their {flows} flow \
                 entries into layout {LAYOUT_VERSION}: keep the earlier program, or discard the flows by starting \
                 this one once with discard_incompatible_flows set (--discard-incompatible-flows true)"
            );
        }
        warn!(
            "bpf maps: flow entries discarded directory={shown} layout={version} \
             program_layout={LAYOUT_VERSION} entries={flows}"
        );
    }
    Ok(())
}

/// Removes the pinned maps of other layout versions. To be called when no attached program uses them any more.
///
/// # Errors
/// Fails if the directory can't be changed.
pub fn remove_others(directory: &Path) -> Result<()> {
    let current = format!("maps-v{LAYOUT_VERSION}");
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("maps-v") && name != current {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Returns the number of entries of the flow tables that are pinned in a directory, of whatever layout.
fn count_flows(directory: &Path) -> Result<u64> {
    let mut flows = 0;
    for table in [name::FLOWS_V4, name::FLOWS_V6] {
        let path = directory.join(table);
        let Ok(info) = MapInfo::from_pin(&path) else {
            continue;
        };
        let map = MapData::from_pin(&path)
            .with_context(|| format!("could not open {}", path.display()))?;
        flows += syscalls::count_entries(map.fd().as_fd(), info.key_size())
            .with_context(|| format!("could not read {}", path.display()))?;
    }
    Ok(flows)
}
