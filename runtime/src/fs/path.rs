//! Paths that clients ask for. Pure: no file is touched.
//!
//! Shape: [`AskedPath`] (an allegation) -> [`AllocPath`] (relative, without `.`, `..` and empty parts) or an error.
//! A lexical check only: links are the business of [`super::open`].
//! Source: `spec/http-api.md` 5; upstream v1.3.1 helper/escapingfs/escapes.go, v2.0.5 client/allocdir/alloc_dir.go (behaviour only).

use nix::errno::Errno;

use super::FileError;

/// Folder shared by the tasks of an allocation; all other folders at the top are tasks'.
const SHARED: &[u8] = b"alloc";

/// A path a client asked for. An allegation: only [`AskedPath::resolve`] proves that it stays inside, as far as its text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedPath<'a>(pub &'a str);

/// A path relative to the allocation's folder, with the text it was asked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocPath {
    asked: String,
    relative: String,
}

impl AskedPath<'_> {
    /// Resolves `.` and `..` by the text; a leading slash is the allocation's folder.
    /// Errors: [`FileError::Escapes`], and [`FileError::Io`] for a NUL.
    pub fn resolve(self) -> Result<AllocPath, FileError> {
        if self.0.contains('\0') {
            return Err(FileError::Io(self.0.to_owned(), Errno::EINVAL as i32));
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in self.0.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    if parts.pop().is_none() {
                        return Err(FileError::Escapes(self.0.to_owned()));
                    }
                }
                part => parts.push(part),
            }
        }
        Ok(AllocPath { asked: self.0.to_owned(), relative: parts.join("/") })
    }
}

impl AllocPath {
    /// As the client wrote it; for errors and answers.
    #[must_use]
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// Relative to the allocation's folder; empty = that folder itself.
    #[must_use]
    pub fn relative(&self) -> &str {
        &self.relative
    }

    /// The last part; empty for the allocation's folder.
    #[must_use]
    pub fn name(&self) -> &str {
        self.relative.rsplit('/').next().unwrap_or_default()
    }

    /// The error when something below `<task>/secrets` or `<task>/private` is asked for; the folders themselves may be listed.
    #[must_use]
    pub fn secret(&self) -> Option<FileError> {
        self.relative.bytes().filter(|&byte| byte == b'/').nth(1)?;
        secret(&self.asked, self.relative.as_bytes())
    }
}

/// The error when the file at `relative` lies in a folder whose contents are never given out; case does not matter.
#[must_use]
pub fn secret(asked: &str, relative: &[u8]) -> Option<FileError> {
    let mut parts = relative.split(|&byte| byte == b'/');
    let (top, folder) = (parts.next()?, parts.next()?);
    if top == SHARED {
        None
    } else if folder.eq_ignore_ascii_case(b"secrets") {
        Some(FileError::Secret(asked.to_owned()))
    } else if folder.eq_ignore_ascii_case(b"private") {
        Some(FileError::Private(asked.to_owned()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(asked: &str, want: Result<&str, &str>) {
        let got = AskedPath(asked).resolve();
        match (&got, want) {
            (Ok(path), Ok(relative)) => assert_eq!((path.relative(), path.asked()), (relative, asked)),
            (Err(error), Err(text)) => assert_eq!(error.to_string(), text),
            _ => panic!("{asked}: {got:?}"),
        }
    }

    #[test]
    fn paths_are_resolved_by_their_text() {
        for root in ["", "/", ".", "//", "./.", "a/..", "/a/b/../..", "a/./../"] {
            check(root, Ok(""));
        }
        check("alloc/logs", Ok("alloc/logs"));
        check("/alloc//logs/", Ok("alloc/logs"));
        check("web/local/../../alloc/data/x", Ok("alloc/data/x"));
        check("...", Ok("..."));
        check("a\\..\\b", Ok("a\\..\\b"));
        check("ä/日本", Ok("ä/日本"));
    }

    #[test]
    fn escapes_are_refused() {
        for path in ["..", "../..", "/..", "a/../..", "../alloc", "a/../../a", "/../../../../etc/passwd", "./../x"] {
            check(path, Err("Path escapes the alloc directory"));
        }
        check(&"../".repeat(100_000), Err("Path escapes the alloc directory"));
        check("a\0b", Err("a\0b: Invalid argument"));
    }

    #[track_caller]
    fn check_secret(path: &str, want: Option<&str>) {
        let path = AskedPath(path).resolve().unwrap();
        assert_eq!(path.secret().map(|error| error.to_string()).as_deref(), want);
    }

    #[test]
    fn contents_of_secret_folders_are_not_given_out() {
        check_secret("web/secrets/key", Some("Reading secret file prohibited: web/secrets/key"));
        check_secret("/web//Secrets/a/b", Some("Reading secret file prohibited: /web//Secrets/a/b"));
        check_secret("web/local/../SECRETS/key", Some("Reading secret file prohibited: web/local/../SECRETS/key"));
        check_secret("web/private/key", Some("Reading private file prohibited: web/private/key"));
        // The folder itself may be listed; what only looks like one is no secret.
        for path in
            ["", "web", "web/secrets", "web/secrets/", "web/secretsfile", "web/local/secrets", "web/local/secrets/key", "alloc/secrets/key"]
        {
            check_secret(path, None);
        }
    }

    #[test]
    fn names_are_the_last_part() {
        for (path, name) in [("/", ""), ("alloc", "alloc"), ("alloc/logs/", "logs"), ("a/b/..", "a")] {
            assert_eq!(AskedPath(path).resolve().unwrap().name(), name);
        }
    }
}
