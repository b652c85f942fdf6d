//! The settings in the parameter `options` of a start-up packet.
//!
//! It is a command line: words between white space, a backslash before a byte that is meant as it
//! is, and the switches of the server. Those that give settings are told with their names; what
//! PostgreSQL would refuse is left out, as PostgreSQL itself says so to the client.

use alloc::vec::Vec;

/// An iterator over names and values; see `start_up_options`.
#[derive(Clone, Debug)]
pub struct StartUpOptions<'a> {
    text: &'a [u8],
    /// The rest of a word of switches, the last byte first.
    switches: Vec<u8>,
}

/// The settings that `options` gives, in their order: `-c name=value`, `--name=value`, and the
/// short switches that stand for one.
#[must_use]
pub fn start_up_options(options: &[u8]) -> StartUpOptions<'_> {
    StartUpOptions { text: options, switches: Vec::new() }
}

impl StartUpOptions<'_> {
    fn word(&mut self) -> Option<Vec<u8>> {
        let start = self.text.iter().position(|byte| !is_space(*byte))?;
        let mut bytes = self.text[start..].iter();
        let mut word = Vec::new();
        while let Some(&byte) = bytes.next() {
            if is_space(byte) {
                break;
            }
            if byte == b'\\' {
                word.extend(bytes.next());
            } else {
                word.push(byte);
            }
        }
        self.text = bytes.as_slice();
        Some(word)
    }

    /// What belongs to a switch: the rest of its word, or the next word.
    fn argument(&mut self) -> Vec<u8> {
        let mut rest = core::mem::take(&mut self.switches);
        rest.reverse();
        if rest.is_empty() { self.word().unwrap_or_default() } else { rest }
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// `name=value`; a minus in the name stands for an underscore.
fn setting(text: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let equals = text.iter().position(|&byte| byte == b'=')?;
    let name = text[..equals].iter().map(|&byte| if byte == b'-' { b'_' } else { byte });
    Some((name.collect(), text[equals + 1..].to_vec()))
}

impl Iterator for StartUpOptions<'_> {
    type Item = (Vec<u8>, Vec<u8>);

    fn next(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        loop {
            let Some(switch) = self.switches.pop() else {
                // The first word that is no switch ends them all, and so does a lone `--`.
                let word = self.word()?;
                let switches =
                    word.strip_prefix(b"-").filter(|rest| !rest.is_empty() && *rest != b"-")?;
                self.switches = switches.iter().rev().copied().collect();
                continue;
            };
            let found = match switch {
                b'c' | b'-' => setting(&self.argument()),
                b'S' => Some((b"work_mem".to_vec(), self.argument())),
                b'e' => Some((b"datestyle".to_vec(), b"euro".to_vec())),
                b'B' | b'C' | b'd' | b'D' | b'f' | b'h' | b'k' | b'N' | b'p' | b'r' | b't'
                | b'v' | b'W' => {
                    self.argument();
                    None
                }
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    fn check(options: &str, expected: &[(&str, &str)]) {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let found: Vec<_> =
            start_up_options(options.as_bytes()).map(|(n, v)| (text(n), text(v))).collect();
        let found: Vec<_> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(found, expected, "{options}");
    }

    #[test]
    fn settings_are_told_in_every_spelling() {
        check("", &[]);
        check("-c a=b", &[("a", "b")]);
        check("  -ca=b\t--my-name=c=d ", &[("a", "b"), ("my_name", "c=d")]);
        check("-c my.name=x", &[("my.name", "x")]);
        check("-S 64 -e -d 1 -c x=y", &[("work_mem", "64"), ("datestyle", "euro"), ("x", "y")]);
        check("-ec x=y", &[("datestyle", "euro"), ("x", "y")]);
    }

    #[test]
    fn a_backslash_keeps_white_space() {
        check(r"-c search_path=a,\ b -c x=\\", &[("search_path", "a, b"), ("x", "\\")]);
    }

    #[test]
    fn what_is_no_switch_ends_them() {
        check("-c a=b c -c d=e", &[("a", "b")]);
        check("-c a=b -- -c d=e", &[("a", "b")]);
        check("-c a=b - -c d=e", &[("a", "b")]);
        check("-c novalue --nor-this -c a=b", &[("a", "b")]);
        check("-c", &[]);
    }
}
