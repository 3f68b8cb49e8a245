//! Operations on a small state: accepted requests, and the problems of refused ones.

mod addresses;
mod apply;
mod connections;
mod endpoints;
mod host;
mod objects;
mod occupancy;
mod services;
mod world;

pub(crate) use world::{Counted, World};

use super::*;
use crate::model::{ConnectionState, Decision};

use world::{body, name, reference, refused, service_request, update_consumer_network};
