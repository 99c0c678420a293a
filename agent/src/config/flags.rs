//! Command line flags as Nomad's command line takes them. Pure: a table of known flags and the words typed -> values.
//!
//! Shared by `agent` and by every verb of `cli`. Never: reads the environment, prints, exits.
//!
//! The grammar is that of Go's `flag` package (`-flag`, `--flag`, `-flag=value`, `-flag value`; a switch takes a value only
//! with `=`), which is why a crate for POSIX-style flags does not fit: there `-dev` would be `-d -e -v`.
//! `--` ends the flags; a lone `-` is an argument. With [`Order::Mixed`] flags may also follow arguments.
//! Errors: [`FlagError`], the first fault found; an unknown flag is told with the nearest known one.

use core::fmt;
use std::ffi::OsString;

use super::nearest::nearest;

/// One flag a command knows.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Name without dashes.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// One line for the usage text; empty = accepted, but not shown.
    pub help: &'static str,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing, or `=true|false`.
    Nothing,
    /// A value, named so in the usage text. Given twice, the last one wins; [`Parsed::values`] has all.
    Value(&'static str),
}

impl Flag {
    /// A switch.
    #[must_use]
    pub const fn switch(name: &'static str, help: &'static str) -> Self {
        Self { name, takes: Takes::Nothing, help }
    }

    /// A flag with a value; `value` names it in the usage text.
    #[must_use]
    pub const fn value(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, takes: Takes::Value(value), help }
    }
}

/// Where flags may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Before and after arguments.
    Mixed,
    /// Only before the first argument, as in Go: what follows belongs to somebody else (`alloc exec ID ls -l`).
    First,
}

/// What was typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// (name, value) in the order typed; the value of a switch is `true` or `false`.
    given: Vec<(&'static str, String)>,
    /// The arguments that are not flags.
    pub args: Vec<String>,
}

/// Why the words could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagError {
    /// `-h`, `-help`: not a fault; show the usage.
    Help,
    /// No such flag.
    Unknown {
        /// As typed, without dashes and value.
        asked: String,
        /// The closest known one.
        nearest: Option<&'static str>,
    },
    /// The value is missing.
    NoValue {
        /// The flag.
        name: &'static str,
    },
    /// The value is of the wrong form.
    Bad {
        /// The flag.
        name: &'static str,
        /// As typed.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A word is not UTF-8; shown with replacement characters.
    NotText {
        /// The word.
        word: String,
    },
}

impl fmt::Display for FlagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Help => f.write_str("help requested"),
            Self::Unknown { asked, nearest: Some(near) } => {
                write!(f, "flag provided but not defined: -{asked} (did you mean -{near}?)")
            }
            Self::Unknown { asked, nearest: None } => write!(f, "flag provided but not defined: -{asked}"),
            Self::NoValue { name } => write!(f, "flag needs an argument: -{name}"),
            Self::Bad { name, value, expected } => write!(f, "invalid value \"{value}\" for flag -{name}: expected {expected}"),
            Self::NotText { word } => write!(f, "argument is not valid UTF-8: {word}"),
        }
    }
}

impl core::error::Error for FlagError {}

impl Parsed {
    /// True when the switch is on (given last as such).
    #[must_use]
    pub fn on(&self, name: &str) -> bool {
        self.value(name) == Some("true")
    }

    /// The last value given.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.given.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// All values given, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.given.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// All flags given, in order; the value of a switch is `true` or `false`.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.given.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The last value as a number. The flag's name is returned in the error.
    pub fn number<T: core::str::FromStr>(&self, name: &'static str) -> Result<Option<T>, FlagError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| FlagError::Bad { name, value: value.to_owned(), expected: "a number" })
    }
}

/// The words after the program and verb as text.
pub fn words(args: impl IntoIterator<Item = OsString>) -> Result<Vec<String>, FlagError> {
    let text = |word: OsString| word.into_string().map_err(|word| FlagError::NotText { word: word.to_string_lossy().into_owned() });
    args.into_iter().map(text).collect()
}

/// Reads `words` by the table `known`.
pub fn parse(known: &[Flag], order: Order, words: &[String]) -> Result<Parsed, FlagError> {
    let mut parsed = Parsed::default();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
            parsed.args.push(word.clone());
            if order == Order::First {
                break;
            }
            continue;
        };
        if flag == "-" {
            break;
        }
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let Some(entry) = known.iter().find(|entry| entry.name == name) else {
            return Err(match name {
                "h" | "help" => FlagError::Help,
                _ => FlagError::Unknown {
                    asked: name.to_owned(),
                    nearest: nearest(name, known.iter().map(|entry| entry.name)).map(|(near, _)| near),
                },
            });
        };
        let value = match (entry.takes, value) {
            (Takes::Nothing, None) => "true".to_owned(),
            (Takes::Nothing, Some(value)) => truth(entry.name, value)?.to_string(),
            (Takes::Value(_), Some(value)) => value.to_owned(),
            (Takes::Value(_), None) => rest.next().ok_or(FlagError::NoValue { name: entry.name })?.clone(),
        };
        parsed.given.push((entry.name, value));
    }
    parsed.args.extend(rest.cloned());
    Ok(parsed)
}

