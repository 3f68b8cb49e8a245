//! Services whose backends die, drain or are created again, and traps for operators: health checks, events about
//! health, deadlines of drains, reconnection, interfaces that the host needs, and the check of a configuration.

mod checks;
mod config_check;
mod drain;
mod host_interfaces;
mod reconnect;
mod servers;
