//! Rows for places, events and ends; and a model: a random writer that rotates and purges against a reader of any speed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;
use crate::logs::rotate::{Op, Rotator};
use crate::spec::LogPolicy;

const START: Position = Position { origin: Origin::Start, offset: 0 };

fn start(offset: u64) -> Position {
    Position { origin: Origin::Start, offset }
}

fn end(offset: u64) -> Position {
    Position { origin: Origin::End, offset }
}

/// Sizes of files 3, 4, 5, ... and where the first read goes.
#[track_caller]
fn check_place(from: Position, sizes: &[u64], want: Option<(u32, u64)>) {
    let mut follower = Follower::rotated(from, false);
    assert_eq!(follower.step(Fact::Next), Step::List);
    let files: Vec<Listed> = sizes.iter().zip(3..).map(|(&bytes, index)| Listed { index, bytes, inode: u64::from(index) }).collect();
    let files: Vec<Listed> = files.into_iter().rev().collect();
    match (follower.step(Fact::Files(&files)), want) {
        (Step::Open(index), Some((want_index, want_at))) => {
            assert_eq!(index, want_index);
            assert_eq!(follower.step(Fact::Opened(0, u64::from(index))), Step::Read(want_at));
        }
        (step, want) => assert_eq!((step, want), (Step::Absent, None)),
    }
}

#[test]
fn places_across_files() {
    check_place(START, &[], None);
    check_place(end(5), &[], None);
    check_place(START, &[10, 10, 4], Some((3, 0)));
    check_place(start(4), &[10, 10, 4], Some((3, 4)));
    check_place(start(10), &[10, 10, 4], Some((3, 10)));
    check_place(start(11), &[10, 10, 4], Some((4, 1)));
    check_place(start(24), &[10, 10, 4], Some((5, 4)));
    check_place(start(25), &[10, 10, 4], Some((5, 4)));
    check_place(start(u64::MAX), &[10, 10, 4], Some((5, 4)));
    check_place(start(3), &[0, 0, 4], Some((5, 3)));
    check_place(end(0), &[10, 10, 4], Some((5, 4)));
    check_place(end(4), &[10, 10, 4], Some((5, 0)));
    check_place(end(5), &[10, 10, 4], Some((4, 9)));
    check_place(end(24), &[10, 10, 4], Some((3, 0)));
    check_place(end(25), &[10, 10, 4], Some((3, 0)));
    check_place(end(u64::MAX), &[10, 10, 4], Some((3, 0)));
    check_place(end(1), &[u64::MAX, 0], Some((3, u64::MAX - 1)));
}

