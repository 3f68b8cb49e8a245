//! Network devices as operators meet them: settings that change at the far end, wrong cables, strict filters of the
//! host, lost netlink events, and a log that names the packets.

mod cable;
mod overrun;
mod packet_log;
mod redirect;
mod reverse_path;
