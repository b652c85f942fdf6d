//! A handle on a process that no other process can ever take, as a process id can.
//!
//! Its end is seen at once, without polling; a zombie counts as ended. Signals through the handle
//! reach this very process or nobody.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
pub struct ProcessHandle {
    handle: AsyncFd<OwnedFd>,
}

impl ProcessHandle {
    /// Must be called within a tokio runtime. A process that is gone is an error.
    pub fn open(pid: u32) -> io::Result<ProcessHandle> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("not a process id"))?;
        let handle = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // Deprecated for types that may hand out another descriptor later; `OwnedFd` cannot.
        #[expect(deprecated, reason = "the replacement is unsafe, and this use is sound")]
        let handle = AsyncFd::with_interest(handle, Interest::READABLE)?;
        Ok(ProcessHandle { handle })
    }

    /// Ends when the process has. Safe to drop at any moment.
    pub async fn gone(&self) {
        // An error means that the runtime shuts down; then nobody waits for the answer.
        let _ = self.handle.readable().await.map(|mut ready| ready.retain_ready());
    }

    /// Sends a signal. A process that is gone is not an error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
