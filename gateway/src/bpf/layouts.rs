//! Pinned maps of other layout versions, made by earlier or later versions of the program.
//!
//! An upgrade takes over every map whose format is the same in both versions: the map is pinned in the directory of the
//! new version as well, while the earlier program goes on using it. All other maps are created and filled from the
//! store. Flow tables of layout 7 are converted. Flows survive if no other map of `FLOW_STATE` has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapData, MapInfo, MapType};
use aya_obj::Object;
use gateway_common::{
    V4, V6,
    flow::Bucket,
    maps::{LAYOUT_VERSION, name},
};
use log::{info, warn};

use crate::bpf::{
    flow_tables::{FlowTable, HasFlowTable},
    loader::OBJECT,
    migrate::{LAYOUT_7, SET_ASIDE},
    syscalls,
};

/// Maps that flow entries refer to, and those that hold the entries.
const FLOW_STATE: &[&str] = &[
    name::FLOWS_V4,
    name::FLOWS_V6,
    name::CONNECTIONS,
    name::BACKENDS,
    name::ATTACHMENTS,
    name::ATTACH_OVERFLOW,
    name::EGRESS,
    name::TX_PORTS,
];

/// Maps that refer to each other by allocated numbers. They are taken over together or not at all: otherwise the
/// earlier program would read regions that the agent has allocated to another resource.
const GROUPS: &[&[&str]] = &[
    FLOW_STATE,
    &[name::PORTS, name::MAGLEV, name::NAT_ADDRESSES],
];

/// Maps with the same format but another meaning than in the version before, by the version that changed them.
const CHANGED_MEANINGS: &[(u32, &[&str])] = &[
    // The return path, and the pin in the control word. Counts have a number of increases, which a program of layout 7
    // that still runs on another interface would take for flows; so they begin again with the flows that are converted.
    (
        8,
        &[
            name::FLOWS_V4,
            name::FLOWS_V6,
            name::FLOW_USAGE,
            name::CONN_USAGE,
        ],
    ),
];

/// Version whose flow tables are converted.
const CONVERTED_VERSION: u32 = 7;

/// Oldest version whose maps are taken over. Earlier ones kept flows in hash maps.
const OLDEST_VERSION: u32 = 7;

/// Format of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MapFormat {
    kind: u32,
    key_size: u32,
    value_size: u32,
    /// Number of entries; `None` for the flow tables, whose size is a setting.
    max_entries: Option<u32>,
}

/// Directory of maps of another layout version.
struct OtherLayout {
    version: u32,
    path: PathBuf,
}

/// Checks for pinned maps of other layout versions, whose flows this program can't take over.
///
/// # Errors
/// Fails if a newer program made the maps, or if maps of an older layout hold flows that can't be taken over and
/// `discard_incompatible_flows` is not set.
pub fn check_others(directory: &Path, discard_incompatible_flows: bool) -> Result<()> {
    for OtherLayout { version, path } in other_layouts(directory)? {
        let shown = directory.display();
        if version > LAYOUT_VERSION {
            bail!(
                "the maps in {shown} have layout {version}, made by a newer program, and this one supports layout \
                 {LAYOUT_VERSION}: run the newer program, or end its flows with its `plgw unload`"
            );
        }
        if keeps_flows(&reusable_maps(version, &path)?) {
            continue;
        }
        let flows = count_flows(&path)?;
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

/// Pins the maps of the latest earlier layout version that are the same in this one in `maps_directory`, unless it has
/// maps of these names.
///
/// # Errors
/// Fails if a map can't be read or pinned.
pub(super) fn take_over(directory: &Path, maps_directory: &Path) -> Result<()> {
    let earlier = other_layouts(directory)?
        .into_iter()
        .filter(|other| other.version < LAYOUT_VERSION)
        .max_by_key(|other| other.version);
    let Some(OtherLayout { version, path }) = earlier else {
        return Ok(());
    };
    let reusable = reusable_maps(version, &path)?;
    // Without its flows, a former state of the rest is of no use.
    if !keeps_flows(&reusable) {
        return Ok(());
    }
    let mut count = 0;
    for name in &reusable {
        let pin = if is_converted(name, version) {
            format!("{name}{LAYOUT_7}")
        } else {
            name.clone()
        };
        let (from, to) = (path.join(name), maps_directory.join(pin));
        if to.exists() {
            continue;
        }
        let map = MapData::from_pin(&from)
            .with_context(|| format!("could not open {}", from.display()))?;
        map.pin(&to)
            .with_context(|| format!("could not pin {}", to.display()))?;
        count += 1;
    }
    info!("bpf maps: taken over layout={version} program_layout={LAYOUT_VERSION} maps={count}");
    Ok(())
}

/// Removes the pinned maps of other layout versions. To be called when no attached program uses them any more.
///
/// # Errors
/// Fails if the directory can't be changed.
pub fn remove_others(directory: &Path) -> Result<()> {
    for other in other_layouts(directory)? {
        fs::remove_dir_all(&other.path)
            .with_context(|| format!("could not remove {}", other.path.display()))?;
    }
    Ok(())
}

fn other_layouts(directory: &Path) -> Result<Vec<OtherLayout>> {
    let mut others = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let version = name
            .to_str()
            .and_then(|name| name.strip_prefix("maps-v"))
            .and_then(|version| version.parse::<u32>().ok())
            .filter(|version| *version != LAYOUT_VERSION);
        if let Some(version) = version {
            others.push(OtherLayout {
                version,
                path: entry.path(),
            });
        }
    }
    Ok(others)
}

/// Returns the names of the pinned maps of an earlier version that this one can use.
fn reusable_maps(version: u32, path: &Path) -> Result<BTreeSet<String>> {
    if version < OLDEST_VERSION {
        return Ok(BTreeSet::new());
    }
    let mut reusable = unchanged_maps(&pinned_formats(path)?, &formats()?, version);
    for group in GROUPS {
        if !group.iter().all(|name| reusable.contains(*name)) {
            reusable.retain(|name| !group.contains(&name.as_str()));
        }
    }
    Ok(reusable)
}

/// Returns the names of the maps that have the same format in both versions, and the same meaning since `version`.
fn unchanged_maps(
    earlier: &BTreeMap<String, MapFormat>,
    present: &BTreeMap<String, MapFormat>,
    version: u32,
) -> BTreeSet<String> {
    let changed: BTreeSet<&str> = CHANGED_MEANINGS
        .iter()
        .filter(|(since, _)| *since > version)
        .flat_map(|(_, names)| names.iter().copied())
        .collect();
    earlier
        .iter()
        .filter(|(name, format)| {
            let is_same = !changed.contains(map_name(name)) || is_converted(name, version);
            is_same && present.get(map_name(name)) == Some(format)
        })
        .map(|(name, _)| name.clone())
        .collect()
}

/// Returns true if the map is a flow table whose entries are converted.
fn is_converted(name: &str, version: u32) -> bool {
    version == CONVERTED_VERSION && (name == name::FLOWS_V4 || name == name::FLOWS_V6)
}

fn keeps_flows(reusable: &BTreeSet<String>) -> bool {
    FLOW_STATE.iter().all(|name| reusable.contains(*name))
}

/// Returns the formats of this program's maps.
fn formats() -> Result<BTreeMap<String, MapFormat>> {
    let object = Object::parse(OBJECT).context("could not parse the XDP program")?;
    let maps = object.maps.into_iter();
    Ok(maps
        .map(|(name, map)| {
            let format = MapFormat {
                kind: map.map_type(),
                key_size: map.key_size(),
                value_size: map.value_size(),
                max_entries: fixed_size(&name, map.max_entries()),
            };
            (name, format)
        })
        .collect())
}

/// Returns the formats of the maps that are pinned in a directory.
fn pinned_formats(directory: &Path) -> Result<BTreeMap<String, MapFormat>> {
    let mut formats = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (Ok(name), Ok(info)) = (
            entry.file_name().into_string(),
            MapInfo::from_pin(entry.path()),
        ) else {
            continue;
        };
        let format = MapFormat {
            kind: info.map_type().map_or(0, |kind| kind as u32),
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: fixed_size(&name, info.max_entries()),
        };
        formats.insert(name, format);
    }
    Ok(formats)
}

