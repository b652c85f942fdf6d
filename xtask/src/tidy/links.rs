//! That a link from one page of this repository to another leads somewhere.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Violation;

pub fn check(root: &Path, page: &Path) -> Result<Vec<Violation>> {
    let full = root.join(page);
    let text =
        std::fs::read_to_string(&full).with_context(|| format!("read {}", page.display()))?;
    let beside = full.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut violations = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for link in targets(line) {
            if !beside.join(&link).exists() {
                let what = format!("the link to {} leads nowhere", link.display());
                let place = page.display().to_string();
                violations.push(Violation { place, line: at + 1, what });
            }
        }
    }
    Ok(violations)
}

/// The files that the links of a line name, without the places inside them.
fn targets(line: &str) -> Vec<PathBuf> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(|link| link.split('#').next().unwrap_or_default())
        .filter(|link| !link.is_empty() && !link.contains(':'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::targets;

    #[test]
    fn only_links_inside_the_repository_are_followed() {
        let line = "[a](b.md), [c](d/e.md#f), [g](#h), [i](https://example.com/j)";
        assert_eq!(targets(line), [std::path::Path::new("b.md"), "d/e.md".as_ref()]);
    }
}
