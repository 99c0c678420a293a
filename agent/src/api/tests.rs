//! Parameters, tokens and prefixes, as rows. Whole answers are tested through the core (`core/tests.rs`) and a real agent.

use super::query::{Query, percent_decode};
use super::route::find;
use super::*;

#[test]
fn common_parameters_and_their_errors() {
    for (query, want) in [
        ("index=x", Err("Invalid index")),
        ("index=-1", Err("Invalid index")),
        ("wait=10", Err("Invalid wait time")),
        ("wait=tomorrow", Err("Invalid wait time")),
        ("stale=maybe", Err("Expect `true` or `false` for `stale` query string parameter")),
        ("per_page=many", Err("Expect a number for `per_page` query string parameter")),
        ("index=18446744073709551615&wait=100ms&stale&per_page=-3&reverse=TRUE&namespace=*&prefix=ab", Ok((u64::MAX, 100, -3, false, "*"))),
        ("wait=0&reverse=true", Ok((0, 300_000, 0, true, "default"))),
        ("wait=1h2m&namespace=", Ok((0, 300_000, 0, false, "default"))),
        ("", Ok((0, 300_000, 0, false, "default"))),
    ] {
        let common = Query::parse(query).unwrap().common();
        let got =
            common.as_ref().map(|c| (c.index, c.wait_ms, c.per_page, c.is_reverse, c.namespace.as_str())).map_err(|why| why.text.as_str());
        assert_eq!(got, want, "{query}");
        assert!(common.as_ref().err().is_none_or(|why| why.status == 400), "{query}");
    }
}

#[test]
fn queries_are_decoded_once() {
    let query = Query::parse("path=a%2Fb+c&path=second&empty&x=%2525").unwrap();
    assert_eq!(query.text("path"), "a/b c");
    assert_eq!((query.get("empty"), query.get("absent")), (Some(""), None));
    assert_eq!(query.text("x"), "%25");
    for bad in ["a=%", "a=%2", "a=%zz", "a=%ff"] {
        assert_eq!(Query::parse(bad).unwrap_err().status, 400, "{bad}");
    }
    assert_eq!(percent_decode("a+b%20c", false).as_deref(), Some("a+b c"));
}

#[test]
fn flags_fail_in_upstreams_words() {
    let query = Query::parse("purge=x&all=T").unwrap();
    let why = query.flag("purge", false).unwrap_err();
    assert_eq!(
        (why.status, why.text.as_str()),
        (500, "Failed to parse value of \"purge\" (x) as a bool: strconv.ParseBool: parsing \"x\": invalid syntax")
    );
    assert_eq!((query.flag("all", false), query.flag("absent", true)), (Ok(true), Ok(true)));
    let query = Query::parse("a=7&b=-1&c=18446744073709551616&d=%2B7&e=").unwrap();
    let text = |key| query.uint(key).map_err(|why| why.text);
    assert_eq!((text("a"), text("e"), text("f")), (Ok(Some(7)), Ok(None), Ok(None)));
    for (key, value, why) in
        [("b", "-1", "invalid syntax"), ("c", "18446744073709551616", "value out of range"), ("d", "+7", "invalid syntax")]
    {
        let want = format!("Failed to parse value of {key:?} ({value}) as a uint64: strconv.ParseUint: parsing {value:?}: {why}");
        assert_eq!(text(key), Err(want));
    }
}

#[test]
fn prefixes_of_ids_fail_in_upstreams_words() {
    for (prefix, why) in [
        ("abc", "Input (without hyphens) must be even length"),
        ("zz", "Invalid UUID: encoding/hex: invalid byte: U+007A 'z'"),
        ("a-b-c-d-e-f", "UUID should have maximum of 4 \"-\"; got 5"),
        ("0a1b2c3d-0000-4000-8000-0000000000010000", "Invalid UUID length. UUID have 36 characters; got 40"),
    ] {
        let fault = list::Source::allocs(prefix).unwrap_err();
        assert_eq!((fault.status, fault.text), (500, format!("alloc lookup failed: index error: {why}")));
    }
    assert!(list::Source::evals("0a1b2c3d-00").is_ok());
}

#[test]
fn paths_find_their_rows() {
    let found =
        |method, path| find(FAMILIES, method, path).map(|found| (found.route.pattern, found.id)).map_err(|why| (why.status, why.text));
    for (method, path, want) in [
        (Method::Get, "/v1/job/a%2Fb/allocations", Ok(("/v1/job/{id..}/allocations", "a/b".to_owned()))),
        (Method::Get, "/v1/job/a/b/c", Ok(("/v1/job/{id..}", "a/b/c".to_owned()))),
        (Method::Post, "/v1/jobs", Ok(("/v1/jobs", String::new()))),
        (Method::Delete, "/v1/jobs", Err((405, "Invalid method".to_owned()))),
        (Method::Head, "/v1/allocations", Err((405, "Invalid method".to_owned()))),
        (Method::Put, "/v1/job/a/summary", Err((405, "Invalid method".to_owned()))),
        (Method::Get, "/v1/nope", Err((404, String::new()))),
        (Method::Get, "/v1/job/%zz", Err((400, "invalid path \"/v1/job/%zz\": not percent-encoded UTF-8".to_owned()))),
        (Method::Get, "/v1/allocation/x/y/z", Ok(("/v1/allocation/{id..}", "x/y/z".to_owned()))),
        (Method::Get, "/v1/client/fs/rm/x", Ok(("/v1/client/fs/{verb..}", "rm/x".to_owned()))),
    ] {
        assert_eq!(found(method, path), want, "{method:?} {path}");
    }
}

#[test]
fn no_two_rows_claim_the_same_requests() {
    let routes: Vec<_> = FAMILIES.iter().flat_map(|family| family.routes).collect();
    for (n, route) in routes.iter().enumerate() {
        for other in &routes[n + 1..] {
            let shares =
                route.methods.is_empty() || other.methods.is_empty() || route.methods.iter().any(|method| other.methods.contains(method));
            assert!(route.pattern != other.pattern || !shares, "{} is claimed twice", route.pattern);
        }
    }
}
