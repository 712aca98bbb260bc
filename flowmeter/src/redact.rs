//! Which parts of a command line are secret?
//!
//! By rules that are built in: values that are called passwords, tokens, keys and the like, options of
//! well-known programs, credentials in URLs and headers, and what has the shape of a token. They find
//! what is written as usual, not everything: who must not write secrets should not write arguments.

use std::sync::LazyLock;

use regex_lite::Regex;

/// What stands for a secret.
pub const REDACTED: &str = "[redacted]";

/// Replaces the secrets in the arguments of a program, and says how many there were.
pub fn arguments(args: &mut [String]) -> u32 {
    let mut words = Words::default();
    let mut count = 0;
    for arg in args {
        // One with spaces is a script, or a header.
        let is_script = arg.contains(char::is_whitespace) && !arg.starts_with('-');
        let mut text =
            if is_script { script(arg, &mut count) } else { words.next(arg, &mut count) };
        text = named(&text, &mut count);
        *arg = shaped(&text, &mut count);
    }
    count
}

/// Replaces the secrets in a text such as a URL; none if there are none.
pub fn text(text: &str) -> Option<String> {
    let mut count = 0;
    let redacted = shaped(&named(text, &mut count), &mut count);
    (count > 0).then_some(redacted)
}

/// What a name that has a secret ends with, in lower case, with `_` between words.
const ENDINGS: [&str; 16] = [
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "secrets",
    "token",
    "tokens",
    "apikey",
    "api_key",
    "access_key",
    "private_key",
    "secret_key",
    "credentials",
    "authorization",
];

/// The same, as a whole word: as part of another it means something else.
const WORDS: [&str; 10] =
    ["pass", "pwd", "pw", "auth", "cookie", "bearer", "signature", "sig", "jwt", "psk"];

fn is_secret(name: &str) -> bool {
    let mut name = name.trim_start_matches('-').replace(['-', '.'], "_");
    name.make_ascii_lowercase();
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    let last = name.rsplit('_').next().unwrap_or_default();
    let is = WORDS.contains(&last) || ENDINGS.iter().any(|ending| name.ends_with(ending));
    is && !name.starts_with("no_")
}

/// How a program's option gives a secret.
#[derive(Clone, Copy)]
enum Given {
    /// In the same word: `-pSECRET`.
    Attached,
    /// In the same word or the next one.
    Next,
    /// Likewise, after a user and this character.
    After(char),
}

/// Programs' options that give secrets under no telling name. The program is known by how it begins.
const OPTIONS: [(&str, &str, Given); 17] = [
    ("mysql", "-p", Given::Attached),
    ("mariadb", "-p", Given::Attached),
    ("7z", "-p", Given::Attached),
    ("sshpass", "-p", Given::Next),
    ("mongo", "-p", Given::Next),
    // Of docker, podman and others.
    ("login", "-p", Given::Next),
    ("redis-cli", "-a", Given::Next),
    ("ldap", "-w", Given::Next),
    ("sqlcmd", "-P", Given::Next),
    ("zip", "-P", Given::Next),
    ("unzip", "-P", Given::Next),
    ("snmp", "-A", Given::Next),
    ("snmp", "-X", Given::Next),
    ("curl", "-u", Given::After(':')),
    ("curl", "--user", Given::After(':')),
    ("curl", "--proxy-user", Given::After(':')),
    ("smbclient", "-U", Given::After('%')),
];

/// The words of a command so far.
#[derive(Default)]
struct Words {
    /// The last that is known to be a program with such options.
    program: Option<&'static str>,
    /// The next word is a secret.
    expected: Option<Given>,
}

impl Words {
    /// The next word as it may be shown.
    fn next(&mut self, word: &str, count: &mut u32) -> String {
        if let Some(given) = self.expected.take()
            && !word.starts_with('-')
        {
            return hide("", word, given, count);
        }
        let name = word.rsplit('/').next().unwrap_or_default();
        if !word.starts_with('-') {
            let known = OPTIONS.iter().find(|(program, ..)| name.starts_with(program));
            // Behind sshpass, another command begins.
            let before = self.program.filter(|program| *program != "sshpass");
            self.program = known.map(|(program, ..)| *program).or(before);
            return word.to_owned();
        }
        let mine = OPTIONS.iter().filter(|(program, ..)| Some(*program) == self.program);
        for (_, option, given) in mine {
            let Some(rest) = word.strip_prefix(option) else { continue };
            let is_long = option.starts_with("--");
            match (rest.is_empty(), given) {
                (true, Given::Attached) => {}
                (true, _) => self.expected = Some(*given),
                (false, _) if is_long && !rest.starts_with('=') => continue,
                (false, _) => {
                    let rest = rest.strip_prefix('=').filter(|_| is_long).unwrap_or(rest);
                    return hide(&word[..word.len() - rest.len()], rest, *given, count);
                }
            }
            return word.to_owned();
        }
        if !word.contains(['=', ':']) && is_secret(word) {
            self.expected = Some(Given::Next);
        }
        word.to_owned()
    }
}