/// A scripted reader: each pair is a fact and the step it must be answered with.
#[track_caller]
fn check(mut follower: Follower, script: &[(Fact<'_>, Step)]) {
    for (i, (fact, want)) in script.iter().enumerate() {
        assert_eq!(follower.step(*fact), *want, "step {i} {fact:?}");
    }
}

fn file(index: u32, bytes: u64) -> Listed {
    Listed { index, bytes, inode: u64::from(index) + 100 }
}

fn data(index: u32, offset: u64, bytes_n: usize) -> Step {
    Step::Give(Piece { index, offset, bytes_n, event: None })
}

fn event(index: u32, offset: u64, bytes_n: usize, event: FileEvent) -> Step {
    Step::Give(Piece { index, offset, bytes_n, event: Some(event) })
}

#[test]
fn without_follow_the_log_ends_with_the_newest_file() {
    check(
        Follower::rotated(START, false),
        &[
            (Fact::Next, Step::List),
            (Fact::Files(&[file(0, 5), file(1, 3)]), Step::Open(0)),
            (Fact::Opened(5, 100), Step::Read(0)),
            (Fact::Read(5), data(0, 5, 5)),
            (Fact::Next, Step::Read(5)),
            (Fact::Read(0), Step::List),
            // A third one has come meanwhile: it is the newest when file 1 is reached.
            (Fact::Files(&[file(0, 5), file(1, 3), file(2, 1)]), Step::Open(1)),
            (Fact::Opened(3, 101), Step::Read(0)),
            (Fact::Read(0), Step::List),
            (Fact::Files(&[file(2, 1)]), event(1, 0, 0, FileEvent::Deleted)),
            (Fact::Next, Step::Open(2)),
            (Fact::Opened(1, 102), Step::Read(0)),
            (Fact::Read(1), data(2, 1, 1)),
            (Fact::Next, Step::Read(1)),
            (Fact::Read(0), Step::End),
            (Fact::Next, Step::End),
        ],
    );
}

#[test]
fn a_rotation_is_followed_after_one_more_read() {
    check(
        Follower::rotated(end(0), true),
        &[
            (Fact::Next, Step::List),
            (Fact::Files(&[file(0, 5)]), Step::Open(0)),
            (Fact::Opened(5, 100), Step::Read(5)),
            (Fact::Read(0), Step::List),
            (Fact::Files(&[file(0, 5)]), Step::Wait),
            (Fact::Woken, Step::Read(5)),
            (Fact::Read(0), Step::List),
            (Fact::Files(&[file(1, 0), file(0, 7)]), Step::Read(5)),
            (Fact::Read(2), data(0, 7, 2)),
            (Fact::Next, Step::Read(7)),
            (Fact::Read(0), Step::List),
            (Fact::Files(&[file(1, 0), file(0, 7)]), Step::Open(1)),
            (Fact::Opened(0, 101), Step::Read(0)),
            (Fact::Read(0), Step::List),
            (Fact::Files(&[file(1, 0), file(0, 7)]), Step::Wait),
        ],
    );
}

#[test]
fn purged_before_their_turn_each_is_told_once() {
    check(
        Follower::rotated(START, true),
        &[
            (Fact::Next, Step::List),
            (Fact::Files(&[file(0, 5)]), Step::Open(0)),
            (Fact::Vanished, event(0, 0, 0, FileEvent::Deleted)),
            (Fact::Next, Step::List),
            // 1 was missed by the listing, not purged; 2 is purged before it is opened.
            (Fact::Files(&[file(3, 5)]), Step::Open(1)),
            (Fact::Opened(5, 101), Step::Read(0)),
            (Fact::Read(0), Step::List),
            (Fact::Files(&[file(3, 5)]), event(1, 0, 0, FileEvent::Deleted)),
            (Fact::Next, Step::Open(2)),
            (Fact::Vanished, event(2, 0, 0, FileEvent::Deleted)),
            (Fact::Next, Step::Open(3)),
            (Fact::Opened(5, 103), Step::Read(0)),
        ],
    );
}

#[test]
fn a_deleted_file_without_a_newer_one_waits_for_it() {
    check(
        Follower::rotated(START, true),
        &[
            (Fact::Next, Step::List),
            (Fact::Files(&[file(4, 5), file(5, 5)]), Step::Open(4)),
            (Fact::Opened(5, 104), Step::Read(0)),
            (Fact::Read(0), Step::List),
            (Fact::Files(&[file(4, 5), file(5, 5)]), Step::Open(5)),
            (Fact::Opened(5, 105), Step::Read(0)),
            (Fact::Read(5), data(5, 5, 5)),
            (Fact::Next, Step::Read(5)),
            (Fact::Read(0), Step::List),
            (Fact::Files(&[file(4, 5)]), Step::Read(5)),
            (Fact::Read(0), Step::List),
            (Fact::Files(&[file(4, 5)]), event(5, 5, 0, FileEvent::Deleted)),
            (Fact::Next, Step::List),
            (Fact::Files(&[file(4, 5)]), Step::Wait),
            // Nomad would read 4 again.
            (Fact::Woken, Step::List),
            (Fact::Files(&[file(4, 9)]), Step::Wait),
            (Fact::Woken, Step::List),
            // The same index as another file is a newer file.
            (Fact::Files(&[Listed { index: 5, bytes: 1, inode: 7 }]), Step::Open(5)),
            (Fact::Opened(1, 7), Step::Read(0)),
            (Fact::Read(1), data(5, 1, 1)),
        ],
    );
}

#[test]
fn truncation_starts_again_and_is_told_with_the_next_bytes() {
    let begin = [
        (Fact::Next, Step::Open(0)),
        (Fact::Opened(5, 100), Step::Read(0)),
        (Fact::Read(5), data(0, 5, 5)),
        (Fact::Next, Step::Read(5)),
        (Fact::Read(0), Step::List),
        (Fact::Files(&[Listed { index: 0, bytes: 2, inode: 100 }]), Step::Read(0)),
    ];
    let some = [(Fact::Read(2), event(0, 2, 2, FileEvent::Truncated)), (Fact::Next, Step::Read(2)), (Fact::Read(1), data(0, 3, 1))];
    check(Follower::single(START, true), &[&begin[..], &some[..]].concat());
    let none = [(Fact::Read(0), event(0, 0, 0, FileEvent::Truncated)), (Fact::Next, Step::Read(0)), (Fact::Read(1), data(0, 1, 1))];
    check(Follower::single(START, true), &[&begin[..], &none[..]].concat());
}

#[test]
fn a_single_file_ends_when_it_is_gone_or_another() {
    for after in [&[][..], &[Listed { index: 0, bytes: 5, inode: 101 }][..]] {
        check(
            Follower::single(end(2), true),
            &[
                (Fact::Next, Step::Open(0)),
                (Fact::Opened(5, 100), Step::Read(3)),
                (Fact::Read(2), data(0, 5, 2)),
                (Fact::Next, Step::Read(5)),
                (Fact::Read(0), Step::List),
                (Fact::Files(after), Step::Read(5)),
                (Fact::Read(1), data(0, 6, 1)),
                (Fact::Next, Step::Read(6)),
                (Fact::Read(0), event(0, 6, 0, FileEvent::Deleted)),
                (Fact::Next, Step::End),
            ],
        );
    }
}

#[test]
fn a_single_file_without_follow_ends_at_its_end() {
    check(
        Follower::single(end(9), false),
        &[
            (Fact::Next, Step::Open(0)),
            (Fact::Opened(5, 100), Step::Read(0)),
            (Fact::Read(5), data(0, 5, 5)),
            (Fact::Next, Step::Read(5)),
            (Fact::Read(0), Step::End),
        ],
    );
}

#[test]
fn an_unasked_fact_is_the_end() {
    for fact in [Fact::Woken, Fact::Vanished, Fact::Read(1), Fact::Read(0), Fact::Opened(1, 1), Fact::Files(&[])] {
        let mut follower = Follower::rotated(START, true);
        assert_eq!(follower.step(fact), Step::End);
        assert_eq!(follower.step(Fact::Next), Step::End);
    }
}

#[test]
fn a_planted_index_does_not_cost_four_billion_steps() {
    let far = [file(0, 0), file(u32::MAX, 0)];
    let mut follower = Follower::rotated(START, true);
    assert_eq!(follower.step(Fact::Next), Step::List);
    assert_eq!(follower.step(Fact::Files(&far)), Step::Open(0));
    let mut step = follower.step(Fact::Opened(0, 100));
    for _ in 0..3 * GAP_MAX {
        step = match step {
            Step::Read(_) => follower.step(Fact::Read(0)),
            Step::List => follower.step(Fact::Files(&far)),
            Step::Open(u32::MAX) => follower.step(Fact::Opened(0, u64::from(u32::MAX) + 100)),
            Step::Open(_) => follower.step(Fact::Vanished),
            Step::Give(_) => follower.step(Fact::Next),
            Step::Wait => return,
            Step::Absent | Step::End => break,
        };
    }
    panic!("ended with {step:?}");
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(below)).unwrap()
    }
}

