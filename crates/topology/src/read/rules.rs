//! The rules that are found while the document is read.

use crate::diagnostic::{Family, Rule, Severity};

const fn rule(
    id: &'static str,
    finds: &'static str,
    why: &'static str,
    remedy: &'static str,
) -> Rule {
    Rule { id, family: Family::Reading, severity: Severity::Error, finds, why, remedy, run: None }
}

pub(crate) static SYNTAX: Rule = rule(
    "syntax",
    "The text is no TOML here.",
    "Nobody knows to which table the lines belong, so the other rules wait until this is mended.",
    "Mend the line: texts stand in quotes, tables begin with [name] or [[name]].",
);
pub(crate) static DUPLICATE_KEY: Rule = rule(
    "duplicate-key",
    "A field is written twice in one table.",
    "Which of the two counts would be a guess.",
    "Keep one of them.",
);
pub(crate) static UNKNOWN_FIELD: Rule = rule(
    "unknown-field",
    "A field has a name that the format does not know.",
    "A field that nobody reads looks like a decision that was made, and is none.",
    "Correct its name, or take it out; the page of all fields lists those that there are.",
);
pub(crate) static WRONG_TYPE: Rule = rule(
    "wrong-type",
    "A value is of another kind than its field: a text where a number belongs, and the like.",
    "It cannot be understood as what the field means.",
    "Write a value of the kind that the field wants.",
);
pub(crate) static OUT_OF_RANGE: Rule = rule(
    "number-out-of-range",
    "A number is below or above what its field can hold.",
    "Ports go from 0 to 65535, times and counts begin at 0.",
    "Write a number within the range.",
);
pub(crate) static MISSING_FIELD: Rule = rule(
    "missing-field",
    "A field that has no default is missing.",
    "There is no value for it that would be right in most deployments.",
    "Add the field.",
);
pub(crate) static SECRET: Rule = rule(
    "secret-in-document",
    "A field or a setting looks like a password or another secret.",
    "The document is stored, shown, and copied to every server. Secrets are made and kept by the \
     servers themselves.",
    "Take it out, and change the secret if this document was shared.",
);

pub(crate) static RULES: &[&Rule] =
    &[&SYNTAX, &DUPLICATE_KEY, &UNKNOWN_FIELD, &WRONG_TYPE, &OUT_OF_RANGE, &MISSING_FIELD, &SECRET];

/// Whether a field or a setting of this name would hold a secret. `password_encryption` and
/// `password_file` would not: it is the end of a name that says what it is.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "pwd", "passphrase", "secret", "token", "private_key"]
        .iter()
        .any(|word| name.trim_end_matches('s').ends_with(word))
}