fn hide(before: &str, value: &str, given: Given, count: &mut u32) -> String {
    let (kept, secret) = match given {
        Given::After(separator) => match value.split_once(separator) {
            Some((user, _)) => value.split_at(user.len() + separator.len_utf8()),
            None => return format!("{before}{value}"),
        },
        Given::Attached | Given::Next => ("", value),
    };
    *count += u32::from(!matches!(secret, "" | REDACTED));
    let hidden = if secret.is_empty() { "" } else { REDACTED };
    format!("{before}{kept}{hidden}")
}

/// The words of a script, as they may be shown.
fn script(text: &str, count: &mut u32) -> String {
    let mut out = String::with_capacity(text.len());
    let mut words = Words::default();
    let is_between = |c: char| c.is_whitespace() || "\"'`;|&()".contains(c);
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_between).unwrap_or(rest.len());
        if end > 0 {
            out.push_str(&words.next(&rest[..end], count));
        }
        rest = &rest[end..];
        let next = rest.find(|c| !is_between(c)).unwrap_or(rest.len());
        out.push_str(&rest[..next]);
        rest = &rest[next..];
    }
    out
}

/// Values after a secret's name and `=` or `:`.
fn named(text: &str, count: &mut u32) -> String {
    // Of an option all that follows is the value.
    let is_option = text.starts_with('-');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['=', ':']) {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        rest = after;
        let name = before[..at].trim_end_matches(['"', '\'']);
        let is_name = |c: char| c.is_alphanumeric() || "_-.".contains(c);
        let name = &name[name.trim_end_matches(is_name).len()..];
        if !is_secret(name) || rest.starts_with("//") {
            continue;
        }
        let value = rest.trim_start_matches([' ', '"', '\'', '\\']);
        let opening = &rest[..rest.len() - value.len()];
        let is_header = name.to_ascii_lowercase().ends_with("authorization")
            || name.to_ascii_lowercase().ends_with("cookie");
        let ends = |c: char| match (is_header, opening.trim_start().is_empty()) {
            (true, _) | (_, false) => "\"'\r\n".contains(c),
            (false, true) => c.is_whitespace() || "&#;,\"'`)}".contains(c),
        };
        let end = if is_option { value.len() } else { value.find(ends).unwrap_or(value.len()) };
        if end > 0 && value[..end] != *REDACTED {
            out.push_str(opening);
            out.push_str(REDACTED);
            *count += 1;
            rest = &value[end..];
        }
    }
    out + rest
}

