//! Ports something on this machine listens on: a dynamic port is not given twice (`spec/jobs.md` 7).
//!
//! Shape: `/proc/net/{tcp,tcp6,udp,udp6}` -> sorted ports. A file that cannot be read counts as empty: the port is then found taken by
//! the task itself. Bound: [`FILE_BYTES_MAX`] of each file.

use std::fs::File;
use std::io::Read;

/// Bytes read of one file: about 6 000 sockets.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// State of a listening TCP socket.
const LISTEN: &str = "0A";

/// All of them.
#[must_use]
pub fn ports() -> Vec<u16> {
    let mut all = Vec::new();
    for (path, is_tcp) in [("/proc/net/tcp", true), ("/proc/net/tcp6", true), ("/proc/net/udp", false), ("/proc/net/udp6", false)] {
        let mut text = String::new();
        if File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)).is_ok() {
            parse(&text, is_tcp, &mut all);
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn parse(text: &str, is_tcp: bool, all: &mut Vec<u16>) {
    for line in text.lines().skip(1) {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (Some(local), Some(_), Some(state)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let port = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        if !is_tcp || state == LISTEN {
            all.extend(port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_of_tcp_and_all_of_udp() {
        let text = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:1F90 00000000:0000 0A 0:0\n   1: 0100007F:1F91 0100007F:0016 01 0:0\n broken\n";
        let mut all = Vec::new();
        parse(text, true, &mut all);
        assert_eq!(all, [8080]);
        parse(text, false, &mut all);
        assert_eq!(all, [8080, 8080, 8081]);
    }
}