/// A truth value as Go's `strconv.ParseBool` reads it.
fn truth(name: &'static str, value: &str) -> Result<bool, FlagError> {
    parse_bool(value).ok_or_else(|| FlagError::Bad { name, value: value.to_owned(), expected: "true or false" })
}

/// The words Go's `strconv.ParseBool` takes.
#[must_use]
pub fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The flags that have a help text, one or two lines each, indented by two.
#[must_use]
pub fn usage(known: &[Flag]) -> String {
    let mut text = String::new();
    for flag in known.iter().filter(|flag| !flag.help.is_empty()) {
        let value = match flag.takes {
            Takes::Nothing => String::new(),
            Takes::Value(value) => format!("=<{value}>"),
        };
        let left = format!("-{}{value}", flag.name);
        let gap = if left.len() > 22 { format!("\n{:24}", "") } else { String::new() };
        text.push_str(&format!("  {left:22}{gap}{}\n", flag.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Flag] = &[
        Flag::switch("dev", "Run on a temporary folder"),
        Flag::switch("hidden", ""),
        Flag::value("data-dir", "path", "Where state is kept"),
        Flag::value("config", "file or folder", "Configuration; may be given more than once"),
        Flag::value("n", "lines", "Lines"),
    ];

    fn read(order: Order, line: &str) -> Result<Parsed, FlagError> {
        let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        parse(KNOWN, order, &words)
    }

    /// What was given as `name=value`, then the arguments behind a bar.
    #[track_caller]
    fn check(order: Order, line: &str, want: &str) {
        let parsed = read(order, line).unwrap();
        let given: Vec<String> = parsed.given.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(format!("{} | {}", given.join(" "), parsed.args.join(" ")), want, "{line}");
    }

    #[track_caller]
    fn check_error(line: &str, want: &str) {
        assert_eq!(read(Order::Mixed, line).unwrap_err().to_string(), want, "{line}");
    }

    #[test]
    fn forms() {
        check(Order::Mixed, "", " | ");
        check(Order::Mixed, "-dev", "dev=true | ");
        check(Order::Mixed, "--dev", "dev=true | ");
        check(Order::Mixed, "-dev=false -dev=T", "dev=false dev=true | ");
        check(Order::Mixed, "-data-dir /x", "data-dir=/x | ");
        check(Order::Mixed, "--data-dir=/x=y", "data-dir=/x=y | ");
        check(Order::Mixed, "-data-dir=", "data-dir= | ");
        // As in Go, a value is the next word whatever it looks like.
        check(Order::Mixed, "-n -5", "n=-5 | ");
        check(Order::Mixed, "-data-dir -dev", "data-dir=-dev | ");
    }

    #[test]
    fn arguments() {
        check(Order::Mixed, "a.json -dev b.json", "dev=true | a.json b.json");
        check(Order::First, "-dev id ls -l", "dev=true | id ls -l");
        check(Order::First, "id -dev", " | id -dev");
        check(Order::Mixed, "-dev -- -dev x", "dev=true | -dev x");
        check(Order::Mixed, "- -dev", "dev=true | -");
        check(Order::Mixed, "a -- -b", " | a -b");
    }

    #[test]
    fn faults() {
        check_error("-datadir x", "flag provided but not defined: -datadir (did you mean -data-dir?)");
        check_error("--conifg=x", "flag provided but not defined: -conifg (did you mean -config?)");
        check_error("-data-dir", "flag needs an argument: -data-dir");
        check_error("-dev=maybe", "invalid value \"maybe\" for flag -dev: expected true or false");
        check_error("---dev", "flag provided but not defined: --dev (did you mean -dev?)");
        assert_eq!(read(Order::Mixed, "-h"), Err(FlagError::Help));
        assert_eq!(read(Order::Mixed, "--help"), Err(FlagError::Help));
        assert_eq!(parse(&[], Order::Mixed, &["-x".to_owned()]).unwrap_err().to_string(), "flag provided but not defined: -x");
        assert!(read(Order::Mixed, &format!("-{}", "x".repeat(100_000))).is_err());
    }

    #[test]
    fn values() {
        let parsed = read(Order::Mixed, "-config a -n 7 -config b").unwrap();
        assert_eq!(parsed.value("config"), Some("b"));
        assert_eq!(parsed.values("config").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(parsed.number::<u16>("n"), Ok(Some(7)));
        assert_eq!(parsed.number::<u16>("data-dir"), Ok(None));
        assert!(!parsed.on("dev"));
        let far = read(Order::Mixed, "-n 70000").unwrap();
        assert_eq!(far.number::<u16>("n").unwrap_err().to_string(), "invalid value \"70000\" for flag -n: expected a number");
    }

    #[test]
    fn words_must_be_text() {
        use std::os::unix::ffi::OsStringExt;
        assert_eq!(words([OsString::from("-dev")]), Ok(vec!["-dev".to_owned()]));
        assert!(matches!(words([OsString::from_vec(vec![b'a', 0xff])]), Err(FlagError::NotText { .. })));
    }

    #[test]
    fn usage_lists_what_has_help() {
        let want = "  -dev                  Run on a temporary folder\n  -data-dir=<path>      Where state is kept\n  \
                    -config=<file or folder>\n                        Configuration; may be given more than once\n  \
                    -n=<lines>            Lines\n";
        assert_eq!(usage(KNOWN), want);
    }
}
