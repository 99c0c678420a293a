//! Who leads, who votes, which regions there are: a standalone node is all of it (`spec/http-api.md` 8.2, 9.2).

use super::error::ApiError;
use super::route::{Acl, Family, get};
use super::{Answer, Ask, Cx};

/// The routes.
pub const FAMILY: Family = Family {
    routes: &[
        get("/v1/status/leader", Acl::None, leader),
        get("/v1/status/peers", Acl::None, peers),
        get("/v1/regions", Acl::None, regions),
    ],
};

fn leader(cx: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Answer::json(&cx.node.rpc_address(), None)
}

fn peers(cx: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Answer::json(&[cx.node.rpc_address()], None)
}

fn regions(cx: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Answer::json(&[&cx.config.region], None)
}
