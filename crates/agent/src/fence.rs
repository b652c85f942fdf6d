//! The last resort: PostgreSQL is stopped whatever its driver and its room do.
//!
//! It needs nobody's help: what belongs to a data directory is found by where it works. It ends
//! nothing that is not this agent's: it must own the data directory, and a server of another
//! program that somebody runs there by hand is left alone.

use std::path::PathBuf;
use std::sync::Arc;

use crate::postgres::Instance;
use crate::postgres::create::{self, Lock};
use crate::postgres::process::{self, Postmaster};

/// Ends every process of the server; returns when none is left. `lock`: that of the data
/// directory, if it is held already.
pub(crate) async fn sweep(instance: &Instance, lock: Option<Arc<Lock>>) {
    let locked = match lock {
        Some(lock) => Ok(lock),
        None => create::lock(instance).map(Arc::new),
    };
    let _held = match locked {
        Ok(lock) => lock,
        Err(error) => {
            tracing::info!(%error, "the data directory is not this agent's: nothing is stopped");
            return;
        }
    };
    let postmaster = Postmaster::adopt(instance);
    if postmaster.as_ref().and_then(Postmaster::program).is_some_and(|it| is_other(instance, it)) {
        tracing::error!("another program's PostgreSQL runs on the data directory: stop it by hand");
        return;
    }
    process::stop_at_once(instance, postmaster.as_ref()).await;
}

/// A program that was replaced on disk while it ran is still ours.
fn is_other(instance: &Instance, program: PathBuf) -> bool {
    let own = std::fs::canonicalize(instance.program("postgres")).ok();
    let replaced = program.to_string_lossy().ends_with(" (deleted)");
    own.is_some_and(|own| own != program) && !replaced
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;
    use std::process::{Child, Command};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::postgres::{OsUser, instance};

    /// An instance in a directory of its own, with a process that looks like its PostgreSQL.
    pub(crate) struct Stage {
        pub instance: Instance,
        pub server: Child,
        dir: PathBuf,
    }

    impl Stage {
        pub(crate) fn new() -> Stage {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("backstay-fence-{}-{number}", std::process::id());
            let dir = std::env::temp_dir().join(name);
            let mut instance = instance::tests::instance();
            instance.data_dir = dir.join("data");
            instance.files_dir = dir.join("files");
            instance.bin_dir = dir.join("bin");
            instance.os_user = OsUser::unchanged("nobody");
            std::fs::create_dir_all(&instance.data_dir).unwrap();
            let server = start(&dir, &instance.data_dir);
            Stage { instance, server, dir }
        }

        /// Whether the process has ended; then it is taken away.
        pub(crate) fn has_ended(&mut self) -> bool {
            // An error: another test's driver has taken it away.
            !matches!(self.server.try_wait(), Ok(None))
        }
    }

    fn start(dir: &Path, data_dir: &Path) -> Child {
        let program = dir.join("postgres");
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let server = Command::new(program).arg("600").current_dir(data_dir).spawn().unwrap();
        // It gets its name only a moment after it was started.
        let name = format!("/proc/{}/comm", server.id());
        while std::fs::read_to_string(&name).unwrap() != "postgres\n" {
            std::thread::yield_now();
        }
        server
    }

    impl Drop for Stage {
        fn drop(&mut self) {
            let _ = self.server.kill();
            let _ = self.server.wait();
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    #[tokio::test]
    async fn nothing_that_works_in_the_data_directory_is_left() {
        let mut stage = Stage::new();
        sweep(&stage.instance, None).await;
        assert!(stage.has_ended());
    }

    #[tokio::test]
    async fn a_data_directory_of_another_agent_is_left_alone() {
        let mut stage = Stage::new();
        let _other = create::lock(&stage.instance).unwrap();
        sweep(&stage.instance, None).await;
        assert!(!stage.has_ended());
    }
}
