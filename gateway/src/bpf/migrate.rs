//! Migration of live flows when the size of the flow tables, the key of their hash, or the layout of entries changes.
//!
//! A BPF map can't grow, and a flow is found by its hash, so such a change means new maps. The old ones stay pinned under another name while the
//! earlier program uses them. Flows are copied before the program is replaced, and once more afterwards, for those that
//! were opened or changed meanwhile. A start that is interrupted is made up for by the next one.

use std::{
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, MapInfo};
use gateway_common::{
    V4, V6,
    flow::{Direction, FlowRef, FlowTableUsage, PlaceState, hash::fingerprint, memory::Place as _},
    maps::name,
};
use log::{info, warn};

use crate::bpf::{
    flow_tables::{FlowTable, FlowTableSet, HasFlowTable},
    layout7::convert_bucket,
    loader::LoadParameters,
    mapping::ArrayMapping,
};

/// Suffix of the pin of a flow table that was set aside. A number follows. Names on the bpf file system must not contain
/// a dot.
pub(super) const SET_ASIDE: &str = "_previous";

/// Suffix of the pin of a flow table of layout 7.
pub(super) const LAYOUT_7: &str = "_layout7";

/// Flow tables whose flows are taken over.
#[derive(Debug, Default)]
pub struct Migration {
    v4: Vec<Source<V4>>,
    v6: Vec<Source<V6>>,
}

/// A flow table of another size.
#[derive(Debug)]
struct Source<F: HasFlowTable> {
    path: PathBuf,
    table: FlowTable<F>,
    /// True if the entries have layout 7.
    is_layout_7: bool,
}

/// Numbers of flows of a copy.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    copied: u64,
    lost: u64,
}

impl Migration {
    /// Sets pinned flow tables aside that have another size or another hash than the parameters demand, so that the
    /// loader makes new ones.
    ///
    /// # Errors
    /// Fails if a pin can't be read or renamed.
    pub fn prepare(directory: &Path, parameters: LoadParameters) -> Result<Self> {
        let is_rehashed = is_rehashed(directory, parameters.seed)?;
        Ok(Self {
            v4: sources::<V4>(directory, parameters, is_rehashed)?,
            v6: sources::<V6>(directory, parameters, is_rehashed)?,
        })
    }

    /// Copies the flows of the old tables that the new ones lack.
    ///
    /// # Errors
    /// Fails if there is no memory to convert a table.
    pub fn copy(&self, tables: &FlowTableSet) -> Result<()> {
        let mut total = Copied::default();
        copy_all(&self.v4, tables, &mut total)?;
        copy_all(&self.v6, tables, &mut total)?;
        if self.v4.is_empty() && self.v6.is_empty() {
            return Ok(());
        }
        info!("flow table: flows migrated count={}", total.copied);
        if total.lost > 0 {
            warn!(
                "flow table: flows lost in the migration count={}: set a larger flow_table_size",
                total.lost
            );
        }
        Ok(())
    }

    /// Copies what has changed since [`Migration::copy`], and removes the old tables.
    ///
    /// # Errors
    /// Fails if a pin can't be removed.
    pub fn finish(self, tables: &FlowTableSet) -> Result<()> {
        self.copy(tables)?;
        let paths = self.v4.iter().map(|source| &source.path);
        for path in paths.chain(self.v6.iter().map(|source| &source.path)) {
            fs::remove_file(path)
                .with_context(|| format!("could not remove {}", path.display()))?;
        }
        Ok(())
    }
}

/// Returns true if the pinned flow tables were filled with another hash: the store was replaced.
fn is_rehashed(directory: &Path, seed: u64) -> Result<bool> {
    let path = directory.join(name::FLOW_USAGE);
    if !path.exists() {
        return Ok(false);
    }
    let map = MapData::from_pin(&path).with_context(|| open_error(&path))?;
    let usage = ArrayMapping::<FlowTableUsage>::new(map.fd().as_fd(), 1)
        .with_context(|| open_error(&path))?;
    let present = usage.read(0).map_or(0, |usage| usage.hash_fingerprint);
    Ok(present != 0 && present != fingerprint(seed))
}

fn open_error(path: &Path) -> String {
    format!("could not open {}", path.display())
}