type Content = Rc<RefCell<Vec<u8>>>;

/// A writer with its folder. Every file ever made is kept in `all`.
struct Writer {
    rotator: Rotator,
    folder: BTreeMap<u32, Content>,
    all: BTreeMap<u32, Content>,
    open: u32,
    next_byte: u8,
    /// Bytes still to be written.
    left_n: u32,
}

impl Writer {
    fn write(&mut self, random: &mut Random) {
        let len = random.below(120).min(self.left_n);
        self.left_n -= len;
        let chunk: Vec<u8> = (0..len)
            .map(|_| {
                self.next_byte = self.next_byte.wrapping_add(1);
                self.next_byte
            })
            .collect();
        let mut rest = &chunk[..];
        while let Some((op, after)) = self.rotator.next(rest) {
            match op {
                Op::Open(index) => {
                    let content = Content::default();
                    self.folder.insert(index, Rc::clone(&content));
                    self.all.insert(index, content);
                    self.open = index;
                }
                Op::Write(bytes) => self.folder[&self.open].borrow_mut().extend_from_slice(bytes),
                Op::Remove(index) => drop(self.folder.remove(&index)),
            }
            rest = after;
        }
    }

    /// Some of the time nothing, some of the time a lot.
    fn burst(&mut self, random: &mut Random) {
        if random.below(4) == 0 {
            for _ in 0..random.below(12) {
                self.write(random);
            }
        }
    }

    /// A listing as a real folder gives it: files that come and go meanwhile are in it or not.
    fn list(&mut self, random: &mut Random) -> Vec<Listed> {
        let before: Vec<u32> = self.folder.keys().copied().collect();
        let mut listed = Vec::new();
        for index in before.iter().copied() {
            self.burst(random);
            listed.extend(self.stat(index));
        }
        for index in self.folder.keys().copied().filter(|index| !before.contains(index)).collect::<Vec<_>>() {
            if random.below(2) == 0 {
                listed.extend(self.stat(index));
            }
        }
        listed
    }

