//! `topology publish` and `rollback`: checked, looked at, agreed to, stored, watched.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use protocol::admin::{
    COMMENT_LIMIT, Request, Response, TopologyAnswer, TopologyCopy, TopologyFinding,
    TopologyHeader, TopologyRequest,
};

use super::Known;
use super::document::{Text, marked};
use super::new::agreed;
use super::plan::{Prospect, standing};
use super::site::{Site, who};
use super::versions;
use super::watch::Watch;
use crate::admin::AskError;
use crate::args::PublishArgs;
use crate::clock;
use crate::output::{self, Colour, hinted, program};
use crate::trust_place;

/// The answer waits until the mirror has the document as well.
const STORE: Duration = Duration::from_secs(30);

pub async fn file(known: Known<'_>, file: &Path, how: &PublishArgs) -> anyhow::Result<ExitCode> {
    let text = Text::read(file)?;
    let was_marked = text.made_from.is_some();
    let again = format!("{} topology publish {}", program(), file.display());
    let prospect = Prospect::of(known, text).await?;
    not_overtaken(&prospect)?;
    let whole = prospect.text.text.clone();
    let Some(version) = agree_and_store(&prospect, how).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    if was_marked {
        std::fs::write(file, marked(&whole, version))
            .with_context(|| format!("move the mark on in {}", file.display()))?;
    }
    watch(&prospect, version, how, again).await
}

