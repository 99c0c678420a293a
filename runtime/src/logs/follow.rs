//! What a reader of a growing file takes next: the rotated files of one log, or a single file. Pure: reads nothing itself.
//!
//! Shape: [`Follower::step`] takes one [`Fact`] and answers with one [`Step`]; the fact that follows is the answer to it.
//! Units: bytes, file indexes. Bounds: a few words, whatever the files hold. Errors: none; what cannot be opened or read is
//! the caller's to report.
//!
//! Invariants: each byte is given out at most once and in order; a file is left only after it was read to its end once more
//! after a newer one was seen; a file that vanished while it was read, or before its turn came, is told exactly once as
//! [`FileEvent::Deleted`]. A file that was read, left and purged later is not told.
//! The listing of a folder is not atomic, so it never proves that an index in the middle is gone: only a failed open does,
//! together with a newer file, because indexes count up.
//! Source: `spec/http-api.md` 5.5, 5.6; upstream v1.3.1 client/fs_endpoint.go (behaviour only).

/// Indexes in a row that are tried one by one when they have vanished; beyond that the reader goes to the oldest that is left.
const GAP_MAX: u32 = 1024;

/// From where an offset counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the first byte that still exists.
    Start,
    /// Backwards from the last byte.
    End,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// From where.
    pub origin: Origin,
    /// How many bytes to skip.
    pub offset: u64,
}

/// One file of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number; 0 for a single file.
    pub index: u32,
    /// Its size.
    pub bytes: u64,
    /// Its inode: the same index with another inode is another file.
    pub inode: u64,
}

/// What the follower learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact<'a> {
    /// First step, or: what was given out has been taken.
    Next,
    /// Answer to [`Step::List`], in any order. A single file: one item, or none if it is gone.
    Files(&'a [Listed]),
    /// Answer to [`Step::Open`]: size and inode.
    Opened(u64, u64),
    /// Answer to [`Step::Open`]: there is no such file any more.
    Vanished,
    /// Answer to [`Step::Read`]: how many bytes were read; 0 = end of the file for now.
    Read(usize),
    /// [`Step::Wait`] ended: something may have changed.
    Woken,
}

/// What the follower wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// List the files. The open file stays open.
    List,
    /// Open this file for the following reads, instead of the one before.
    Open(u32),
    /// Read from the open file at this offset. An unlinked file is read to its end all the same.
    Read(u64),
    /// Give out what was read last (`bytes_n` may be 0 with an event), then come back with [`Fact::Next`].
    Give(Piece),
    /// Come back when the folder has changed.
    Wait,
    /// There is no file at all; only as the answer to the first listing.
    Absent,
    /// The end.
    End,
}

/// One piece of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The file.
    pub index: u32,
    /// Offset in the file just after the bytes.
    pub offset: u64,
    /// How many bytes, of those read last.
    pub bytes_n: usize,
    /// What happened to the file before these bytes.
    pub event: Option<FileEvent>,
}

/// What can happen to a file besides growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileEvent {
    /// It was unlinked, renamed or replaced.
    Deleted,
    /// It became shorter than what was read; reading starts again at 0.
    Truncated,
}

impl FileEvent {
    /// The text on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "file deleted",
            Self::Truncated => "file truncated",
        }
    }
}

/// A reader's place.
#[derive(Clone, Debug)]
pub struct Follower {
    is_rotated: bool,
    is_follow: bool,
    from: Position,
    state: State,
    /// The file being read, or read last and not yet left behind.
    file: Option<File>,
    /// The index to take after it; wider than an index, so that it can be past the last one.
    wanted: u64,
    /// Highest index that was ever listed.
    newest: Option<u32>,
    /// Indexes that had vanished since the last file that could be opened.
    gap_n: u32,
}

#[derive(Clone, Copy, Debug)]
struct File {
    index: u32,
    inode: u64,
    offset: u64,
    /// Nothing will be added any more: a newer file or its deletion was seen before the reads to come.
    is_finished: bool,
    /// Its deletion has been told.
    is_told: bool,
    /// To be told with the next piece.
    is_truncated: bool,
}

