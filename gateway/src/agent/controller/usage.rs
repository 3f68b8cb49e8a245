//! Accounting of flows and SNAT ports by the results of flow GC.

use std::net::IpAddr;

use gateway_common::{
    V4, V6,
    flow::FlowCount,
    pipeline::{PRIVILEGED_PORT_COUNT, SOURCE_PORT_COUNT},
};
use log::{info, warn};

use crate::{
    agent::{
        controller::{Controller, Observations},
        flow_gc::{GcReport, GcSnapshot},
        status::FlowTableStatus,
    },
    bpf::flow_tables::FlowTableSet,
};

impl Controller {
    /// Records the usage of SNAT addresses and of the flow tables after flow GC.
    pub(in crate::agent) fn account_usage(&mut self, snapshot: &GcSnapshot, report: GcReport) {
        self.drop_departed(snapshot.departed_backends());
        if let Err(error) = self.release_drained(snapshot, &report) {
            warn!("snat: drained addresses not released error=\"{error:#}\"");
        }
        let backends = &self.datapath.map_snapshot.backends;
        let flows = (0u32..).zip(&report.backend_flows);
        let flows = flows.filter_map(|(slot, flows)| {
            let backend = backends
                .get(&slot)
                .filter(|backend| backend.resource != 0)?;
            Some(((backend.resource, IpAddr::from(backend.address)), *flows))
        });
        self.observed.backend_flows = flows.filter(|(_, flows)| *flows > 0).collect();
        self.observed.record_snat_usage(report);
        self.observed
            .record_flow_table_usage(self.datapath.maps.flow_tables());
    }
}

impl Observations {
    /// Records the usage of the flow tables, and logs when one becomes nearly full.
    fn record_flow_table_usage(&mut self, tables: &FlowTableSet) {
        let status = |established: FlowCount| FlowTableStatus {
            size: tables.size().into(),
            established: established.get(),
        };
        let now = [
            status(tables.table_usage::<V4>().established),
            status(tables.table_usage::<V6>().established),
        ];
        for (name, (before, now)) in ["ipv4", "ipv6"]
            .iter()
            .zip(self.flow_tables.iter().zip(&now))
        {
            let (established, size) = (now.established, now.size);
            if now.is_nearly_full() && !before.is_nearly_full() {
                warn!(
                    "flow table: nearly full family={name} established={established} size={size}: set a \
                     larger flow_table_size, or limit the connections of services"
                );
            } else if before.is_nearly_full() && !now.is_nearly_full() {
                info!("flow table: no longer nearly full family={name} established={established}");
            }
        }
        self.flow_tables = now;
    }

    /// Records the usage of SNAT addresses, and logs where ports become scarce.
    fn record_snat_usage(&mut self, report: GcReport) {
        for (key, usage) in &report.snat {
            let (network, address) = (key.0, IpAddr::from(key.1));
            let before = self.snat_usage.get(&(network, address));
            let before = before.copied().unwrap_or_default();
            if usage.are_ports_scarce() && !before.are_ports_scarce() {
                warn!(
                    "snat: ports scarce address={address} ports_in_use={} ports={SOURCE_PORT_COUNT} \
                     privileged_ports_in_use={} privileged_ports={PRIVILEGED_PORT_COUNT}: give its service more \
                     SNAT addresses",
                    usage.ports, usage.privileged_ports
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
