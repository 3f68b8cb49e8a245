//! The results as tables, JSON and a drawing.

use std::{fmt::Write as _, fs};

use serde::Serialize;

use crate::{gc::Collections, maglev::Table, memory::Memory, packets::Cost, paths::Figures};

/// The results of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    packets: Vec<Cost>,
    paths: Vec<Figures>,
    memory_of_a_flow: Memory,
    garbage_collection: Collections,
    maglev: Vec<Table>,
    targets: Vec<TargetResult>,
}

/// The machine of the run.
#[derive(Clone, Debug, Serialize)]
struct Machine {
    processor: String,
    processors: usize,
    kernel: String,
}

impl Machine {
    fn current() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let model = processors.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == "model name").then(|| value.trim().to_owned())
        });
        Self {
            processor: model.unwrap_or_else(|| "unknown".to_owned()),
            processors: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// A measured ratio and its target.
#[derive(Clone, Debug, Serialize)]
struct TargetResult {
    name: &'static str,
    measured: f64,
    target: Target,
    met: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Report {
    /// Builds a report and evaluates the targets.
    pub(crate) fn new(
        packets: Vec<Cost>,
        paths: Vec<Figures>,
        memory_of_a_flow: Memory,
        garbage_collection: Collections,
        maglev: Vec<Table>,
    ) -> Self {
        let mut report = Self {
            machine: Machine::current(),
            packets,
            paths,
            memory_of_a_flow,
            garbage_collection,
            maglev,
            targets: Vec::new(),
        };
        report.targets = report.evaluate_targets();
        report
    }

    fn cost(&self, name: &str) -> f64 {
        let mut costs = self.packets.iter();
        costs
            .find(|cost| cost.name == name)
            .map_or(f64::NAN, |cost| cost.nanoseconds)
    }

    fn evaluate_targets(&self) -> Vec<TargetResult> {
        let of = |one, other| self.cost(one) / self.cost(other);
        let of_path = |name: &str| self.paths.iter().find(|path| path.name == name);
        let beside = |value: &dyn Fn(&Figures) -> Option<f64>| {
            let gateway = of_path("gateway").and_then(value).unwrap_or(f64::NAN);
            let nftables = of_path("nftables").and_then(value).unwrap_or(f64::NAN);
            gateway / nftables
        };
        let targets = [
            (
                "established, against the bare program, one flow",
                of("established, TCP", "bare program, IPv4"),
                Target::AtMost(1.0),
            ),
            (
                "the same, one of 131,072 flows",
                of(
                    "established, 1 of 131,072 flows",
                    "bare program, 1 of 131,072 flows",
                ),
                Target::AtMost(0.55),
            ),
            (
                "the same, one of 524,288 flows",
                of(
                    "established, 1 of 524,288 flows",
                    "bare program, 1 of 524,288 flows",
                ),
                Target::AtMost(0.55),
            ),
            (
                "IPv6 against IPv4",
                of("established, TCP over IPv6", "established, TCP"),
                Target::AtMost(1.25),
            ),
            (
                "one of 524,288 flows against the only one",
                of("established, 1 of 524,288 flows", "established, TCP"),
                Target::AtMost(7.0),
            ),
            (
                "a new flow against an established packet of many flows",
                of("new flow, TCP", "established, 1 of 131,072 flows"),
                Target::AtMost(4.0),
            ),
            (
                "a denied packet against an established one",
                of("denied", "established, TCP"),
                Target::AtMost(1.0),
            ),
            (
                "packets a second against nftables",
                beside(&|path| path.packets),
                Target::AtLeast(5.0),
            ),
            (
                "new flows a second against nftables",
                beside(&|path| path.new_flows),
                Target::AtLeast(4.0),
            ),
            (
                "99 of 100 packets' time against nftables, in bursts",
                beside(&|path| path.microseconds.map(|times| times[1])),
                Target::AtMost(0.5),
            ),
            (
                "the same, packets one by one",
                beside(&|path| path.microseconds_alone.map(|times| times[1])),
                Target::AtMost(0.5),
            ),
            (
                // The page in front of the table is less than a byte of each flow.
                "bytes of an IPv4 flow",
                self.memory_of_a_flow.ipv4.round(),
                Target::AtMost(256.0),
            ),
            (
                "milliseconds of a garbage collection",
                self.garbage_collection.of_idle_flows,
                Target::AtMost(60.0),
            ),
        ];
        let judge = |(what, is, should)| TargetResult {
            name: what,
            measured: is,
            target: should,
            met: match should {
                Target::AtMost(bound) => is <= bound,
                Target::AtLeast(least) => is >= least,
            },
        };
        targets.map(judge).to_vec()
    }

    /// Returns the results as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let Machine {
            processor,
            processors,
            kernel,
        } = &self.machine;
        let _never = writeln!(
            text,
            "{processor}, {processors} processors, Linux {kernel}\n"
        );
        let rows = self.packets.iter();
        let rows =
            rows.map(|cost| vec![cost.name.to_owned(), format!("{:.0} ns", cost.nanoseconds)]);
        table(&mut text, &["A PACKET", "COST"], rows.collect());
        let rows = self.paths.iter().map(|path| {
            let millions =
                |rate: Option<f64>| cell(rate.map(|rate| format!("{:.2} M", rate / 1e6)));
            let bits = |at: usize| {
                cell(
                    path.throughput
                        .map(|rates| format!("{:.1} Gbit/s", rates[at] / 1e9)),
                )
            };
            vec![
                path.name.to_owned(),
                millions(path.packets),
                millions(path.new_flows),
                format_latencies(path.microseconds),
                format_latencies(path.microseconds_alone),
                cell(
                    path.connections
                        .map(|rate| format!("{rate:.0} ({} failed)", path.failed)),
                ),
                bits(0),
                bits(1),
            ]
        });
        let head = [
            "PATH",
            "PACKETS/S",
            "NEW FLOWS/S",
            "IN BURSTS: P50 / P99 / P99.9",
            "ONE BY ONE",
            "CONNECTIONS/S",
            "TCP, 1 STREAM",
            "TCP, 4",
        ];
        table(&mut text, &head, rows.collect());
        let rows = self.maglev.iter().map(Table::row);
        let head = [
            "BACKENDS",
            "PLACES",
            "BUILT IN",
            "SHARES",
            "MOVED WHEN ONE GOES",
        ];
        table(&mut text, &head, rows.collect());
        let Memory {
            table_size,
            places,
            ipv4,
            ipv6,
        } = self.memory_of_a_flow;
        let _never = writeln!(
            text,
            "A flow takes {ipv4:.0} bytes of kernel memory, {ipv6:.0} by IPv6: a table for {table_size} flows has \
             {places} places."
        );
        let Collections {
            entries,
            of_idle_flows,
            of_recent_flows,
        } = self.garbage_collection;
        let _never = writeln!(
            text,
            "A garbage collection of {entries} entries takes {of_idle_flows:.0} ms if all flows are idle, \
             {of_recent_flows:.0} ms if none is.\n"
        );
        let rows = self.targets.iter().map(|target| {
            let should = match target.target {
                Target::AtMost(bound) => format!("at most {bound}"),
                Target::AtLeast(least) => format!("at least {least}"),
            };
            let met = if target.met { "met" } else { "NOT MET" };
            vec![
                target.name.to_owned(),
                format!("{:.2}", target.measured),
                should,
                met.to_owned(),
            ]
        });
        table(
            &mut text,
            &["TARGET", "IS", "SHOULD BE", ""],
            rows.collect(),
        );
        text
    }

    /// Returns a drawing of packet costs.
    pub(crate) fn svg(&self) -> String {
        const ROW: usize = 22;
        const LEFT: f64 = 260.0;
        const WIDTH: f64 = 420.0;
        let height = (self.packets.len() + 1) * ROW + 24;
        let max_cost = self.packets.iter().map(|cost| cost.nanoseconds);
        let max_cost = max_cost.fold(1.0, f64::max);
        // The largest cost is fifty times the smallest.
        let length = |cost: f64| WIDTH * (1.0 + cost.max(0.0)).ln() / (1.0 + max_cost).ln();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"10\" y=\"20\" font-weight=\"bold\">What a packet costs, in nanoseconds \
             (logarithmic)</text>\n"
        );
        for (row, cost) in self.packets.iter().enumerate() {
            let top = (row + 1) * ROW + 10;
            let colour = if cost.name.starts_with("bare") {
                "#9aa5b1"
            } else {
                "#2f6f9f"
            };
            let _never = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{:.0}</text>",
                LEFT - 8.0,
                top + 13,
                cost.name,
                length(cost.nanoseconds),
                LEFT + length(cost.nanoseconds) + 6.0,
                top + 13,
                cost.nanoseconds,
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn format_latencies(of: Option<[f64; 3]>) -> String {
    cell(of.map(|[half, most, nearly]| format!("{half:.1} / {most:.1} / {nearly:.1} us")))
}

fn cell(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

fn table(text: &mut String, head: &[&str], rows: Vec<Vec<String>>) {
    let mut rows = rows;
    rows.insert(0, head.iter().map(|cell| (*cell).to_owned()).collect());
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text.push('\n');
}
