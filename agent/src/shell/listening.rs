//! Ports something on this machine listens on: a dynamic port is not given twice (`spec/jobs.md` 7).
//!
//! Shape: the kernel's list of sockets -> sorted ports. Asked by netlink for TCP's listeners and all of UDP; a kernel without socket
//! diagnosis is read through `/proc/net/{tcp,tcp6,udp,udp6}`, which costs a walk through every connection there could be.
//! Errors: what cannot be read counts as empty; the port is then found taken by the task itself.
//! Bounds: [`SOCKETS_MAX`] sockets of each list, one read buffer. Source: linux/inet_diag.h, linux/netlink.h.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// Sockets read of one list.
const SOCKETS_MAX: usize = 4096;
/// What the kernel gives per read: a page of text, or at most this of a dump.
const READ_BYTES: usize = 16 << 10;

/// IPPROTO_TCP.
const TCP: u8 = 6;
/// IPPROTO_UDP.
const UDP: u8 = 17;
/// The state of a listening TCP socket, by number and in text.
const LISTEN: (u32, &str) = (10, "0A");

/// All of them.
#[must_use]
pub fn ports() -> Vec<u16> {
    let mut all = Vec::new();
    for (protocol, states, paths) in
        [(TCP, 1 << LISTEN.0, ["/proc/net/tcp", "/proc/net/tcp6"]), (UDP, u32::MAX, ["/proc/net/udp", "/proc/net/udp6"])]
    {
        let known_n = all.len();
        if dump(protocol, states, &mut all).is_err() {
            all.truncate(known_n);
            for file in paths.iter().filter_map(|path| File::open(path).ok()) {
                parse(BufReader::with_capacity(READ_BYTES, file), protocol == TCP, &mut all);
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Asks the kernel for the sockets of a protocol in these states (a bit each).
fn dump(protocol: u8, states: u32, all: &mut Vec<u16>) -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    let mut buf = vec![0; READ_BYTES];
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        send(&socket, &question(u8::try_from(family.as_raw()).unwrap_or_default(), protocol, states), SendFlags::empty())?;
        answer(&socket, &mut buf, all)?;
    }
    Ok(())
}

/// `nlmsghdr` (len u32, type u16, flags u16, seq u32, pid u32), then `inet_diag_req_v2` (family, protocol, ext, pad: u8; states u32;
/// and 48 bytes that would name one socket).
fn question(family: u8, protocol: u8, states: u32) -> [u8; 72] {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_DUMP: u16 = 0x301;
    let mut bytes = [0; 72];
    bytes[..4].copy_from_slice(&72_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    bytes[16] = family;
    bytes[17] = protocol;
    bytes[20..24].copy_from_slice(&states.to_ne_bytes());
    bytes
}

/// Reads one dump to its end. Errors when the kernel says so.
fn answer(socket: &OwnedFd, buf: &mut [u8], all: &mut Vec<u16>) -> io::Result<()> {
    for _ in 0..SOCKETS_MAX {
        let (n, _) = recv(socket, &mut *buf, RecvFlags::empty())?;
        if messages(buf.get(..n).unwrap_or_default(), all)? {
            return Ok(());
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Takes the ports out of one read; true = the dump is over.
fn messages(mut bytes: &[u8], all: &mut Vec<u16>) -> io::Result<bool> {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    while let Some((head, _)) = bytes.split_first_chunk::<16>() {
        let [a, b, c, d, kind, kind_high, ..] = *head;
        let len = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let body = bytes.get(16..len).ok_or(io::ErrorKind::InvalidData)?;
        match u16::from_ne_bytes([kind, kind_high]) {
            DONE => return Ok(true),
            ERROR => return Err(io::ErrorKind::Unsupported.into()),
            // `inet_diag_msg`: family, state, timer, retrans: u8; then the source port, big endian.
            _ => all.extend(body.get(4..6).map(|port| u16::from_be_bytes([port[0], port[1]])).filter(|_| all.len() < 2 * SOCKETS_MAX)),
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The kernel's text lists TCP's listeners before its connections, so the first of these ends the reading.
fn parse(mut text: impl BufRead, is_tcp: bool, all: &mut Vec<u16>) {
    let mut line = String::new();
    for n in 0..SOCKETS_MAX {
        line.clear();
        if !text.read_line(&mut line).is_ok_and(|read_n| read_n > 0) {
            return;
        }
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (Some(local), Some(_), Some(state)) = (fields.next(), fields.next(), fields.next()) else { continue };
        // The first line names the columns.
        if is_tcp && n > 0 && state != LISTEN.1 {
            return;
        }
        all.extend(local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn listeners_of_tcp_and_all_of_udp() {
        let text = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:1F90 00000000:0000 0A 0:0\n broken\n   1: 0:1F92 0:0 0A 0:0\n   \
                    2: 0100007F:1F91 0100007F:0016 01 0:0\n   3: 0:1F93 0:0 0A 0:0\n";
        let mut all = Vec::new();
        parse(text.as_bytes(), true, &mut all);
        assert_eq!(all, [8080, 8082], "up to the first connection");
        all.clear();
        parse(text.as_bytes(), false, &mut all);
        assert_eq!(all, [8080, 8082, 8081, 8083]);
        all.clear();
        parse(&b"\xff\xff\n"[..], false, &mut all);
        assert_eq!(all, [0; 0]);
    }

    #[test]
    fn messages_of_the_kernel() {
        let message = |kind: u16, body: &[u8]| {
            let len = u32::try_from(16 + body.len()).unwrap();
            [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
        };
        let mut all = Vec::new();
        let socket = message(20, &[2, 10, 0, 0, 0x1f, 0x90, 0, 0]);
        assert!(matches!(messages(&socket, &mut all), Ok(false)));
        // Too short for a port, padded to four bytes; then the end.
        let rest = [message(20, &[2]), vec![0; 3], socket, message(3, &[0; 4])].concat();
        assert!(matches!(messages(&rest, &mut all), Ok(true)));
        assert!(messages(&message(2, &[0; 4]), &mut all).is_err());
        assert!(messages(&[0xff; 40], &mut all).is_err());
        assert!(matches!(messages(&[0; 7], &mut all), Ok(false)));
        assert_eq!(all, [8080, 8080]);
    }

    #[test]
    fn both_ways_find_what_listens_and_no_connection() {
        // A machine may have no IPv6.
        let (four, six) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0").ok());
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (client, served) = (TcpStream::connect(four.local_addr().unwrap()).unwrap(), four.accept().unwrap());
        let port = |addr: std::io::Result<std::net::SocketAddr>| addr.unwrap().port();
        let found = ports();
        assert!(found.contains(&port(four.local_addr())) && found.contains(&port(udp.local_addr())));
        assert!(six.is_none_or(|six| found.contains(&port(six.local_addr()))));
        assert!(!found.contains(&port(client.local_addr())));
        let mut read = Vec::new();
        parse(BufReader::new(File::open("/proc/net/tcp").unwrap()), true, &mut read);
        assert!(read.contains(&port(four.local_addr())) && !read.contains(&port(client.local_addr())));
        drop(served);
    }
}
