//! The route table against its golden file and the documents: an endpoint that nobody wrote down does not exist.

use super::root;

#[test]
fn the_route_table_is_the_golden_one() {
    let path = root().join("tests/conformance/golden/routes.txt");
    let now = dunlin::api::route::table_text(dunlin::api::FAMILIES);
    if std::env::var_os("DUNLIN_RECORD").is_some() {
        std::fs::write(&path, &now).expect("routes.txt is written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, now, "the table has changed: run this test with DUNLIN_RECORD=1 and read the difference");
}

#[test]
fn every_route_has_a_line_in_the_documents() {
    let docs = std::fs::read_to_string(root().join("docs/api.md")).expect("docs/api.md");
    let table = dunlin::api::route::table_text(dunlin::api::FAMILIES);
    let missing: Vec<&str> =
        table.lines().filter_map(|row| row.split(' ').next()).filter(|pattern| !docs.contains(&format!("`{pattern}`"))).collect();
    assert!(missing.is_empty(), "docs/api.md lacks {missing:?}");
}
