//! Running other programs, with errors that name the whole command.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::output;

/// The command as a person would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The `cargo` that runs this chore, in the root of the repository.
pub fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(crate::root());
    command
}

/// Runs to success, with its output going where ours goes.
pub fn pass(command: &mut Command) -> Result<()> {
    let shown = line(command);
    let status = command.status().with_context(|| format!("start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Runs to success and gives its standard output.
pub fn read(command: &mut Command) -> Result<String> {
    let shown = line(command);
    let output = command.output().with_context(|| format!("start `{shown}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}): {}", output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("read what `{shown}` printed"))
}

/// Runs to the end, passing its standard output on line by line; gives the lines that `keep`
/// chooses, and whether it succeeded.
pub fn watch(command: &mut Command, keep: impl Fn(&str) -> bool) -> Result<(Vec<String>, bool)> {
    let shown = line(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("start `{shown}`"))?;
    let mut kept = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).lines() {
            let text = text.with_context(|| format!("read what `{shown}` printed"))?;
            output::data(&text);
            if keep(&text) {
                kept.push(text);
            }
        }
    }
    let status = child.wait().with_context(|| format!("wait for `{shown}`"))?;
    Ok((kept, status.success()))
}
