//! PostgreSQL's older way to log in: the server stores `md5` and a hash, and whoever has that text
//! can log in with it.
//!
//! It is supported because servers still have such secrets; nothing here makes new ones, except
//! for the lookup role, whose password the gateway has in clear.

use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq as _;

/// Whether this is what a server stores: `md5` and 32 hexadecimal digits.
pub fn is_stored(text: &str) -> bool {
    text.strip_prefix("md5").is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// What a server stores of a password.
pub fn stored(password: &[u8], user: &str) -> String {
    digest(&[password, user.as_bytes()])
}

/// What a client answers to a salt, from what the server stores.
pub fn answer(stored: &str, salt: [u8; 4]) -> String {
    let digits = stored.strip_prefix("md5").unwrap_or(stored);
    digest(&[digits.as_bytes(), &salt])
}

/// Whether a client's answer is the right one; takes the same time for every wrong one.
pub fn is_right(answered: &str, stored: &str, salt: [u8; 4]) -> bool {
    answered.as_bytes().ct_eq(answer(stored, salt).as_bytes()).into()
}

fn digest(parts: &[&[u8]]) -> String {
    let mut md5 = Md5::new();
    parts.iter().for_each(|part| md5.update(part));
    md5.finalize().iter().fold("md5".to_owned(), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or_default());
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_secret_is_what_postgresql_stores() {
        // select rolpassword after: create role foo password 'secret' under password_encryption md5
        let foo = stored(b"secret", "foo");
        assert_eq!(foo, "md54ab2c5d00339c4b2a4e921d2dc4edec7");
        assert!(is_stored(&foo) && !is_stored("md5") && !is_stored("SCRAM-SHA-256$"));
    }

    #[test]
    fn only_the_answer_to_this_salt_is_right() {
        let stored = stored(b"secret", "foo");
        let right = answer(&stored, [1, 2, 3, 4]);
        assert!(is_right(&right, &stored, [1, 2, 3, 4]));
        assert!(!is_right(&right, &stored, [1, 2, 3, 5]));
        assert!(!is_right(&stored, &stored, [1, 2, 3, 4]));
        assert!(!is_right("", &stored, [1, 2, 3, 4]));
    }
}