/// What the next fact answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Placing,
    Opening {
        index: u32,
        at: u64,
    },
    Reading,
    Giving,
    /// A listing at the end of the file: did it change?
    Looking,
    /// A listing after the end of a finished file: which one is next?
    Leaving,
    Telling,
    Waiting,
    Ended,
}

impl Follower {
    /// A reader of the rotated files of one log. Without `is_follow` it ends with the file that is the newest when its turn comes.
    #[must_use]
    pub fn rotated(from: Position, is_follow: bool) -> Self {
        Self { is_rotated: true, is_follow, from, state: State::Start, file: None, wanted: 0, newest: None, gap_n: 0 }
    }

    /// A reader of one file (its index is 0). It ends when the file is deleted, replaced or renamed; without `is_follow` at its end.
    #[must_use]
    pub fn single(from: Position, is_follow: bool) -> Self {
        Self { is_rotated: false, ..Self::rotated(from, is_follow) }
    }

    /// The next step. A fact that does not answer the last step changes nothing but is answered with the end.
    pub fn step(&mut self, fact: Fact<'_>) -> Step {
        match (self.state, fact) {
            (State::Start, Fact::Next) if self.is_rotated => self.list(State::Placing),
            (State::Start, Fact::Next) => self.open(0, 0),
            (State::Placing, Fact::Files(files)) => self.place(files),
            (State::Opening { index, at }, Fact::Opened(bytes, inode)) => self.begin(index, at, bytes, inode),
            (State::Opening { index, .. }, Fact::Vanished) => self.pass_over(index),
            (State::Reading, Fact::Read(0)) => self.at_end(),
            (State::Reading, Fact::Read(bytes_n)) => self.give(bytes_n),
            (State::Giving, Fact::Next) => self.read(),
            (State::Looking, Fact::Files(files)) => self.look(files),
            (State::Leaving, Fact::Files(files)) => self.leave(files),
            (State::Telling, Fact::Next) => self.seek(),
            (State::Waiting, Fact::Woken) => match self.file {
                Some(file) if !file.is_told => self.read(),
                _ => self.list(State::Leaving),
            },
            _ => self.end(),
        }
    }

    /// The first listing: finds the file and the offset to begin with.
    fn place(&mut self, files: &[Listed]) -> Step {
        self.note_newest(files);
        let mut files: Vec<Listed> = files.to_vec();
        files.sort_unstable_by_key(|file| file.index);
        let mut offset = self.from.offset;
        let mut place = None;
        match self.from.origin {
            // The end of one file is preferred to the start of the next: more may be written there.
            Origin::Start => {
                for file in &files {
                    place = Some((file.index, offset.min(file.bytes)));
                    if offset <= file.bytes {
                        break;
                    }
                    offset -= file.bytes;
                }
            }
            Origin::End => {
                for file in files.iter().rev() {
                    place = Some((file.index, file.bytes.saturating_sub(offset)));
                    if offset <= file.bytes {
                        break;
                    }
                    offset -= file.bytes;
                }
            }
        }
        match place {
            Some((index, at)) => {
                self.wanted = u64::from(index);
                self.open(index, at)
            }
            None => {
                self.state = State::Ended;
                Step::Absent
            }
        }
    }

    fn begin(&mut self, index: u32, at: u64, bytes: u64, inode: u64) -> Step {
        let offset = match self.from {
            _ if self.is_rotated => at,
            Position { origin: Origin::Start, offset } => offset,
            Position { origin: Origin::End, offset } => bytes.saturating_sub(offset),
        };
        let is_finished = self.newest.is_some_and(|newest| newest > index);
        self.file = Some(File { index, inode, offset, is_finished, is_told: false, is_truncated: false });
        self.wanted = u64::from(index) + 1;
        self.gap_n = 0;
        self.read()
    }

    /// The file to be opened is not there. A newer one was seen, so it will not come: it was purged.
    fn pass_over(&mut self, index: u32) -> Step {
        if u64::from(index) < self.wanted {
            // The replacement of the file read last is gone again.
            return self.list(State::Leaving);
        }
        self.file = None;
        self.wanted += 1;
        self.gap_n += 1;
        self.tell(index, 0)
    }

