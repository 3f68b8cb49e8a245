//! Allocation of endpoint addresses from the pool of a network.

use std::net::IpAddr;

use ring::digest::{SHA256, digest};

use crate::model::{
    HostAddresses, Network, Problem, ProblemCode, Reference, State,
    address::{AddressRange, check_host},
    occupancy::Occupancy,
    operations::endpoint::check_free,
};

/// Returns free addresses of the network's pool, one of each family that the pool has.
///
/// The search starts at an offset that is a hash of the endpoint's reference, so that an endpoint that is created again
/// is likely to get the address that it had.
///
/// # Errors
/// The network has no pool, or no free address was found in it.
pub(super) fn allocate(
    state: &State,
    host: &HostAddresses,
    reference: &Reference,
    network: &Network,
    endpoint: &Reference,
) -> Result<Vec<IpAddr>, Problem> {
    if network.pool.is_empty() {
        return Err(Problem::invalid(
            "addresses",
            format!("network {reference} has no address pool: an endpoint there needs an address"),
        ));
    }
    let mut addresses = Vec::new();
    for v4 in [true, false] {
        let of_family = |range: &&AddressRange| range.ends().0.is_ipv4() == v4;
        let pool: Vec<AddressRange> = network.pool.iter().filter(of_family).copied().collect();
        if pool.is_empty() {
            continue;
        }
        let start = digest(&SHA256, endpoint.to_string().as_bytes());
        let start = start.as_ref().iter().take(8);
        let start = start.fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let is_free = |address: IpAddr| {
            check_host("", address).is_ok()
                && network.check_member("", address).is_ok()
                && host.conflict(state, reference, network, address).is_none()
                && check_free(state, reference, address).is_ok()
        };
        let occupancy = state.occupancy(reference);
        let found = search(&pool, start, occupancy, is_free).map_err(|exhausted| {
            let family = if v4 { "IPv4" } else { "IPv6" };
            let none = format!("the pool of network {reference} has no free {family} address");
            let detail = match exhausted {
                AllocationError::PoolExhausted => none,
                AllocationError::AttemptsExhausted => format!(
                    "{none} among the {MAX_TRIES} that were tried: choose an address, or enlarge the pool"
                ),
            };
            Problem::new(ProblemCode::LimitReached, detail).at("addresses")
        })?;
        addresses.push(found);
    }
    Ok(addresses)
}

/// Maximum number of addresses of a pool that are tried. All other operations wait while an address is searched.
const MAX_TRIES: usize = 1 << 16;

/// Reasons why a search finds no free address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AllocationError {
    /// No address of the pool is free.
    PoolExhausted,
    /// [`MAX_TRIES`] addresses were tried, and none was free.
    AttemptsExhausted,
}

/// Returns the first free address of the pool from offset `start` on, modulo the size of the pool.
///
/// An SNAT range is skipped in one try, independent of its size.
fn search(
    pool: &[AddressRange],
    start: u64,
    occupancy: &Occupancy,
    is_free: impl Fn(IpAddr) -> bool,
) -> Result<IpAddr, AllocationError> {
    let count = pool.iter().map(|range| range.count());
    let count = count.fold(0u64, u64::saturating_add);
    let start = start % count.max(1);
    let (mut step, mut tries) = (0u64, 0);
    while step < count {
        if tries == MAX_TRIES {
            return Err(AllocationError::AttemptsExhausted);
        }
        tries += 1;
        let (range, address) = nth_address(pool, start, step, count);
        let skipped = match occupancy.nat_range_at(address) {
            Some((nat_range, _)) => nat_range
                .count_after(address)
                .min(range.count_after(address)),
            None if is_free(address) => return Ok(address),
            None => 0,
        };
        step = step.saturating_add(skipped).saturating_add(1);
    }
    Err(AllocationError::PoolExhausted)
}

/// Returns the address of the pool at offset `start + step` modulo `count`, and the range that contains it.
fn nth_address(pool: &[AddressRange], start: u64, step: u64, count: u64) -> (AddressRange, IpAddr) {
    let offset = (u128::from(start) + u128::from(step)) % u128::from(count);
    let mut offset = u64::try_from(offset).unwrap_or_default();
    for range in pool {
        if offset < range.count() {
            return (*range, range.nth(offset));
        }
        offset -= range.count();
    }
    (pool[0], pool[0].ends().0)
}
