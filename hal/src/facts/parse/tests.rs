//! Rows for every parser: real files of boards, then broken, cut-off and huge ones.

use super::*;

/// Raspberry Pi 3, 32-bit kernel.
const PI3_32: &[u8] = b"processor\t: 0\nmodel name\t: ARMv7 Processor rev 4 (v7l)\nBogoMIPS\t: 38.40\n\
    Features\t: half thumb fastmult vfp edsp neon vfpv3\nCPU implementer\t: 0x41\nCPU architecture: 7\n\n\
    Hardware\t: BCM2835\nRevision\t: a02082\nSerial\t\t: 00000000deadbeef\nModel\t\t: Raspberry Pi 3 Model B Rev 1.2\n";
/// Raspberry Pi 4, 64-bit kernel: no model name.
const PI4_64: &[u8] = b"processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n\
    CPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nRevision\t: c03111\nModel\t\t: Raspberry Pi 4 Model B Rev 1.1\n";
/// Raspberry Pi 1, an old kernel's layout.
const PI1_OLD: &[u8] = b"Processor\t: ARMv6-compatible processor rev 7 (v6l)\nBogoMIPS\t: 697.95\n\nHardware\t: BCM2708\n";
/// qemu-virt, 64-bit.
const VIRT_64: &[u8] = b"processor\t: 0\nBogoMIPS\t: 125.00\nCPU implementer\t: 0x41\nCPU revision\t: 4\n";
const X86: &[u8] = b"processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\ncpu MHz\t\t: 2596.134\n";

#[test]
fn cpu_models() {
    assert_eq!(cpu_model(PI3_32), "ARMv7 Processor rev 4 (v7l)");
    assert_eq!(cpu_model(PI4_64), "Raspberry Pi 4 Model B Rev 1.1");
    assert_eq!(cpu_model(PI1_OLD), "ARMv6-compatible processor rev 7 (v6l)");
    assert_eq!(cpu_model(VIRT_64), "");
    assert_eq!(cpu_model(X86), "AMD EPYC");
    assert_eq!(cpu_model(b"\xff\xff: x\nmodel name\t:\n"), "");
}

#[test]
fn architectures() {
    for (machine, bits, want) in [
        ("x86_64", 64, "amd64"),
        ("x86_64", 32, "386"),
        ("i686", 32, "386"),
        ("aarch64", 64, "arm64"),
        ("aarch64", 32, "arm"),
        ("armv7l", 32, "arm"),
        ("armv6l", 32, "arm"),
        ("armv8l", 32, "arm"),
        ("riscv64", 64, "riscv64"),
        ("", 64, ""),
    ] {
        assert_eq!(go_arch(machine, bits), want, "{machine} {bits}");
    }
}

#[test]
fn core_lists() {
    for (list, want) in [
        ("0\n", vec![0]),
        ("0-3\n", vec![0, 1, 2, 3]),
        ("4-5,0-1,1,9\n", vec![0, 1, 4, 5, 9]),
        ("", vec![]),
        ("3-1", vec![]),
        ("a-b,2", vec![2]),
        ("0-99999", vec![]),
        ("-1,,7", vec![7]),
    ] {
        assert_eq!(core_list(list.as_bytes()), want, "{list}");
    }
    assert_eq!(core_list(b"0-65535,3-60000").len(), CORES_MAX);
    assert_eq!(allowed_cores(b"Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t0,2-3\n"), [0, 2, 3]);
    assert_eq!(allowed_cores(b"Name:\tx\n"), []);
}

#[test]
fn frequencies() {
    for (khz, want) in [("1200000\n", Some(1200)), ("600000", Some(600)), ("0\n", None), ("999", None), ("-1", None), ("x", None)] {
        assert_eq!(khz_as_mhz(khz.as_bytes()), want, "{khz}");
    }
    assert_eq!(khz_as_mhz(b"18446744073709551615"), None);
}

#[test]
fn times_of_cores() {
    let stat = b"cpu  30 3 20 100 7 0 0 0 0 0\ncpu0 10 1 5 80 4 2 3 1 6 0\ncpu3 20 2 15 20\nintr 5 4 3\ncpu4 x\nctxt 1\n";
    assert_eq!(
        core_times(stat),
        [CoreTimes { id: 0, user: 10, system: 5, idle: 80, total: 106 }, CoreTimes { id: 3, user: 20, system: 15, idle: 20, total: 57 },]
    );
    assert_eq!(core_times(b""), []);
    let far = format!("cpu0 {0} {0} {0} {0}\n", u64::MAX);
    assert_eq!(core_times(far.as_bytes())[0].total, u64::MAX);
    assert_eq!(core_times("cpu1 1 1 1 1\n".repeat(5000).as_bytes()).len(), CORES_MAX);
}

