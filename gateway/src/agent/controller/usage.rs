//! Accounting of flows and SNAT ports by the results of flow GC.

use std::net::IpAddr;

use anyhow::Result;
use gateway_common::pipeline::SOURCE_PORT_COUNT;
use log::{info, warn};

use crate::agent::{
    controller::{Controller, Datapath, Observations},
    flow_gc::{GcReport, GcSnapshot},
};

impl Controller {
    /// Corrects the data path's flow counts by the report of flow GC, and records the usage of SNAT addresses.
    pub(in crate::agent) fn account_usage(
        &mut self,
        snapshot: &GcSnapshot,
        report: GcReport,
    ) -> Result<()> {
        if !report.needs_recheck {
            self.drop_departed(snapshot.departed_backends());
        }
        self.datapath.correct_flow_counts(snapshot, &report)?;
        self.observed.record_snat_usage(report);
        Ok(())
    }
}

impl Datapath {
    fn correct_flow_counts(&mut self, snapshot: &GcSnapshot, report: &GcReport) -> Result<()> {
        for slot in snapshot.slots_with_flows(report) {
            let before = snapshot.flow_count(slot);
            let counted = report.flows.get(&slot).copied().unwrap_or(0);
            if counted == before {
                continue;
            }
            // Flows that were opened or closed during the collection are in the new count only.
            let mut usage = self.maps.usage(slot)?;
            let flows = (counted + usage.flows).saturating_sub(before);
            if flows != usage.flows {
                usage.flows = flows;
                self.maps.set_usage(slot, usage)?;
            }
        }
        Ok(())
    }
}

impl Observations {
    /// Records the usage of SNAT addresses, and logs where ports become scarce.
    fn record_snat_usage(&mut self, report: GcReport) {
        for (key, usage) in &report.snat {
            let (network, address) = (key.0, IpAddr::from(key.1));
            let before = self.snat_usage.get(&(network, address));
            let before = before.copied().unwrap_or_default();
            if usage.are_ports_scarce() && !before.are_ports_scarce() {
                warn!(
                    "snat: ports scarce address={address} ports_in_use={} ports={SOURCE_PORT_COUNT}: give \
                     its service more SNAT addresses",
                    usage.ports
                );
            } else if before.are_ports_scarce() && !usage.are_ports_scarce() {
                info!("snat: ports no longer scarce address={address}");
            }
        }
        let usage = report.snat.into_iter();
        self.snat_usage = usage
            .map(|((network, address), usage)| ((network, IpAddr::from(address)), usage))
            .collect();
    }
}
