//! `topology new`: a commented document from flags, and from questions on a terminal.

use std::fs::OpenOptions;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use topology::draft::{Draft, Place};
use topology::examine;
use topology::render::{self, Colours};

use crate::args::NewArgs;
use crate::output::{self, hinted, program};

pub fn run(args: &NewArgs) -> anyhow::Result<ExitCode> {
    if args.file.exists() {
        return Err(hinted(
            format!("{} exists, and is not overwritten", args.file.display()),
            "name another file, or change that one: it is yours to edit",
        ));
    }
    let draft = draft(args, std::io::stdin().is_terminal())?;
    let text = draft.text();
    let examined = examine(&text);
    let name = args.file.display().to_string();
    if examined.errors() > 0 {
        let errors = render::text(&name, &text, &examined.diagnostics, Colours::Never);
        output::talk(errors.trim_end());
        return Err(hinted("nothing was written", "give other names or hosts"));
    }
    write_new(&args.file, &text)?;
    for found in &examined.diagnostics {
        output::talk(&format!("warning: {}: {}", found.message, found.remedy));
    }
    let program = program();
    output::talk(&format!("look at it, then: {program} topology publish {name}"));
    output::data(&name);
    Ok(ExitCode::SUCCESS)
}

/// Never over a file that is there.
pub fn write_new(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .with_context(|| format!("write {}", file.display()))?;
    opened.write_all(text.as_bytes()).with_context(|| format!("write {}", file.display()))
}

fn draft(args: &NewArgs, ask: bool) -> anyhow::Result<Draft> {
    let places = |all: &[String]| all.iter().map(|text| place(text)).collect::<Result<_, _>>();
    let missing = |flag: &str, what: &str| {
        hinted(format!("{what} is not given"), format!("name it with {flag}, or ask on a terminal"))
    };
    let deployment = match (&args.name, ask) {
        (Some(name), _) => name.clone(),
        (None, true) => question("What is the deployment called?", Some("production"))?,
        (None, false) => return Err(missing("--name NAME", "the deployment's name")),
    };
    let servers: Vec<Place> = match (args.servers.is_empty(), ask) {
        (false, _) => places(&args.servers)?,
        (true, true) => {
            let mut servers = vec![place(&question(
                "The first server, as NAME=HOST (be1=be1.example.com)?",
                None,
            )?)?];
            let second = question("The second server, its mirror (empty: none)?", Some(""))?;
            if !second.is_empty() {
                servers.push(place(&second)?);
            }
            servers
        }
        (true, false) => return Err(missing("--server NAME=HOST", "a server")),
    };
    let witness = match (&args.witness, ask && args.servers.is_empty() && servers.len() == 2) {
        (Some(witness), _) => Some(place(witness)?),
        (None, true) => {
            let said = question(
                "The witness, a third machine: with it failover is automatic (empty: none)?",
                Some(""),
            )?;
            if said.is_empty() { None } else { Some(place(&said)?) }
        }
        (None, false) => None,
    };
    let pool = match (&args.pool, ask) {
        (Some(pool), _) => pool.clone(),
        (None, true) => question("What is the first pool called?", Some("pool01"))?,
        (None, false) => return Err(missing("--pool NAME", "the first pool's name")),
    };
    let databases = match (args.databases.is_empty(), ask && args.pool.is_none()) {
        (true, true) => {
            let said = question("Its databases, separated by blanks (empty: later)?", Some(""))?;
            said.split_whitespace().map(str::to_owned).collect()
        }
        (true | false, _) => args.databases.clone(),
    };
    let front_ends = places(&args.front_ends)?;
    Ok(Draft { deployment, servers, witness, pool, databases, front_ends })
}

fn place(text: &str) -> anyhow::Result<Place> {
    match text.split_once('=') {
        Some((name, host)) if !name.trim().is_empty() && !host.trim().is_empty() => {
            Ok(Place::new(name.trim(), host.trim()))
        }
        Some(_) | None => Err(hinted(
            format!("{text:?} is no name and host"),
            "write NAME=HOST, such as be1=be1.example.com",
        )),
    }
}

fn question(text: &str, otherwise: Option<&str>) -> anyhow::Result<String> {
    loop {
        let shown = otherwise.filter(|it| !it.is_empty()).map(|it| format!(" [{it}]"));
        output::talk(&format!("{text}{}", shown.unwrap_or_default()));
        let mut line = String::new();
        let count = std::io::stdin().lock().read_line(&mut line).context("read the answer")?;
        anyhow::ensure!(count > 0, "there is no answer; nothing was written");
        match (line.trim(), otherwise) {
            ("", Some(otherwise)) => return Ok(otherwise.to_owned()),
            ("", None) => {}
            (said, _) => return Ok(said.to_owned()),
        }
    }
}

/// A question that takes a yes.
pub fn agreed(text: &str) -> anyhow::Result<bool> {
    Ok(matches!(question(&format!("{text} (yes/no)"), Some("no"))?.as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> NewArgs {
        NewArgs {
            file: "x".into(),
            name: Some("production".into()),
            servers: vec!["be1=be1.example.com".into(), "be2=be2.example.com".into()],
            witness: Some("wit1=wit1.example.com".into()),
            pool: Some("orders".into()),
            databases: vec!["shop".into()],
            front_ends: Vec::new(),
        }
    }

    #[test]
    fn flags_alone_make_a_document() {
        let text = draft(&args(), false).unwrap().text();
        assert_eq!(examine(&text).errors(), 0, "{text}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = draft(&NewArgs { pool: None, ..args() }, false).unwrap_err();
        assert_eq!(error.to_string(), "the first pool's name is not given");
        let error = draft(&NewArgs { servers: vec!["be1".into()], ..args() }, false).unwrap_err();
        assert_eq!(error.to_string(), "\"be1\" is no name and host");
    }
}
