//! RT08: rotation vectors, and a model that never loses, doubles or reorders a byte.

use std::collections::BTreeMap;

use super::*;

const MIB: u64 = 1 << 20;
const MIB_LEN: usize = 1 << 20;

fn policy(files_max: u32, file_bytes_max: u64) -> LogPolicy {
    LogPolicy { files_max, file_bytes_max, is_captured: true }
}

/// A folder in memory, written as the shim writes.
#[derive(Default)]
struct Folder {
    files: BTreeMap<u32, Vec<u8>>,
    open: u32,
    ops: Vec<String>,
}

impl Folder {
    fn with(sizes: &[(u32, usize)]) -> Self {
        Self { files: sizes.iter().map(|&(index, size)| (index, vec![b'\n'; size])).collect(), ..Self::default() }
    }

    fn write(&mut self, rotator: &mut Rotator, chunk: &[u8]) {
        let mut rest = chunk;
        let mut steps_n = 0;
        while let Some((op, after)) = rotator.next(rest) {
            match op {
                Op::Open(index) => {
                    let file = self.files.entry(index).or_default();
                    rotator.opened(file.len() as u64);
                    self.open = index;
                    self.ops.push(format!("open {index}"));
                }
                Op::Write(bytes) => {
                    assert!(!bytes.is_empty());
                    self.files.get_mut(&self.open).unwrap().extend_from_slice(bytes);
                    self.ops.push(format!("write {}", bytes.len()));
                }
                Op::Remove(index) => {
                    assert_ne!(index, self.open);
                    self.files.remove(&index);
                    self.ops.push(format!("remove {index}"));
                }
            }
            rest = after;
            steps_n += 1;
            assert!(steps_n <= 4 * chunk.len() + 4096, "a chunk must end");
        }
    }

    fn newest(&self) -> Option<(u32, u64)> {
        self.files.last_key_value().map(|(&index, bytes)| (index, bytes.len() as u64))
    }

    fn oldest(&self) -> u32 {
        self.files.first_key_value().map_or(0, |(&index, _)| index)
    }

    fn sizes(&self) -> Vec<(u32, usize)> {
        self.files.iter().map(|(&index, bytes)| (index, bytes.len())).collect()
    }
}

/// Starts on `before`, writes `chunks`, compares the steps taken.
#[track_caller]
fn check(policy: LogPolicy, before: &[(u32, usize)], chunks: &[&[u8]], want: &str) {
    let mut folder = Folder::with(before);
    let mut rotator = Rotator::new(policy, folder.newest()).with_oldest(folder.oldest());
    for chunk in chunks {
        folder.write(&mut rotator, chunk);
    }
    assert_eq!(folder.ops.join(", "), want);
}

fn line(len: usize) -> Vec<u8> {
    let mut line = vec![b'x'; len - 1];
    line.push(b'\n');
    line
}

#[test]
fn the_first_file_is_zero_and_an_empty_chunk_opens_it() {
    check(policy(10, MIB), &[], &[b""], "open 0");
    check(policy(10, MIB), &[], &[b"a\n", b"b"], "open 0, write 2, write 1");
}

#[test]
fn resume_appends_to_the_highest_file_and_counts_what_is_there() {
    check(policy(10, MIB), &[(3, 10), (4, 100)], &[b"a\n"], "open 4, write 2");
    // Two bytes of room, one line of two bytes: it fits; the next one does not.
    check(policy(10, MIB), &[(4, MIB_LEN - 2)], &[b"a\n", b"b\n"], "open 4, write 2, open 5, write 2");
    // A full one is opened and left.
    check(policy(10, MIB), &[(4, MIB_LEN)], &[b"a\n"], "open 4, open 5, write 2");
    // An old limit was higher.
    check(policy(10, MIB), &[(4, 3 * MIB_LEN)], &[b"a\n"], "open 4, open 5, write 2");
}

#[test]
fn a_higher_index_that_is_full_is_passed_over() {
    let mut folder = Folder::with(&[(0, MIB_LEN)]);
    let mut rotator = Rotator::new(policy(10, MIB), folder.newest());
    folder.files.insert(1, vec![b'\n'; MIB_LEN]);
    folder.write(&mut rotator, b"a\n");
    assert_eq!(folder.ops.join(", "), "open 0, open 1, open 2, write 2");
}

#[test]
fn shrunk_files_max_removes_the_oldest_at_the_start_and_while_running() {
    check(policy(3, MIB), &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)], &[b""], "open 4, remove 0, remove 1");
    check(policy(1, MIB), &[(7, 1), (8, 1)], &[b"a\n"], "open 8, remove 7, write 2");
    let mut folder = Folder::with(&[(5, 1), (6, 1), (7, 1)]);
    let mut rotator = Rotator::new(policy(3, MIB), folder.newest()).with_oldest(5);
    folder.write(&mut rotator, b"");
    rotator.set_policy(policy(1, MIB));
    folder.write(&mut rotator, b"a\n");
    assert_eq!(folder.ops.join(", "), "open 7, remove 5, remove 6, write 2");
    // Grown again: nothing is removed until there are more.
    rotator.set_policy(policy(2, MIB));
    folder.write(&mut rotator, b"a\n");
    assert_eq!(folder.sizes(), [(7, 5)]);
}