    fn give(&mut self, bytes_n: usize) -> Step {
        let Some(file) = &mut self.file else { return self.end() };
        file.offset = file.offset.saturating_add(u64::try_from(bytes_n).unwrap_or(u64::MAX));
        let event = core::mem::take(&mut file.is_truncated).then_some(FileEvent::Truncated);
        self.state = State::Giving;
        Step::Give(Piece { index: file.index, offset: file.offset, bytes_n, event })
    }

    fn at_end(&mut self) -> Step {
        match self.file {
            Some(file) if file.is_truncated => self.give(0),
            Some(file) if file.is_finished && self.is_rotated => self.list(State::Leaving),
            Some(File { index, offset, is_finished: true, .. }) => self.tell(index, offset),
            Some(_) if self.is_follow => self.list(State::Looking),
            _ => self.end(),
        }
    }

    fn look(&mut self, files: &[Listed]) -> Step {
        self.note_newest(files);
        let has_newer = self.has_newer();
        let Some(file) = &mut self.file else { return self.end() };
        match files.iter().find(|listed| listed.index == file.index && listed.inode == file.inode) {
            Some(listed) if listed.bytes < file.offset => {
                file.offset = 0;
                file.is_truncated = true;
                self.read()
            }
            // Written between the last read and the listing: the next wait ends at once, or the newer file says so.
            Some(_) if !has_newer => self.wait(),
            _ => {
                file.is_finished = true;
                self.read()
            }
        }
    }

    fn leave(&mut self, files: &[Listed]) -> Step {
        self.note_newest(files);
        if let Some(file) = &mut self.file {
            let same_index = files.iter().find(|listed| listed.index == file.index);
            let is_there = same_index.is_some_and(|listed| listed.inode == file.inode);
            let (index, offset) = (file.index, file.offset);
            if !is_there && !file.is_told {
                file.is_told = true;
                return self.tell(index, offset);
            }
            if !is_there && same_index.is_some() {
                return self.open(index, 0);
            }
            file.is_finished = false;
        }
        if self.gap_n >= GAP_MAX {
            let left = files.iter().map(|file| u64::from(file.index)).filter(|&index| index >= self.wanted);
            self.wanted = left.min().or(self.newest.map(|newest| u64::from(newest) + 1)).unwrap_or(self.wanted);
            self.gap_n = 0;
        }
        match self.wanted() {
            Some(index) => self.open(index, 0),
            None if self.is_follow => self.wait(),
            None => self.end(),
        }
    }

    /// After a deletion was told.
    fn seek(&mut self) -> Step {
        match self.wanted() {
            _ if !self.is_rotated => self.end(),
            Some(index) if self.gap_n < GAP_MAX => self.open(index, 0),
            _ => self.list(State::Leaving),
        }
    }

    /// The index to open next, if it or a newer one was seen.
    fn wanted(&self) -> Option<u32> {
        u32::try_from(self.wanted).ok().filter(|&index| self.newest.is_some_and(|newest| newest >= index))
    }

    /// Indexes count up: a listing that misses the newest, because files came and went meanwhile, changes nothing.
    fn note_newest(&mut self, files: &[Listed]) {
        self.newest = self.newest.max(files.iter().map(|file| file.index).max());
    }

    fn has_newer(&self) -> bool {
        self.newest > self.file.map(|file| file.index)
    }

    fn tell(&mut self, index: u32, offset: u64) -> Step {
        self.state = State::Telling;
        Step::Give(Piece { index, offset, bytes_n: 0, event: Some(FileEvent::Deleted) })
    }

    fn list(&mut self, state: State) -> Step {
        self.state = state;
        Step::List
    }

    fn open(&mut self, index: u32, at: u64) -> Step {
        self.state = State::Opening { index, at };
        Step::Open(index)
    }

    fn read(&mut self) -> Step {
        self.state = State::Reading;
        self.file.map_or(Step::End, |file| Step::Read(file.offset))
    }

    fn wait(&mut self) -> Step {
        self.state = State::Waiting;
        Step::Wait
    }

    fn end(&mut self) -> Step {
        self.state = State::Ended;
        Step::End
    }
}

#[cfg(test)]
mod tests;