/// Credentials in URLs, and what looks like a token.
fn shaped(text: &str, count: &mut u32) -> String {
    static SHAPES: LazyLock<Regex> = LazyLock::new(|| {
        let shapes = [
            r"(?P<before>://[^/\s:@]*:)[^/\s@]+(?P<after>@)",
            r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
            r"\bgh[pousr]_[A-Za-z0-9]{20,}",
            r"\bgithub_pat_[A-Za-z0-9_]{20,}",
            r"\bglpat-[A-Za-z0-9_-]{16,}",
            r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
            r"\bsk-[A-Za-z0-9_-]{20,}",
            r"\bAIza[A-Za-z0-9_-]{35}",
            r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*",
        ];
        Regex::new(&shapes.join("|")).expect("it is well formed, as a test shows")
    });
    SHAPES
        .replace_all(text, |found: &regex_lite::Captures| {
            let part = |name| found.name(name).map_or("", |part| part.as_str());
            if found[0].contains(REDACTED) {
                return found[0].to_owned();
            }
            *count += 1;
            format!("{}{REDACTED}{}", part("before"), part("after"))
        })
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(args: &[&str]) -> (String, u32) {
        let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let count = arguments(&mut args);
        (args.join("\u{1f}").replace(REDACTED, "X"), count)
    }

    #[test]
    fn secrets_are_hidden_and_the_rest_is_not() {
        for (args, wanted) in [
            (&["app", "--password=hunter2 and more"][..], "app|--password=X"),
            (&["app", "--db-password", "hunter2", "-v"], "app|--db-password|X|-v"),
            (&["app", "--password", "--verbose"], "app|--password|--verbose"),
            (&["app", "--apiToken=a:b"], "app|--apiToken=X"),
            (&["env", "AWS_SECRET_ACCESS_KEY=abc/def=", "aws"], "env|AWS_SECRET_ACCESS_KEY=X|aws"),
            (&["/usr/bin/mysql", "-uroot", "-phunter2", "db"], "/usr/bin/mysql|-uroot|-pX|db"),
            (&["sudo", "mysqldump", "-p", "db"], "sudo|mysqldump|-p|db"),
            (&["sshpass", "-p", "hunter2", "ssh", "-p", "22", "h"], "sshpass|-p|X|ssh|-p|22|h"),
            (&["curl", "-u", "me:hunter2", "h"], "curl|-u|me:X|h"),
            (&["curl", "--user=me:hunter2", "h"], "curl|--user=me:X|h"),
            (&["curl", "-u", "me", "h"], "curl|-u|me|h"),
            (&["curl", "-H", "Authorization: Bearer a.b.c"], "curl|-H|Authorization: X"),
            (&["curl", "-H", "Cookie: a=b; c=d"], "curl|-H|Cookie: X"),
            (&["curl", "-d", r#"{"password":"a b","x":1}"#], r#"curl|-d|{"password":"X","x":1}"#),
            (
                &["wget", "https://me:hunter2@h/x?token=t&y=1#z"],
                "wget|https://me:X@h/x?token=X&y=1#z",
            ),
            (&["docker", "login", "-p", "hunter2", "h"], "docker|login|-p|X|h"),
            (&["docker", "run", "-p", "80:80", "h"], "docker|run|-p|80:80|h"),
            (&["redis-cli", "-a", "hunter2"], "redis-cli|-a|X"),
            (&["openssl", "-passin", "pass:hunter2"], "openssl|-passin|pass:X"),
            (
                &["bash", "-c", "mysql -phunter2 -e 'x'; PASSWORD=y curl -u a:b h --token z -v"],
                "bash|-c|mysql -pX -e 'x'; PASSWORD=X curl -u a:X h --token X -v",
            ),
            (&["git", "ghp_0123456789abcdefghij0123"], "git|X"),
            (&["x", "AKIAIOSFODNN7EXAMPLE"], "x|X"),
            (&["x", "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln"], "x|X"),
            (
                &["x", "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----"],
                "x|X-----END RSA PRIVATE KEY-----",
            ),
            (&["x", "{Password:", "hunter2}"], "x|{Password:|hunter2}"),
        ] {
            let (found, count) = redacted(args);
            assert_eq!(found.replace('\u{1f}', "|"), wanted);
            assert_eq!(count as usize, wanted.matches('X').count(), "{wanted}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for args in [
            &["git", "log", "--author=Bob", "--oneline"][..],
            &["app", "--tokenizer=bert", "--no-password", "x", "--passive", "y"],
            &["ssh", "-p", "22", "me@host:/path"],
            &["tar", "-xpf", "a:b"],
            &["nc", "::1", "80"],
            &["x", "authors: many", "http://h:80/path?q=1"],
            &["keyring", "--key=id", "--primary-key", "7"],
            &[],
        ] {
            assert_eq!(redacted(args), (args.join("\u{1f}"), 0));
        }
    }

    #[test]
    fn once_is_enough() {
        let args = ["curl", "-u", "a:b", "https://u:p@h/?token=x", "-H", "Authorization: Basic y"];
        let mut args = args.map(str::to_owned);
        assert_eq!(arguments(&mut args), 4);
        assert_eq!(arguments(&mut args.clone()), 0);
    }

    #[test]
    fn urls_are_redacted_too() {
        assert_eq!(text("h/?api_key=1&b=2").as_deref(), Some("h/?api_key=[redacted]&b=2"));
        assert_eq!(text("h/?b=2"), None);
    }

    #[test]
    fn any_bytes_are_fine() {
        for odd in
            ["=", ":", "password=", "password:", "-", "--", "::=:=", "pässword=ü", "\"'", "a:\u{0}"]
        {
            let (found, _) = redacted(&[odd, odd, &format!("{odd} {odd}")]);
            assert!(!found.is_empty());
        }
    }
}