#[test]
fn memory_of_a_board() {
    let info = b"MemTotal:          51200 kB\nMemFree:           10240 kB\nMemAvailable:      20480 kB\nBuffers:            1024 kB\n\
        Cached:             8192 kB\nSwapCached:            0 kB\nSReclaimable:       1024 kB\n";
    let kib = |n: u64| n * 1024;
    assert_eq!(memory(info), Some(Memory { total: kib(51200), available: kib(20480), used: kib(30720), free: kib(10240) }));
    // A kernel of before 3.14.
    let old = b"MemTotal:  1000 kB\nMemFree:  100 kB\nBuffers:  50 kB\nCached:  150 kB\n";
    assert_eq!(memory(old), Some(Memory { total: kib(1000), available: kib(300), used: kib(700), free: kib(100) }));
    // More cache than memory must not wrap.
    assert_eq!(memory(b"MemTotal: 10 kB\nCached: 99 kB\n").unwrap().used, 0);
    for bad in [&b""[..], b"MemTotal: 0 kB\n", b"MemTotal: many kB\n", b"MemTotal: 5\n", b"MemFree: 5 kB\n"] {
        assert_eq!(memory(bad), None);
    }
    assert!(memory(format!("MemTotal: {0} kB\nMemFree: {0} kB\nCached: {0} kB\n", u64::MAX).as_bytes()).is_some());
}

#[test]
fn distributions() {
    for (text, name, version) in [
        ("PRETTY_NAME=\"Debian GNU/Linux 12\"\nNAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n", "debian", "12"),
        ("ID=\"poky\"\nVERSION_ID=4.0.1\n", "poky", "4.0.1"),
        ("ID='alpine'\r\nVERSION_ID=3.20\r\n", "alpine", "3.20"),
        ("ID_LIKE=debian\n", "", ""),
        ("", "", ""),
    ] {
        assert_eq!(os_release(text.as_bytes()), Os { name: name.into(), version: version.into() }, "{text}");
    }
}

#[test]
fn uuids() {
    let id = [0x0d, 0x1b, 0x2c, 0x3d, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(uuid(b"0d1b2c3d-0000-4000-8000-000000000001\n"), Some(id));
    assert_eq!(uuid(b"0D1B2C3D000040008000000000000001"), Some(id));
    for bad in ["", "0d1b", "0d1b2c3d-0000-4000-8000-00000000000g", "0d1b2c3d-0000-4000-8000-0000000000012"] {
        assert_eq!(uuid(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn default_routes() {
    let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
    let row = |interface: &str, destination: &str, flags: &str, metric: &str, mask: &str| {
        format!("{interface}\t{destination}\t0102A8C0\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0\n")
    };
    let zero = "00000000";
    let v4 = [head.to_owned(), row("wlan0", zero, "0003", "600", zero), row("eth0", zero, "0003", "100", zero)].concat();
    let v6 = "fe800000000000000000000000000000 40 0 00 0 00000100 00000001 00000000 00000001 eth0\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     usb0\n";
    let find = |v4: &str, v6: &str| default_interface(v4.as_bytes(), v6.as_bytes()).map(str::to_owned);
    assert_eq!(find(&v4, v6).as_deref(), Some("eth0"));
    assert_eq!(find(head, v6).as_deref(), Some("usb0"));
    assert_eq!(find("", ""), None);
    // A route that is down, one of a network, and a cut-off line are no default route.
    let none = [row("eth0", zero, "0002", "0", zero), row("eth0", zero, "0001", "0", "00FFFFFF"), "eth0\t00000000".to_owned()].concat();
    assert_eq!(find(&none, ""), None);
}

#[test]
fn small_files() {
    assert_eq!(uptime_s(b"4391.52 8000.10\n"), Some(4391));
    assert_eq!(uptime_s(b"x"), None);
    let psi = b"some avg10=1.25 avg60=0.00 avg300=0.00 total=9\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=0\n";
    assert_eq!(pressure(psi), Some(1.25));
    for bad in ["", "full avg10=1.0 total=1\n", "some avg10=x\n", "some avg10=NaN\n", "some avg10=-3\n"] {
        assert_eq!(pressure(bad.as_bytes()), None, "{bad}");
    }
    assert_eq!(tree_string(b"Raspberry Pi 3 Model B Rev 1.2\0"), "Raspberry Pi 3 Model B Rev 1.2");
    assert_eq!(tree_string(b""), "");
    assert_eq!(number::<u32>(b"100\n"), Some(100));
    assert_eq!(number::<u32>(b"-1\n"), None);
}

/// No file, however broken, reaches a panic.
#[test]
fn rubbish() {
    let mut seed = 1_u64;
    for _ in 0..2000 {
        let mut bytes = Vec::new();
        for _ in 0..seed % 97 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let words: [&[u8]; 8] = [b"cpu0 ", b"MemTotal: ", b"ID=", b"-", b"\n", b"00000000 ", b":", b"some avg10="];
            bytes.extend_from_slice(words[usize::try_from(seed >> 61).unwrap_or(0)]);
            bytes.push(seed.to_le_bytes()[4]);
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let _ = (core_list(&bytes), cpu_model(&bytes), core_times(&bytes), memory(&bytes), os_release(&bytes), uuid(&bytes));
        let _ = (default_interface(&bytes, &bytes), uptime_s(&bytes), pressure(&bytes), khz_as_mhz(&bytes), tree_string(&bytes));
    }
}