pub async fn rollback(
    known: Known<'_>,
    version: u64,
    how: &PublishArgs,
) -> anyhow::Result<ExitCode> {
    let site = Site::known(known)?;
    let copy = versions::version(&site, Some(version)).await?;
    let text = Text::new(&format!("version {version}"), &copy.document);
    let prospect = Prospect::of(known, text).await?;
    let mut how = how.clone();
    if how.comment.is_empty() {
        how.comment = format!("back to version {version}");
    }
    let again = format!("{} topology rollback {version}", program());
    match agree_and_store(&prospect, &how).await? {
        Some(version) => watch(&prospect, version, &how, again).await,
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Nobody has published since the document was made.
fn not_overtaken(prospect: &Prospect) -> anyhow::Result<()> {
    let (Some(made_from), Some(published)) = (prospect.text.made_from, &prospect.published) else {
        return Ok(());
    };
    if made_from == published.header.version || prospect.is_published() {
        return Ok(());
    }
    Err(overtaken(made_from, &published.header))
}

fn overtaken(base: u64, newest: &TopologyHeader) -> anyhow::Error {
    let program = program();
    hinted(
        format!("the document was made from version {base}, and {}", who(newest)),
        format!(
            "see what changed: {program} topology diff {base} {}\n\
             then make your change to that one: {program} topology export --output FILE",
            newest.version
        ),
    )
}

/// The version under which the document is published; `None`: it was not to be, or not agreed to.
async fn agree_and_store(prospect: &Prospect, how: &PublishArgs) -> anyhow::Result<Option<u64>> {
    if how.json {
        output::json_line(&prospect.json())?;
    } else if !prospect.is_published() || how.dry_run {
        output::data(&prospect.text(Colour::for_stdout()));
    }
    if !prospect.plan.refusals.is_empty() {
        return Err(hinted(
            "this cannot be published: nothing was changed",
            "the steps above lead there",
        ));
    }
    if !prospect.is_possible() && !prospect.is_published() {
        return Err(hinted(
            "the servers are not ready for it: nothing was changed",
            "mend what is marked as an error above, and publish again",
        ));
    }
    if how.dry_run {
        return Ok(None);
    }
    anyhow::ensure!(
        how.comment.chars().count() <= COMMENT_LIMIT,
        "a comment has at most {COMMENT_LIMIT} characters"
    );
    if prospect.is_published() {
        let version = prospect.base();
        if version == 1 {
            hand_on(prospect).await?;
        }
        output::talk(&format!("version {version} is this document already: watching it"));
        return Ok(Some(version));
    }
    if !how.yes {
        if !std::io::stdin().is_terminal() {
            return Err(hinted(
                "nobody can be asked here: nothing was changed",
                "look at the plan, then publish with --yes",
            ));
        }
        if !agreed("Publish this?")? {
            output::talk("nothing was changed");
            return Ok(None);
        }
    }
    let header = match &prospect.published {
        None => first(prospect, how).await?,
        Some(published) => store(prospect, published, how).await?,
    };
    output::talk(&format!("version {} is published", header.version));
    Ok(Some(header.version))
}

/// Nothing is published yet: every process is handed its copy, and the store gets it from there.
async fn first(prospect: &Prospect, how: &PublishArgs) -> anyhow::Result<TopologyHeader> {
    let author = author(&prospect.site);
    let document = prospect.text.text.clone();
    let copy = copies::seal(1, clock::wall_ms(), &author, &how.comment, document);
    let header = copy.header.clone();
    hand(prospect, copy).await?;
    Ok(header)
}

/// A first publication that was interrupted: whoever has no copy yet gets it now.
async fn hand_on(prospect: &Prospect) -> anyhow::Result<()> {
    match &prospect.published {
        Some(copy) => hand(prospect, copy.clone()).await,
        None => Ok(()),
    }
}

async fn hand(prospect: &Prospect, copy: TopologyCopy) -> anyhow::Result<()> {
    let has = prospect.site.shown(false).await;
    let version = copy.header.version;
    let lacks = |name: &str| {
        let header = has.get(name).and_then(|shown| shown.header.as_ref());
        header.is_none_or(|header| header.version < version)
    };
    let request = Request::Topology(TopologyRequest::Hand { copy });
    let answers = prospect.site.ask_all(&request, STORE, |process| lacks(&process.name)).await;
    let mut problems = Vec::new();
    for (name, answer) in answers {
        match answer {
            Ok(Response::Topology(TopologyAnswer::Handed { .. })) => {}
            Ok(Response::Topology(TopologyAnswer::Faulty { findings })) => {
                problems.push(format!("{name} cannot use it: {}", faults(&findings)));
            }
            Ok(_) => problems.push(format!("{name} answers something else than asked")),
            // It works from its own file.
            Err(AskError::Refused(refusal)) if refusal.code == "front_end" => {}
            Err(AskError::Refused(refusal)) => {
                problems.push(format!("{name} does not take it: {}", refusal.sentence));
            }
            // Whoever is away gets it from the others.
            Err(AskError::Silent { .. }) => {}
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(hinted(
        format!("not every process took the document: {}", problems.join("; ")),
        "mend that, and publish the same document again: it goes on where it ended",
    ))
}

async fn store(
    prospect: &Prospect,
    published: &TopologyCopy,
    how: &PublishArgs,
) -> anyhow::Result<TopologyHeader> {
    let request = Request::Topology(TopologyRequest::Publish {
        base: published.header.version,
        document: prospect.text.text.clone(),
        author: author(&prospect.site),
        comment: how.comment.clone(),
    });
    let old = topology::examine(&published.document).document;
    let store = old.central_management.as_ref().map_or("", |store| store);
    let partners: Vec<String> = old
        .pool(store)
        .map(|pool| pool.partners().map(|name| name.value.clone()).collect())
        .unwrap_or_default();
    let mut refused = None;
    for name in &partners {
        let Some(process) = prospect.site.process(name) else { continue };
        match prospect.site.ask(process, &request, STORE).await {
            Ok(Response::Topology(TopologyAnswer::Published { header })) => return Ok(header),
            Ok(Response::Topology(TopologyAnswer::Outdated { newest })) => {
                return Err(overtaken(published.header.version, &newest));
            }
            Ok(Response::Topology(TopologyAnswer::Faulty { findings })) => {
                return Err(hinted(
                    format!("{name} finds errors in it: {}", faults(&findings)),
                    "its Backstay may be newer than this command: update this one",
                ));
            }
            Ok(_) => anyhow::bail!("{name} answers something else than asked"),
            Err(error) => {
                let is_worse = |refused: &Option<AskError>| match refused {
                    None | Some(AskError::Silent { .. }) => true,
                    Some(AskError::Refused(refusal)) => refusal.code == "not_principal",
                };
                if is_worse(&refused) {
                    refused = Some(error);
                }
            }
        }
    }
    let why = refused
        .map_or_else(|| "it has no server that can be asked".to_owned(), |error| error.to_string());
    Err(hinted(
        format!("the Central Management store cannot take it: nothing was changed; {why}"),
        format!("publishing needs {store} to be served: backstay pool status {store}"),
    ))
}

fn faults(findings: &[TopologyFinding]) -> String {
    let errors = findings.iter().filter(|found| found.is_error);
    errors.map(|found| format!("{} [{}]", found.message, found.rule)).collect::<Vec<_>>().join("; ")
}

/// Who publishes: the name in the certificate, or the system's user.
fn author(site: &Site) -> String {
    if let Ok(Some(credentials)) = trust_place::find(&site.deployment) {
        return credentials.identity().name.clone();
    }
    let name = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    name.unwrap_or_else(|| "somebody".to_owned())
}

async fn watch(
    prospect: &Prospect,
    version: u64,
    how: &PublishArgs,
    again: String,
) -> anyhow::Result<ExitCode> {
    let standing = standing(&prospect.document);
    let plan = if prospect.is_published() { &standing } else { &prospect.plan };
    let watch = Watch {
        site: &prospect.site,
        document: &prospect.document,
        plan,
        version,
        json: how.json,
        wait: how.wait.map(Duration::from_secs),
        again,
    };
    watch.run().await
}