/// Sets the pinned table of a family aside if it can't be used, and opens all that were set aside.
fn sources<F: HasFlowTable>(
    directory: &Path,
    parameters: LoadParameters,
    is_rehashed: bool,
) -> Result<Vec<Source<F>>> {
    let aside = |number: u32| directory.join(format!("{}{SET_ASIDE}{number}", F::MAP));
    let path = directory.join(F::MAP);
    if path.exists() {
        let info = MapInfo::from_pin(&path)
            .with_context(|| format!("could not read the size of {}", path.display()))?;
        if info.max_entries() != parameters.flow_buckets() || is_rehashed {
            let free = (0..)
                .map(aside)
                .find(|aside| !aside.exists())
                .context("no free name for a flow table: remove unused pins")?;
            fs::rename(&path, &free)
                .with_context(|| format!("could not rename {}", path.display()))?;
        }
    }
    let mut sources = Vec::new();
    let layout_7 = directory.join(format!("{}{LAYOUT_7}", F::MAP));
    let aside = (0..).map(aside).take_while(|aside| aside.exists());
    for path in aside.chain(layout_7.exists().then(|| layout_7.clone())) {
        let open = || -> Result<FlowTable<F>> {
            let buckets = MapInfo::from_pin(&path)?.max_entries();
            let map = MapData::from_pin(&path)?;
            Ok(FlowTable::new(
                (map.fd().as_fd(), buckets),
                parameters.seed,
            )?)
        };
        let table = open().with_context(|| open_error(&path))?;
        let is_layout_7 = path == layout_7;
        sources.push(Source {
            path,
            table,
            is_layout_7,
        });
    }
    Ok(sources)
}

fn copy_all<F: HasFlowTable>(
    sources: &[Source<F>],
    tables: &FlowTableSet,
    total: &mut Copied,
) -> Result<()> {
    for source in sources {
        let table = if source.is_layout_7 {
            let converted = source.table.converted(convert_bucket);
            converted.context("no memory to convert the flows of layout 7")?
        } else {
            source.table.clone()
        };
        for flow in table.entries(0) {
            if flow.entry().direction() == Direction::ToService
                && let Some(peer) = table.peer(&flow)
            {
                copy_flow(flow, peer, tables, total, source.is_layout_7);
            }
        }
    }
    Ok(())
}

/// Copies a flow, or the state of its entries if the new table has them. `is_uncounted` states that the present counts of
/// flows do not have it.
fn copy_flow<F: HasFlowTable>(
    flow: FlowRef<F>,
    peer: FlowRef<F>,
    tables: &FlowTableSet,
    total: &mut Copied,
    is_uncounted: bool,
) {
    let table = F::flow_table(tables);
    let (key, reverse_key) = (flow.place.key(), peer.place.key());
    if let (Some(mut copy), Some(mut reverse)) = (table.get(&key), table.get(&reverse_key)) {
        copy_state(&flow, &mut copy);
        copy_state(&peer, &mut reverse);
        return;
    }
    // The reverse entry first: it reserves the source port.
    let reverse = table.insert(&reverse_key, &peer.place.flow(), peer.control);
    let Ok(reverse) = reverse else {
        total.lost += 1;
        return;
    };
    match table.insert(&key, &flow.place.flow(), flow.control) {
        Ok(copy) => {
            copy.place.set_peer(reverse.index);
            reverse.place.set_peer(copy.index);
            total.copied += 1;
            if is_uncounted && !copy.control.is(PlaceState::Closed) {
                let established = i64::from(copy.control.is_confirmed());
                tables.adjust_usage(copy.entry().connection_slot(), 1, established);
                tables.adjust_table_usage::<F>(established);
            }
        }
        Err(_) => {
            tables.remove(reverse);
            total.lost += 1;
        }
    }
}

/// Copies the state of an entry that packets have changed since it was copied, unless packets have changed the copy.
fn copy_state<F: HasFlowTable>(from: &FlowRef<F>, to: &mut FlowRef<F>) {
    if to.entry().last_seen() > from.entry().last_seen() || to.control.is(PlaceState::Closed) {
        return;
    }
    let _before = to.update(|present| {
        let state = from.control.state();
        let changed = present
            .with_state(state)
            .with_flags(from.control.flags_seen());
        // An entry that was removed while it is pinned has the same version still.
        (present.is_visible() && changed != present).then_some(changed)
    });
    to.set_last_ack(from.last_ack());
}
