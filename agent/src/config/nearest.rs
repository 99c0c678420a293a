//! "Did you mean ...?": the known word that is closest to the one that was typed. Pure.
//!
//! Shape: (word, known words) -> nearest known word and how far it is. Distance is Levenshtein's on bytes; the first of equals wins.
//! Bound: only the first [`WORD_BYTES_MAX`] bytes of a word count, so the work is bounded whatever was typed.

/// Longest part of a word that is compared, bytes.
pub const WORD_BYTES_MAX: usize = 64;

/// The known word with the fewest edits from `asked`, and these edits; `None` only when nothing is known.
pub fn nearest<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Option<(&'a str, usize)> {
    known.into_iter().map(|word| (word, distance(asked.as_bytes(), word.as_bytes()))).min_by_key(|(_, edits)| *edits)
}

/// Edits (insert, delete, replace) between the compared parts of two words.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let a = a.get(..WORD_BYTES_MAX).unwrap_or(a);
    let b = b.get(..WORD_BYTES_MAX).unwrap_or(b);
    // row[j]: edits from the part of `a` read so far to the first j bytes of `b`.
    let mut row: [usize; WORD_BYTES_MAX + 1] = core::array::from_fn(|j| j);
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(a: &str, b: &str, want: usize) {
        assert_eq!(distance(a.as_bytes(), b.as_bytes()), want, "{a} {b}");
        assert_eq!(distance(b.as_bytes(), a.as_bytes()), want, "{b} {a}");
    }

    #[test]
    fn distances() {
        check("", "", 0);
        check("", "abc", 3);
        check("data_dir", "data_dir", 0);
        check("datadir", "data_dir", 1);
        check("prots", "ports", 2);
        check("kitten", "sitting", 3);
        check(&"x".repeat(10_000), &"x".repeat(9_000), 0);
        check(&"x".repeat(10_000), "", WORD_BYTES_MAX);
    }

    #[test]
    fn nearest_known() {
        assert_eq!(nearest("datadir", ["bind_addr", "data_dir", "region"]), Some(("data_dir", 1)));
        assert_eq!(nearest("b", ["a", "c"]), Some(("a", 1)));
        assert_eq!(nearest("x", []), None);
    }
}
