//! What code may not do, or may do in one file only. Each ban names its replacement.

use super::{Source, Violation};

/// Where a banned word is allowed after all.
enum Except {
    Nowhere,
    /// In tests, and in files of this name.
    TestsAndFile(&'static str),
}

struct Ban {
    words: &'static [&'static str],
    except: Except,
    instead: &'static str,
}

const BANS: [Ban; 5] = [
    Ban {
        words: &["todo!", "unimplemented!"],
        except: Except::Nowhere,
        instead: "return an error that says what is missing, or leave the item out",
    },
    Ban {
        words: &["dbg!"],
        except: Except::Nowhere,
        instead: "log with `tracing`, or assert in a test",
    },
    Ban {
        words: &["#[ignore"],
        except: Except::Nowhere,
        instead: "make the test fast and sure, or delete it; a slow one is a chore of `xtask`",
    },
    Ban {
        words: &["println!", "eprintln!", "print!", "eprint!", "stdout()", "stderr()"],
        except: Except::TestsAndFile("output.rs"),
        instead: "print in `output.rs`, log with `tracing`",
    },
    Ban {
        words: &["SystemTime::now", "clock_gettime"],
        except: Except::TestsAndFile("clock.rs"),
        instead: CLOCK,
    },
];

const CLOCK: &str = "ask the crate's `clock.rs` what time it is, and below the shells take it as \
                     an argument; for how long to wait for somebody, use tokio's `Instant`";

const SLEEPS: [&str; 2] = ["thread::sleep(", "time::sleep("];

pub fn check(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    let timers = source.lexed.lines.iter().any(|line| imports_timers(line));
    for (at, line) in source.lexed.lines.iter().enumerate() {
        let test = source.is_test() || source.lexed.in_test[at];
        for Ban { words, except, instead } in &BANS {
            let allowed = match except {
                Except::Nowhere => false,
                Except::TestsAndFile(name) => test || source.file_name() == *name,
            };
            if let Some(word) = words.iter().find(|word| !allowed && contains(line, word)) {
                violations.push(source.violation(at + 1, format!("`{word}`: {instead}")));
            }
        }
        if contains(line, "Instant::now") && !test && !timers && source.file_name() != "clock.rs" {
            violations.push(source.violation(at + 1, format!("`Instant::now`: {CLOCK}")));
        }
        if test && SLEEPS.iter().any(|sleep| contains(line, sleep)) && !waits(source, at) {
            let what = "a test does not sleep: look for the condition every few milliseconds, \
                        in a loop that ends at a `deadline`";
            violations.push(source.violation(at + 1, what));
        }
    }
    violations
}

/// Whether `word` stands in `line` on its own, not as the end of a longer one.
fn contains(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Whether the line brings tokio's `Instant` into scope, which is for its timers.
fn imports_timers(line: &str) -> bool {
    line.trim_start().strip_prefix("use tokio::time::").is_some_and(|it| it.contains("Instant"))
}

/// Whether line `at` lies in a function that looks again and again, up to some end.
fn waits(source: &Source, at: usize) -> bool {
    let lines = &source.lexed.lines[..=at];
    let start = lines.iter().rposition(|line| line.contains("fn ")).unwrap_or(0);
    let so_far = lines[start..].join("\n");
    let again = so_far.contains("loop {") || so_far.contains("while ");
    so_far.contains("for _ in ")
        || again && ["deadline", "elapsed"].iter().any(|end| so_far.contains(end))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::Source;

    fn faults(path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn a_banned_word_is_found_in_code_only() {
        let text = "fn a() { println!(\"todo!\"); } // dbg!";
        assert_eq!(faults("crates/x/src/a.rs", text), 1);
        assert_eq!(faults("crates/x/src/output.rs", text), 0);
        assert_eq!(faults("crates/x/tests/it/main.rs", text), 0);
    }

    #[test]
    fn the_clock_is_read_in_one_file() {
        for text in ["std::time::Instant::now()", "Instant::now()", "SystemTime::now()"] {
            assert_eq!(faults("crates/x/src/a.rs", text), 1);
            assert_eq!(faults("crates/x/src/clock.rs", text), 0);
        }
        assert_eq!(
            faults("crates/x/src/a.rs", "use tokio::time::{Instant, timeout};\nInstant::now()"),
            0
        );
    }

    #[test]
    fn a_test_sleeps_only_where_it_waits_for_a_condition() {
        let sleep = "std::thread::sleep(STEP);";
        let waits = format!("fn starts() {{ while now() < deadline {{ {sleep} }} }}");
        assert_eq!(faults("crates/x/tests/it/a.rs", &format!("fn starts() {{ {sleep} }}")), 1);
        assert_eq!(faults("crates/x/tests/it/a.rs", &waits), 0);
    }
}