/// Returns the name that a pinned map has in the program. A flow table that was set aside has another pin.
fn map_name(pin: &str) -> &str {
    pin.split_once(SET_ASIDE).map_or(pin, |(name, _)| name)
}

/// Returns the number of entries of a map, unless it is a setting.
fn fixed_size(pin: &str, max_entries: u32) -> Option<u32> {
    let name = map_name(pin);
    (name != name::FLOWS_V4 && name != name::FLOWS_V6).then_some(max_entries)
}

/// Returns the number of entries of the flow tables that are pinned in a directory, of whatever layout.
fn count_flows(directory: &Path) -> Result<u64> {
    Ok(count_entries::<V4>(directory)? + count_entries::<V6>(directory)?)
}

fn count_entries<F: HasFlowTable>(directory: &Path) -> Result<u64> {
    let path = directory.join(F::MAP);
    let Ok(info) = MapInfo::from_pin(&path) else {
        return Ok(0);
    };
    let map =
        MapData::from_pin(&path).with_context(|| format!("could not open {}", path.display()))?;
    let is_table = info.map_type().is_ok_and(|kind| kind == MapType::Array)
        && usize::try_from(info.value_size()).ok() == Some(size_of::<Bucket<F>>());
    let count = if is_table {
        // No entry is looked up, so the key of the hash does not matter.
        FlowTable::<F>::new((map.fd().as_fd(), info.max_entries()), 0)
            .map(|table| table.entries(0).count() as u64)
    } else {
        syscalls::count_entries(map.fd().as_fd(), info.key_size())
    };
    count.with_context(|| format!("could not read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_with_another_format_are_not_taken_over() {
        let present = formats().unwrap();
        assert!(FLOW_STATE.iter().all(|name| present.contains_key(*name)));
        let all = unchanged_maps(&present, &present, LAYOUT_VERSION);
        assert_eq!(all.len(), present.len());
        for change in [
            |format: &mut MapFormat| format.kind += 1,
            |format: &mut MapFormat| format.key_size += 4,
            |format: &mut MapFormat| format.value_size += 8,
            |format: &mut MapFormat| format.max_entries = Some(1),
        ] {
            let mut earlier = present.clone();
            change(earlier.get_mut(name::BACKENDS).unwrap());
            let unchanged = unchanged_maps(&earlier, &present, LAYOUT_VERSION);
            assert_eq!(unchanged.len(), present.len() - 1);
            assert!(!keeps_flows(&unchanged) && keeps_flows(&all));
        }
    }

    #[test]
    fn changed_meanings_name_maps_and_versions_that_exist() {
        let present = formats().unwrap();
        for (version, names) in CHANGED_MEANINGS {
            assert!((OLDEST_VERSION + 1..=LAYOUT_VERSION).contains(version));
            assert!(names.iter().all(|name| present.contains_key(*name)));
        }
    }
}
