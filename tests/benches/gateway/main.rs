//! What the gateway costs, measured: `cargo xtask bench`.

mod assembler;
mod packets;
mod wrapper;

fn main() {
    for cost in packets::measure(None) {
        println!("{:<40} {:>8.1} ns", cost.name, cost.nanoseconds);
    }
}
