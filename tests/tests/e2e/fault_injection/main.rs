//! Fault injection: the agent is killed, interfaces disappear, files are damaged. The data path continues where it can,
//! and each problem is reported in one sentence.

mod echo;
mod interfaces;
mod restart;
mod startup;
mod upgrade;