    fn stat(&self, index: u32) -> Option<Listed> {
        let bytes = self.folder.get(&index)?.borrow().len() as u64;
        Some(file(index, bytes))
    }
}

/// One run: returns how many files were purged before the reader came to them.
fn run(seed: u64, is_follow: bool) -> usize {
    let mut random = Random(seed);
    let policy = LogPolicy { files_max: 1 + random.below(5), file_bytes_max: u64::from(8 + random.below(300)), is_captured: true };
    let mut writer = Writer {
        rotator: Rotator::new(policy, None),
        folder: BTreeMap::new(),
        all: BTreeMap::new(),
        open: 0,
        next_byte: 0,
        left_n: random.below(6000),
    };
    writer.write(&mut random);
    let mut follower = Follower::rotated(START, is_follow);
    let mut open: Option<Content> = None;
    let mut got: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut told: Vec<u32> = Vec::new();
    let mut last = 0;
    let mut last_read = Vec::new();
    let mut step = follower.step(Fact::Next);
    let mut first = None;
    loop {
        writer.burst(&mut random);
        step = match step {
            Step::List => {
                let files = writer.list(&mut random);
                first = first.or(files.iter().map(|file| file.index).min());
                follower.step(Fact::Files(&files))
            }
            Step::Open(index) => match writer.folder.get(&index) {
                Some(content) => {
                    open = Some(Rc::clone(content));
                    let bytes = content.borrow().len() as u64;
                    follower.step(Fact::Opened(bytes, u64::from(index) + 100))
                }
                None => follower.step(Fact::Vanished),
            },
            Step::Read(at) => {
                let content = open.as_ref().unwrap().borrow();
                let max = 1 + random.below(200) as usize;
                last_read = content[usize::try_from(at).unwrap()..].iter().take(max).copied().collect();
                follower.step(Fact::Read(last_read.len()))
            }
            Step::Give(piece) => {
                assert!(piece.index >= last, "seed {seed}: order");
                last = piece.index;
                if piece.bytes_n > 0 {
                    assert!(!told.contains(&piece.index), "seed {seed}: bytes after the end");
                    got.entry(piece.index).or_default().extend(&last_read[..piece.bytes_n]);
                    assert_eq!(got[&piece.index].len() as u64, piece.offset, "seed {seed}");
                }
                if let Some(event) = piece.event {
                    assert_eq!(event, FileEvent::Deleted);
                    assert!(!writer.folder.contains_key(&piece.index), "seed {seed}: told of a file that is there");
                    assert!(!told.contains(&piece.index), "seed {seed}: told twice");
                    told.push(piece.index);
                }
                follower.step(Fact::Next)
            }
            Step::Wait if writer.left_n > 0 => {
                writer.write(&mut random);
                follower.step(Fact::Woken)
            }
            Step::Wait if last != writer.open || got.get(&last).map_or(0, Vec::len) != writer.all[&last].borrow().len() => {
                // Nothing is written any more, yet not all was read: one wake-up must do.
                let before = (last, got.get(&last).map(Vec::len));
                let next = follower.step(Fact::Woken);
                assert!(next != Step::Wait, "seed {seed}: stuck at {before:?}");
                next
            }
            Step::Wait | Step::End => break,
            // All that were there went while they were listed: ask again.
            Step::Absent => {
                follower = Follower::rotated(START, is_follow);
                follower.step(Fact::Next)
            }
        };
    }
    // Every file from the first on was read whole, or told and not read at all.
    let end = if is_follow { writer.open } else { last };
    let mut lost_n = 0;
    for index in first.unwrap()..=end {
        match got.get(&index) {
            Some(bytes) if is_follow || index < end => assert_eq!(bytes, &*writer.all[&index].borrow(), "seed {seed} file {index}"),
            Some(bytes) => assert!(writer.all[&index].borrow().starts_with(bytes), "seed {seed} file {index}"),
            None if writer.all[&index].borrow().is_empty() || (index == end && !is_follow) => {}
            None => {
                assert!(told.contains(&index), "seed {seed}: file {index} was lost in silence");
                lost_n += 1;
            }
        }
    }
    lost_n
}

#[test]
fn model_of_a_random_writer() {
    let (mut lost_n, mut runs_n) = (0, 0);
    for seed in 1..=4000 {
        let lost = run(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed), true);
        run(seed * 0x9e37_79b9, false);
        runs_n += usize::from(lost == 0);
        lost_n += lost;
    }
    // Both kinds of runs must have happened.
    assert!(lost_n > 500 && runs_n > 500, "{lost_n} files lost, {runs_n} runs without loss");
}
