//! What operators ask of the whole system (`spec/http-api.md` 8.2): to forget what is over.

use super::error::ApiError;
use super::route::{Acl, Family, Route};
use super::{Answer, Ask, Cx};
use crate::wire::http::Method;

/// The routes. Only PUT: a POST is 405, as upstream.
pub const FAMILY: Family = Family {
    routes: &[Route {
        methods: &[Method::Put],
        pattern: "/v1/system/gc",
        acl: Acl::Management,
        table: None,
        has_cors: false,
        run: collect,
    }],
};

fn collect(cx: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    cx.tasks.collect_all();
    Ok(Answer::empty())
}
