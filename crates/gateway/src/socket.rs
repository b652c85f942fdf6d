//! What is set on every socket.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// From the last byte to the first probe, between probes, and how many.
const KEEPALIVE: Duration = Duration::from_secs(10);
const PROBE: Duration = Duration::from_secs(3);
const PROBES: u32 = 4;

/// No delay, and a peer that is gone is noticed: probes while nothing is sent, a bound for what is.
/// What is accepted from a listening socket inherits all of it.
pub fn prepare(stream: &impl AsFd, user_timeout: Duration) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_tcp_nodelay(stream, true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, PROBE)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    let bound = u32::try_from(user_timeout.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, bound)?;
    Ok(())
}