#[test]
fn the_32_kib_rule() {
    let far = MIB_LEN - (32 << 10);
    // 32 KiB + chunk before the limit: bytes are bytes, lines do not matter.
    check(policy(9, MIB), &[(0, far - 4)], &[b"aaaa"], "open 0, write 4");
    // One byte nearer: an unfinished line begins the next file.
    check(policy(9, MIB), &[(0, far - 3)], &[b"aaaa"], "open 0, open 1, write 4");
    // Whole lines that fit go first, together.
    check(policy(9, MIB), &[(0, far)], &[b"a\nb\nc"], "open 0, write 4, open 1, write 1");
    check(policy(9, MIB), &[(0, far)], &[b"a\nb\n"], "open 0, write 4");
    // The limit itself may be reached, not passed.
    check(policy(9, MIB), &[(0, MIB_LEN - 4)], &[b"a\nb\nc\n"], "open 0, write 4, open 1, write 2");
    check(policy(9, MIB), &[(0, MIB_LEN - 3)], &[b"a\nb\nc\n"], "open 0, write 2, open 1, write 4");
    // A line longer than the room goes to the next file whole.
    check(policy(9, MIB), &[(0, MIB_LEN - 99)], &[&line(100)], "open 0, open 1, write 100");
}

#[test]
fn a_line_begun_here_is_finished_here_if_it_fits() {
    let near = MIB_LEN - 40_000;
    // 8000 bytes without a break are more than 32 KiB from the limit after none, near it after the first.
    let part = vec![b'x'; 7000];
    check(policy(9, MIB), &[(0, near)], &[&part, &part, b"x\ny"], "open 0, write 7000, write 7000, write 2, open 1, write 1");
}

#[test]
fn a_line_longer_than_a_file_is_split_at_the_limit() {
    let long = vec![b'x'; 2 * MIB_LEN + 10];
    check(policy(9, MIB), &[], &[&long], "open 0, write 1048576, open 1, write 1048576, open 2, write 10");
    // In pieces as a pipe gives them: the file is filled as long as the pieces fit.
    let mut folder = Folder::default();
    let mut rotator = Rotator::new(policy(9, MIB), None);
    for piece in long.chunks(4096) {
        folder.write(&mut rotator, piece);
    }
    assert_eq!(folder.sizes(), [(0, MIB_LEN), (1, MIB_LEN), (2, 10)]);
    // A limit below the line rule (never asked for by a valid job) still ends.
    check(policy(2, 4), &[], &[b"abcdefghij"], "open 0, write 4, open 1, write 4, open 2, remove 0, write 2");
    check(policy(2, 0), &[], &[b"abc"], "open 0, write 1, open 1, write 1, open 2, remove 0, write 1");
}

#[test]
fn what_could_not_be_written_does_not_count() {
    let mut rotator = Rotator::new(policy(9, MIB), Some((0, MIB - 4)));
    assert_eq!(rotator.next(b"a\n"), Some((Op::Open(0), &b"a\n"[..])));
    rotator.opened(MIB - 4);
    assert_eq!(rotator.next(b"abc\n"), Some((Op::Write(b"abc\n"), &b""[..])));
    rotator.lost(3);
    assert_eq!(rotator.next(b"ab\n"), Some((Op::Write(b"ab\n"), &b""[..])));
    assert_eq!(rotator.next(b"a\n"), Some((Op::Open(1), &b"a\n"[..])));
    rotator.closed();
    assert_eq!(rotator.next(b"a\n"), Some((Op::Open(1), &b"a\n"[..])));
    assert_eq!(rotator.index(), 1);
}

#[test]
fn the_last_index_is_never_left() {
    let mut rotator = Rotator::new(policy(1, MIB), Some((u32::MAX, MIB)));
    assert_eq!(rotator.next(b"a\n"), Some((Op::Open(u32::MAX), &b"a\n"[..])));
    rotator.opened(MIB);
    assert_eq!(rotator.next(b"a\n"), Some((Op::Write(b"a\n"), &b""[..])));
}

#[test]
fn four_byte_lines_keep_the_bound_exactly() {
    let mut folder = Folder::default();
    let mut rotator = Rotator::new(policy(3, MIB), None);
    let chunk = b"abc\n".repeat(1024);
    for _ in 0..(5 * 256 + 1) {
        folder.write(&mut rotator, &chunk);
    }
    assert_eq!(folder.sizes(), [(3, MIB_LEN), (4, MIB_LEN), (5, 4096)]);
}

/// Random chunks, limits, restarts and changes of policy: the files kept are a suffix of what was written.
#[test]
fn model_keeps_a_suffix_of_the_stream() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u32| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        u32::try_from(seed % u64::from(below)).unwrap()
    };
    for _ in 0..300 {
        let mut folder = Folder::default();
        let (mut files_max, mut limit) = (1 + random(4), 1 + random(200_000));
        let mut rotator = Rotator::new(policy(files_max, u64::from(limit)), None);
        let mut written = Vec::new();
        for _ in 0..random(60) {
            let (len, line_every) = (random(6000), 1 + random(900));
            let chunk: Vec<u8> = (0..len).map(|i| if random(line_every) == 0 { b'\n' } else { b"abcdefg"[i as usize % 7] }).collect();
            folder.write(&mut rotator, &chunk);
            written.extend_from_slice(&chunk);
            match random(20) {
                0 => rotator = Rotator::new(policy(files_max, u64::from(limit)), folder.newest()).with_oldest(folder.oldest()),
                1 => {
                    (files_max, limit) = (1 + random(4), 1 + random(200_000));
                    rotator.set_policy(policy(files_max, u64::from(limit)));
                }
                _ => {}
            }
        }
        folder.write(&mut rotator, b"");
        let kept: Vec<u8> = folder.files.values().flatten().copied().collect();
        assert!(written.ends_with(&kept));
        assert!(folder.files.len() <= files_max as usize);
        assert!(folder.files.len() == files_max as usize || folder.oldest() == 0 || kept.len() < written.len());
    }
}
