//! The shim as on an old kernel or under an emulator: everything newer than Linux 4 is refused (ENOSYS), and so is the subreaper (EINVAL),
//! by a seccomp filter that outlives the exec. Executes `dunlin-shim-alone` beside it. For fault tests.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::libc::{self, sock_filter, sock_fprog};

/// Refused as a kernel does that has never heard of them.
const UNKNOWN: [libc::c_long; 5] =
    [libc::SYS_clone3, libc::SYS_openat2, libc::SYS_close_range, libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal];

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("a BPF code"), jt: 0, jf: 0, k }
}

/// If the loaded value is `k`, skip the next `jt`, else the next `jf`.
fn jump(k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K).expect("a BPF code"), jt, jf, k }
}

fn refuse(errno: i32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | u32::try_from(errno).expect("an errno"))
}

fn main() -> ExitCode {
    let number = |number: libc::c_long| u32::try_from(number).expect("a system call");
    let load = |at: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at);
    // seccomp_data: number at 0, first argument at 16 (its low half, little endian).
    let mut filter = vec![load(0)];
    for call in UNKNOWN {
        filter.extend([jump(number(call), 0, 1), refuse(libc::ENOSYS)]);
    }
    filter.extend([
        jump(number(libc::SYS_prctl), 0, 3),
        load(16),
        jump(u32::try_from(libc::PR_SET_CHILD_SUBREAPER).expect("an option"), 0, 1),
        refuse(libc::EINVAL),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ]);
    let program = sock_fprog { len: u16::try_from(filter.len()).expect("short"), filter: filter.as_mut_ptr() };
    // SAFETY: plain numbers, and a program that outlives the call.
    let is_set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    let mut args = std::env::args_os();
    let (Some(name), Some(dir), true) = (args.next(), args.next(), is_set) else { return ExitCode::FAILURE };
    let shim = std::env::current_exe().expect("own path").with_file_name("dunlin-shim-alone");
    let error = Command::new(shim).arg0(name).arg(dir).exec();
    eprintln!("{error}");
    ExitCode::FAILURE
}
