//! A directory for one test, and the binary run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A fresh directory, removed at the end of the test.
pub struct Place {
    pub dir: PathBuf,
}

impl Place {
    pub fn new(name: &str) -> Place {
        let dir = std::env::temp_dir().join(format!("backstay-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        crate::deadline::watch(&dir);
        Place { dir }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
        command
            .args(args)
            .current_dir(&self.dir)
            .env("NO_COLOR", "1")
            .env("COLUMNS", "100")
            .env_remove("BACKSTAY_DEPLOYMENT")
            .env_remove("BACKSTAY_CONNECT");
        command
    }

    pub fn run(&self, args: &[&str]) -> Told {
        Told::from(self.command(args).output().unwrap())
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.dir.join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Told {
    pub code: i32,
    pub data: String,
    pub talk: String,
}

impl From<Output> for Told {
    fn from(output: Output) -> Told {
        Told {
            code: output.status.code().unwrap_or(-1),
            data: String::from_utf8(output.stdout).unwrap(),
            talk: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Told {
    #[track_caller]
    pub fn expect(self, code: i32) -> Told {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.data, self.talk);
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap()
    }
}
