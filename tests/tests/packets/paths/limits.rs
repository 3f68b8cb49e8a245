//! What an endpoint may use. Meters are set far ahead, so that no clock matters.

use gateway_common::{DropReason, maps::Usage};
use serde_json::json;
use tests::{
    lab::{BACKEND_MAC, Side},
    path::{Path, datagram, error},
};

use super::{asked, port_unreachable};
use crate::{PathRow, run_paths};

const ROWS: &[PathRow] = &[
    ("an endpoint has no more flows than it may", |lab, path| {
        lab.change(path.service, |spec| spec["connection_limit"] = 2.into());
        path.connect(lab);
        let out = lab.send(Side::A, &path.question(b"x"));
        path.went_to_service(&out, 53);
        let other = (path.client_ip(), 40_001).into();
        let third = datagram(other, path.name_server(), b"x");
        lab.send(Side::A, &third).dropped(DropReason::FlowLimit);
        // Those it has go on, and one that ends makes room.
        lab.send(Side::A, &path.question(b"x"))
            .forwarded(Side::Provider);
        lab.set_usage(
            path.endpoint_name,
            Usage {
                flows: 1,
                ..Usage::default()
            },
        );
        lab.send(Side::A, &third).forwarded(Side::Provider);
    }),
    (
        "one that opens flows too fast is held up, and its flows are not",
        |lab, path| {
            lab.change(path.service, |spec| spec["new_connection_rate"] = 10.into());
            let out = lab.send(Side::A, &path.question(b"x"));
            path.went_to_service(&out, 53);
            lab.set_usage(
                path.endpoint_name,
                Usage {
                    new_flow: u64::MAX / 2,
                    ..Usage::default()
                },
            );
            lab.send(Side::A, &path.segment().syn(1))
                .dropped(DropReason::NewFlowRate);
            lab.send(Side::A, &path.question(b"x"))
                .forwarded(Side::Provider);
        },
    ),
    (
        "packets beyond the rate are counted, each way by itself",
        |lab, path| {
            lab.change(path.service, |spec| spec["packet_rate"] = 1_000.into());
            let flow = path.connect(lab);
            let far = u64::MAX / 2;
            lab.set_usage(
                path.endpoint_name,
                Usage {
                    packets: [far, 0],
                    ..Usage::default()
                },
            );
            lab.send(Side::A, &path.from_client())
                .dropped(DropReason::PacketRate);
            lab.send(Side::Provider, &flow.from_backend())
                .forwarded(Side::A);
            lab.set_usage(
                path.endpoint_name,
                Usage {
                    packets: [0, far],
                    ..Usage::default()
                },
            );
            lab.send(Side::A, &path.from_client())
                .forwarded(Side::Provider);
            lab.send(Side::Provider, &flow.from_backend())
                .dropped(DropReason::PacketRate);
        },
    ),
    ("and so are bits", |lab, path| {
        lab.change(path.service, |spec| spec["bit_rate"] = 1_000_000.into());
        let flow = path.connect(lab);
        let far = u64::MAX / 2;
        lab.set_usage(
            path.endpoint_name,
            Usage {
                bytes: [far, far],
                ..Usage::default()
            },
        );
        lab.send(Side::A, &path.from_client())
            .dropped(DropReason::PacketRate);
        lab.send(Side::Provider, &flow.from_backend())
            .dropped(DropReason::PacketRate);
    }),
    (
        "errors of others are packets like others: counted, and kept to the rate",
        |lab, path| {
            lab.change(path.service, |spec| spec["packet_rate"] = 1_000.into());
            let (flow, left) = asked(lab, path);
            let kind = port_unreachable(path.provider_is_v4());
            let refusal =
                error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, 500).from(BACKEND_MAC);
            let before = lab.crossed(path.endpoint_name);
            lab.send(Side::Provider, &refusal).forwarded(Side::A);
            let after = lab.crossed(path.endpoint_name);
            assert_eq!(after.packets_to_consumer, before.packets_to_consumer + 1);
            let far = u64::MAX / 2;
            lab.set_usage(
                path.endpoint_name,
                Usage {
                    packets: [0, far],
                    ..Usage::default()
                },
            );
            lab.send(Side::Provider, &refusal)
                .dropped(DropReason::PacketRate);
        },
    ),
    ("a limit of one endpoint is not another's", |lab, path| {
        lab.change(path.service, |spec| spec["connection_limit"] = 1.into());
        path.connect(lab);
        let other = if path.service == "web" {
            Path::ALL[0]
        } else {
            Path::ALL[1]
        };
        let syn = other.segment().syn(1).at(Side::B);
        lab.send(Side::B, &syn).forwarded(Side::Provider);
    }),
    ("a limit that is taken back is none", |lab, path| {
        lab.change(path.service, |spec| spec["connection_limit"] = 1.into());
        path.connect(lab);
        lab.send(Side::A, &path.question(b"x"))
            .dropped(DropReason::FlowLimit);
        lab.change(path.service, |spec| spec["connection_limit"] = json!(null));
        lab.send(Side::A, &path.question(b"x"))
            .forwarded(Side::Provider);
    }),
];

#[test]
fn each_path_keeps_limits() {
    run_paths(ROWS);
}
