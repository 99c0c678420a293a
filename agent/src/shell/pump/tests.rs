use std::time::Duration;

use super::super::rig::{NoRows, TestClock};
use super::*;
use hyper::body::Body as _;

/// A machine that does what a list says and writes down what it was told.
struct Scripted {
    steps: Vec<Does>,
    told: Rc<RefCell<String>>,
}

enum Does {
    Head,
    Emit(&'static str),
    Open,
    List,
    Read,
    /// Until so many milliseconds from now.
    Wait(u64, Option<&'static str>),
    End,
    Abort,
    Fail,
}

use Does::{Abort, Emit, End, Fail, List, Open, Read, Wait};

impl Machine for Scripted {
    fn step(&mut self, now: dunlin_hal::clock::Now, fact: Fact<'_>, out: &mut Vec<u8>) -> Step {
        assert!(out.is_empty(), "the buffer is empty on entry");
        let told = match fact {
            Fact::Ready => "ready".to_owned(),
            Fact::Bytes(bytes) => format!("bytes:{}", String::from_utf8_lossy(bytes)),
            Fact::Done(Ok(_)) => "done".to_owned(),
            Fact::Done(Err(_)) => "failed".to_owned(),
            Fact::Due => "due".to_owned(),
            Fact::Changed => "changed".to_owned(),
            Fact::Gone => "gone".to_owned(),
        };
        self.told.borrow_mut().push_str(&format!("{told} "));
        if self.steps.is_empty() {
            return Step::End;
        }
        let (alloc, path) = (AllocId::default(), "a".to_owned());
        match self.steps.remove(0) {
            Does::Head => Step::Head(Head::new(200, TEXT)),
            Emit(text) => {
                out.extend_from_slice(text.as_bytes());
                Step::Emit
            }
            Open => Step::Work(Work::Open { alloc, path }),
            List => Step::Work(Work::List { alloc, path }),
            Read => {
                out.extend_from_slice(b"not to be sent");
                Step::Read { at: 7, bytes_max: 9 }
            }
            Wait(ms, folder) => Step::Wait { until: now.mono.after_ms(ms), folder: folder.map(str::to_owned) },
            End => Step::End,
            Abort => Step::Abort,
            Fail => Step::Fail(ApiError::new(418, "teapot")),
        }
    }
}

/// Files of which nothing is known but that they work; a folder changes as often as `changes_n` says.
struct FakeFiles {
    changes_n: Cell<usize>,
    watches_n: Rc<Cell<usize>>,
}

impl Files for FakeFiles {
    fn work(&self, work: Work) -> BoxedLocal<Result<Done, FileError>> {
        let file = matches!(work, Work::Open { .. }).then(|| Arc::new(File::open("/dev/null").unwrap()));
        Box::pin(async { Ok(Done { answer: body::Answer::Entries(Vec::new()), file }) })
    }

    fn read(&self, _: Arc<File>, at: u64, bytes_max: usize, mut buf: Vec<u8>) -> BoxedLocal<(Vec<u8>, Result<(), FileError>)> {
        assert!(buf.is_empty());
        buf.extend_from_slice(format!("{at}+{bytes_max}").as_bytes());
        Box::pin(async move { (buf, Ok(())) })
    }

    fn changed(&self, _: AllocId, folder: &str) -> BoxedLocal<()> {
        assert_eq!(folder, "alloc/logs");
        self.watches_n.set(self.watches_n.get() + 1);
        match self.changes_n.get().checked_sub(1) {
            Some(left) => {
                self.changes_n.set(left);
                Box::pin(async {})
            }
            None => Box::pin(std::future::pending()),
        }
    }
}

/// Steps of a list: what each gives.
struct Steps(RefCell<Vec<Result<(&'static str, bool), ApiError>>>);

impl RowSource for Steps {
    fn step(&self, _: &mut dyn Rows, out: &mut Vec<u8>) -> Result<bool, ApiError> {
        let (text, is_more) = self.0.borrow_mut().remove(0)?;
        out.extend_from_slice(text.as_bytes());
        Ok(is_more)
    }
}

fn outside(files: FakeFiles, rows: Vec<Result<(&'static str, bool), ApiError>>) -> Outside {
    let clock = Rc::new(TestClock(std::time::Instant::now()));
    Outside { clock, rows: Rc::new(Steps(RefCell::new(rows))), files: Rc::new(files) }
}

fn no_changes() -> FakeFiles {
    FakeFiles { changes_n: Cell::new(0), watches_n: Rc::default() }
}

async fn next(body: &mut Outgoing) -> Option<Result<Frame, Broken>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
}

/// Reads a body to its end: its frames, and `!` when it was broken off.
async fn frames(body: &mut Outgoing) -> String {
    let mut text = String::new();
    loop {
        match next(body).await {
            None => return text,
            Some(Ok(frame)) => text.push_str(&format!("[{}]", String::from_utf8_lossy(frame.chunk()))),
            Some(Err(Broken)) => return text + "!",
        }
    }
}

/// Runs the machine to its end: status, frames, and what it was told.
#[track_caller]
fn check(steps: Vec<Does>, files: FakeFiles, status: u16, sent: &str, told: &str) {
    let log = Rc::new(RefCell::new(String::new()));
    let machine = Box::new(Scripted { steps, told: log.clone() });
    let answer = Answer::from(Reply::new(Head::default(), Body::Machine(machine)));
    let got = smol::block_on(async {
        let (head, mut body) = open(answer, &outside(files, Vec::new())).await;
        (head.status, frames(&mut body).await)
    });
    assert_eq!((got.0, got.1.as_str(), log.borrow().trim_end()), (status, sent, told));
}

#[test]
fn machines_run_to_their_end() {
    let head = || Does::Head;
    check(vec![head(), Emit("a"), Emit("b"), End], no_changes(), 200, "[a][b]", "ready ready ready ready");
    check(vec![head(), End], no_changes(), 200, "", "ready ready");
    check(vec![head(), Emit(""), Emit("b"), End], no_changes(), 200, "[b]", "ready ready ready ready");
    check(vec![List, head(), Emit("a"), End], no_changes(), 200, "[a]", "ready done ready ready");
    check(vec![Open, head(), Read, Emit("x"), Read, End], no_changes(), 200, "[x]", "ready done ready bytes:7+9 ready bytes:7+9");
    check(vec![head(), Wait(1, None), Emit("x"), End], no_changes(), 200, "[x]", "ready ready due ready");
}

#[test]
fn errors_before_and_after_the_head() {
    check(vec![Fail], no_changes(), 418, "[teapot]", "ready");
    check(vec![Open, Fail], no_changes(), 418, "[teapot]", "ready done");
    check(vec![Does::Head, Emit("a"), Fail], no_changes(), 200, "[a]!", "ready ready ready");
    check(vec![Does::Head, Emit("a"), Abort], no_changes(), 200, "[a]!", "ready ready ready");
    check(vec![Does::Head, Abort], no_changes(), 200, "!", "ready ready");
    check(vec![Does::Head, Does::Head], no_changes(), 200, "!", "ready ready");
    check(vec![Does::Head, Read], no_changes(), 200, "!", "ready ready");
    for bad in [End, Abort, Emit("a"), Read] {
        check(vec![bad], no_changes(), 500, "[internal error]", "ready");
    }
}

#[test]
fn no_change_of_a_folder_is_lost() {
    let watch = || Wait(20, Some("alloc/logs"));
    let files = FakeFiles { changes_n: Cell::new(2), watches_n: Rc::default() };
    let watches_n = files.watches_n.clone();
    let steps = vec![Open, Does::Head, watch(), watch(), watch(), watch(), End];
    check(steps, files, 200, "", "ready done ready changed changed changed due");
    assert_eq!(watches_n.get(), 3, "the next watch begins before the machine is told of a change");
}

#[test]
fn the_next_step_waits_until_the_frame_was_taken() {
    let told = Rc::new(RefCell::new(String::new()));
    let machine = Box::new(Scripted { steps: vec![Does::Head, Emit("a"), Emit("b"), End], told: told.clone() });
    let answer = Answer::from(Reply::new(Head::default(), Body::Machine(machine)));
    smol::block_on(async {
        let (_, mut body) = open(answer, &outside(no_changes(), Vec::new())).await;
        let frame = next(&mut body).await.unwrap().unwrap();
        let before = told.borrow().clone();
        let waiting = smol::future::poll_once(next(&mut body)).await;
        assert!(waiting.is_none(), "nothing until the buffer is back");
        assert_eq!(*told.borrow(), before, "and no step");
        drop(frame);
        assert_eq!(next(&mut body).await.unwrap().unwrap().chunk(), b"b");
        assert!(next(&mut body).await.is_none());
        assert!(body.is_end_stream());
    });
}

#[test]
fn a_lease_ends_with_its_body_and_can_be_recalled() {
    let ended_n = Rc::new(Cell::new(0));
    let start = |steps| {
        let told = Rc::new(RefCell::new(String::new()));
        let count = ended_n.clone();
        let (lease, recall) = lease(move || count.set(count.get() + 1));
        let reply = Reply::new(Head::default(), Body::Machine(Box::new(Scripted { steps, told: told.clone() })));
        (Answer { reply, lease: Some(lease) }, recall, told)
    };
    let outside = outside(no_changes(), Vec::new());
    smol::block_on(async {
        let (answer, recall, _) = start(vec![Does::Head, End]);
        let (_, mut body) = open(answer, &outside).await;
        assert_eq!(frames(&mut body).await, "");
        assert_eq!(ended_n.get(), 1, "ended with its last step");
        recall.recall();
        let (answer, ..) = start(vec![Does::Head, Wait(60_000, None)]);
        let (_, body) = open(answer, &outside).await;
        drop(body);
        assert_eq!(ended_n.get(), 2, "ended with its connection");
        let (answer, recall, told) = start(vec![Does::Head, Wait(60_000, None), Emit("bye")]);
        let (_, mut body) = open(answer, &outside).await;
        assert!(smol::future::poll_once(next(&mut body)).await.is_none());
        let recalls = async {
            recall.recall();
            std::future::pending().await
        };
        let sent = smol::future::or(frames(&mut body), recalls).await;
        assert_eq!((sent.as_str(), told.borrow().as_str()), ("[bye]", "ready ready gone ready "));
        assert_eq!(ended_n.get(), 3);
    });
}

/// Sends a list: status, length if known, frames.
#[track_caller]
fn check_rows(steps: Vec<Result<(&'static str, bool), ApiError>>, status: u16, bytes_n: Option<u64>, sent: &str) {
    let answer = Answer::from(Reply::new(Head::new(200, TEXT), Body::Rows(Box::new(NoRows))));
    let got = smol::block_on(async {
        let (head, mut body) = open(answer, &outside(no_changes(), steps)).await;
        (head.status, body.size_hint().exact(), frames(&mut body).await)
    });
    assert_eq!((got.0, got.1, got.2.as_str()), (status, bytes_n, sent));
}

#[test]
fn lists_are_sent_step_by_step() {
    let error = || Err(ApiError::new(500, "store"));
    check_rows(vec![Ok(("[1,2]", false))], 200, Some(5), "[[1,2]]");
    check_rows(vec![Ok(("", false))], 200, Some(0), "");
    check_rows(vec![Ok(("[1", true)), Ok((",2", true)), Ok(("]", false))], 200, None, "[[1][,2][]]");
    check_rows(vec![Ok(("", true)), Ok(("", true)), Ok(("[]", false))], 200, Some(2), "[[]]");
    check_rows(vec![Ok(("[", true)), Ok(("", true)), Ok(("]", false))], 200, None, "[[][]]");
    check_rows(vec![Ok(("[1]", true)), Ok(("", false))], 200, None, "[[1]]");
    check_rows(vec![error()], 500, Some(5), "[store]");
    check_rows(vec![Ok(("", true)), error()], 500, Some(5), "[store]");
    check_rows(vec![Ok(("[1", true)), error()], 200, None, "[[1]!");
}

#[test]
fn a_deadline_in_the_past_does_not_wait() {
    let from = std::time::Instant::now();
    check(vec![Does::Head, Wait(0, None), End], no_changes(), 200, "", "ready ready due");
    assert!(from.elapsed() < Duration::from_secs(5));
}
